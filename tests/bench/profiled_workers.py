"""Our workers with a look inside: where a child's time goes, and how many tokens are padding.

`celery -A tests.bench.profiled_workers worker` is `-A workers` with a sampler in each child, and a
count of what goes into the model. Each child writes what it saw when it ends.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown

from tests.bench.stages import IDLE, name_stage
from workers import app

__all__ = ["app"]

FOLDER = "BENCH_PROFILE_FOLDER"
INTERVAL_S = 0.005
PAD = 0
"""The padding token of BERT's vocabulary."""


class Tokens:
    """What the model computed: tokens of texts, and all with padding."""

    def __init__(self) -> None:
        self.calls = self.real = self.computed = 0

    def count(self, input_ids: Any) -> None:
        self.calls += 1
        self.real += int((input_ids != PAD).sum())
        self.computed += int(input_ids.numel())


class Sampler(threading.Thread):
    """Looks at the stacks of all other threads every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.seen: Counter[str] = Counter()
        self.samples = 0

    def run(self) -> None:
        while True:
            time.sleep(INTERVAL_S)
            self.samples += 1
            frames = sys._current_frames()
            for thread, frame in frames.items():
                if thread != self.ident and (stage := name_stage(_list_calls(frame))) != IDLE:
                    self.seen[stage] += 1


def _list_calls(frame: FrameType | None) -> list[tuple[str, str]]:
    """File and function, the innermost first."""
    calls = []
    while frame is not None:
        calls.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    return calls


tokens = Tokens()
sampler = Sampler()


@worker_process_init.connect(weak=False)
def begin(**_: object) -> None:
    """After the model is loaded: this handler was connected after `workers`' own."""
    from transformers import BertModel

    forward = BertModel.forward

    def counted(self: Any, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        if input_ids is not None:
            tokens.count(input_ids)
        return forward(self, input_ids, *args, **kwargs)

    BertModel.forward = counted  # type: ignore[method-assign]
    sampler.start()


@worker_process_shutdown.connect(weak=False)
def write(**_: object) -> None:
    found = {
        "calls": tokens.calls,
        "real": tokens.real,
        "computed": tokens.computed,
        "seconds": {name: count * INTERVAL_S for name, count in sampler.seen.items()},
        "samples": sampler.samples,
    }
    Path(os.environ[FOLDER], f"{os.getpid()}.json").write_text(json.dumps(found))
