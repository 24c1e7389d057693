"""How many padded tokens one model call has where EMBED_BATCH_TOKENS is unset. Light: no torch."""

from tasks.settings import Settings

TORCH = {"cpu": 512, "mps": 4096, "cuda": 32768}
"""CPU: 62 texts/s a core with 512, 51 with 128, 53 with 4,096, measured on the demo's text: beyond
the cache large intermediates cost more than the call they save. A GPU wants to be filled; its
numbers are from the literature, see docs/decisions/0010-encoders.md."""
ONNX_INT8 = 256
"""Texts a second of one core hardly depend on it: 153 with 128, 158 with 256, 140 with 1,024."""
FAKE = 512
"""As for a real model on a CPU."""


def usual_budget_tokens(settings: Settings, device: str) -> int:
    """That of the settings' encoder on a device."""
    if settings.model == "fake":
        return FAKE
    return ONNX_INT8 if settings.backend == "onnx-int8" else TORCH.get(device, TORCH["cpu"])
