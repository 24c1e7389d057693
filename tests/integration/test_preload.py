"""What a process loads for those that it forks: they use it, and nothing of it breaks in a fork."""

import os
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest

from tasks.settings import DEFAULT_MODEL, Settings, share_threads
from workers.encoder import build_encoder, encode_texts
from workers.preload import preload

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

THREADS = 2


def test_forked_processes_compute_with_what_was_loaded_before() -> None:
    """In a process of its own: this one has computed, and so has threads."""
    program = f"from {__name__} import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def run() -> None:
    share_threads(THREADS)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # it ends its threads at a fork by itself
    settings = Settings(model=DEFAULT_MODEL)
    before = _count_threads()
    _preload_without_cuda(settings)
    assert _count_threads() == before
    if not (child := os.fork()):
        _compute(settings)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _preload_without_cuda(settings: Settings) -> None:
    import torch

    unasked = AssertionError("CUDA was asked before the fork")
    with (
        patch.object(torch.cuda, "is_available", side_effect=unasked),
        patch.object(torch.cuda, "device_count", side_effect=unasked),
        patch.object(torch.cuda, "_lazy_init", side_effect=unasked),
    ):
        preload(settings)
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    assert not initialized


def _compute(settings: Settings) -> None:
    import torch

    from workers import torch_encoder

    texts = ["hello world", "many words " * 40]
    shared = build_encoder(settings)
    assert torch.get_num_threads() == THREADS
    torch_encoder._preloaded = None
    own = build_encoder(settings)
    assert own is not shared
    assert np.allclose(encode_texts(shared, texts), encode_texts(own, texts), atol=1e-5)
    assert _count_threads() > 1


def _count_threads() -> int:
    return len(os.listdir("/proc/self/task"))
