"""What a worker's main process loads before it forks, so that its pool children share the memory.

A fork's pages are its parent's until one of them writes: modules, the tokenizer and a CPU's weights
are there once for all children, and a child that replaces a lost one is ready without an import.
`workers.startup` calls it. Only on Linux: Apple's libraries refuse a fork once they were used.
"""

import gc
import sys

from tasks.settings import Settings
from workers.encoder import preload_encoder


def preload(settings: Settings) -> None:
    """Load what all children need and a fork can carry. Raises ModelError with one sentence."""
    if sys.platform != "linux":
        return
    preload_encoder(settings)
    from workers import store  # noqa: F401  # its client's modules

    gc.collect()
    gc.freeze()  # collections would write into the pages of all that they look at
