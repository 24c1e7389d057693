"""What one more child costs in memory, beside a second copy of everything.

PSS counts a page that n processes share as 1/n in each, so that sums are true.
"""

from contextlib import ExitStack

import psutil

from tasks.settings import Settings
from tests.bench.baselines.raw import raw_processes
from tests.bench.bench import Bench
from tests.bench.load import post_all
from tests.bench.sides import our_body, product, wait_until_idle
from tests.bench.usage import family, pss_mb
from tests.bench.workload import sample
from workers.weights import find_weights

KEY = "pss_mb_per_extra_child"


def measure(bench: Bench) -> None:
    bench.part(lambda: _measure(bench), KEY)


def _measure(bench: Bench) -> None:
    copy_mb = _bare_encode_mb(bench.scale.pss_texts)
    found = {count: _worker_mb(bench, count) for count in bench.scale.pss_children}
    fewest, most = min(found), max(found)
    extra_mb = (found[most] - found[fewest]) / (most - fewest)
    details = {
        "ours": round(extra_mb, 1),
        "theirs": round(copy_mb, 1),
        "theirs_is": "a process of its own that loads the model and encodes",
        "second_worker_mb": round(found[fewest], 1),
        "worker_mb_by_children": {str(count): round(mb, 1) for count, mb in found.items()},
        "below_second_copy": extra_mb < copy_mb,
    }
    bench.results.record(KEY, extra_mb, details)


def _worker_mb(bench: Bench, concurrency: int) -> float:
    """The main process and all children, after each child has had work."""
    texts = sample(bench.scale.pss_texts * concurrency)
    with product(bench.folder, concurrency) as stack:
        bodies = [our_body("memory", [text]) for text in texts]
        post_all(f"{stack.side.url}/embed", bodies, connections=8)
        wait_until_idle(stack)
        return pss_mb(family(stack.worker.program.pid))


def _bare_encode_mb(texts: int) -> float:
    with ExitStack() as ends:
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        raw = ends.enter_context(raw_processes(find_weights(Settings()), 1))
        raw.encode(sample(texts))
        new = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
        return max(pss_mb([process]) for process in new)
