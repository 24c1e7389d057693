"""Where it is measured: a private stack with data of its own, gone afterwards.

`compose.tune` and the benchmark import it.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # new in 5.7

from compose.interruption import Interruption
from compose.output import Output
from compose.redis_server import QUEUE_COPIES
from compose.services import Options
from compose.stack import Stack
from compose.tuning.door import DoorMeter
from compose.tuning.gpu import GpuMeter
from compose.tuning.mill import Mill
from compose.tuning.points import Space, space_of
from compose.tuning.sizes import Sizes
from compose.tuning.usage import available_bytes
from tasks.gpus import list_gpus
from tasks.settings import MIB, Settings
from workers.budgets import usual_budget_tokens

STORES = ("redis", "qdrant")
NOT_STARTED = frozenset({"worker", "web", "flower"})
QUEUE_LIMIT = 10**9
QUEUE_BYTES = 256 * MIB
"""Of the private queue, at least: it is no limit that is measured."""
MEMORY_SHARE = 1 / 2
"""Of what is free, that the private Redis may take for more than that."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A private stack that is ready, what may be tried on this machine, and what measures it."""

    stack: Stack
    space: Space
    mill: Mill
    environment: Mapping[str, str]
    texts: Sequence[str]

    def door(self) -> DoorMeter:
        """For when no worker runs any more."""
        return DoorMeter(self.stack, self.environment, self.texts, self.mill.clear)


@contextmanager
def private_ground(
    settings: Settings,
    texts: Sequence[str],
    folder: Path,
    output: Output,
    interruption: Interruption,
) -> Iterator[Ground]:
    """Data is kept in `folder`, whose disk should be the one that a stack's data will be on, and
    removed at the end. Raises StackError, ModelError, Interrupted."""
    space = _space(settings)
    limits = {"queue_limit": QUEUE_LIMIT, "queue_bytes": queue_bytes(settings, texts, space)}
    own = settings.model_copy(update=limits)
    options = Options(data_dir=folder, port=0, isolated=True, without=NOT_STARTED)
    stack = Stack(options, settings=own, output=output, interruption=interruption)
    try:
        with stack, GpuMeter() as gpu:
            stack.check_weights()
            own = own.model_copy(
                update={"broker_url": stack.redis_url, "qdrant_url": stack.qdrant_url}
            )
            environment = {**stack.plan.environment, **_private(own)}
            mill = Mill(stack, own, environment, texts, gpu, gpus=space.gpus)
            with closing(mill):
                mill.clear()
                yield Ground(stack, space, mill, environment, texts)
    finally:
        for store in STORES:
            shutil.rmtree(folder / store, ignore_errors=True)


def queue_bytes(settings: Settings, texts: Sequence[str], space: Space) -> int:
    """Room for the smallest backlog of the most children, as far as memory goes."""
    sizes = Sizes(texts)
    unit = max(space.children) * sizes.pass_texts(settings, gpus=space.gpus)
    affordable = int(MEMORY_SHARE * available_bytes() / QUEUE_COPIES)
    return max(settings.queue_bytes, QUEUE_BYTES, min(sizes.least_bytes(unit), affordable))


def _space(settings: Settings) -> Space:
    gpus = len(list_gpus(settings))
    budget_tokens = usual_budget_tokens(settings, "cuda" if gpus else settings.device)
    return space_of(int(cpu_budget().count), gpus, budget_tokens, forks=settings.device != "mps")


def _private(settings: Settings) -> dict[str, str]:
    """Of the user's settings what does not concern private servers, and limits that are none."""
    return {
        "EMBED_API_KEYS_FILE": "",
        "EMBED_LOG_QUEUE_S": "",
        "EMBED_LOG_FORMAT": "",
        "EMBED_QUEUE_LIMIT": str(settings.queue_limit),
        "EMBED_QUEUE_BYTES": str(settings.queue_bytes),
    }
