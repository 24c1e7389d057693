"""Where converted models are on disk, and who makes them: one process, once. No torch here.

A worker's main process asks before it starts children; whoever loads the model asks again.
"""

import fcntl
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import ModelError
from tasks.settings import Settings
from workers.weights import digest_weights, find_weights

logger = logging.getLogger(__name__)

VERSION = 2
"""Of the way of converting: raise it when the same weights become another file."""
GRAPH, RECIPE, TOKENIZER = "model.onnx", "recipe.json", "tokenizer.json"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
PACKAGES = ("onnxruntime", "onnx", "onnxscript")


def find_converted(settings: Settings) -> Path:
    """The folder of the model as the settings' backend reads it, made first if need be.

    Raises ModelError when packages are missing or the conversion fails or loses too much.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"EMBED_BACKEND={settings.backend} needs the package {missing[0]}: "
            "install embedmill[int8]"
        )
    if settings.device not in {"auto", "cpu"}:
        raise ModelError(
            f"EMBED_BACKEND={settings.backend} runs on CPUs: set EMBED_DEVICE=cpu, or "
            "EMBED_BACKEND=torch"
        )
    source = find_weights(settings)
    folder = settings.cache_dir.expanduser() / f"{settings.backend}-{_digest(source)}"
    if (folder / RECIPE).is_file():
        return folder
    try:
        with _locked(folder.with_suffix(".lock")):
            if not (folder / RECIPE).is_file():  # nobody else has made it meanwhile
                _make(source, folder)
    except OSError as error:
        raise ModelError(
            f"EMBED_CACHE_DIR={settings.cache_dir} cannot be used: {error}; name another folder"
        ) from error
    return folder


def _make(source: Path, folder: Path) -> None:
    """In a process of its own, whose memory is free again afterwards; whole or not at all."""
    logger.warning("converting %s to int8, once; it takes about a minute", source.name)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        command = [sys.executable, "-m", "workers.conversion", os.fspath(source), os.fspath(draft)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise ModelError(f"{source.name} cannot be converted to int8: {said[-1]}")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(folder: Path) -> str:
    """Of all that decides what the conversion makes."""
    return digest_weights(folder, str(VERSION))
