"""What `embedmill watch` shows on a terminal; only `compose.watch` imports it."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from compose.plain import strip_controls
from compose.progress import format_duration
from compose.sample import (
    Sample,
    format_gpu,
    format_left,
    format_memory,
    format_share,
    format_time,
)
from tasks.errors import EmbedError
from tasks.statistics import ChildStatistics

BAR_WIDTH = 30
STAGES = {
    "claim": "claim",
    "tokenize": "tokenize",
    "encode": "encode",
    "queries": "queries",
    "store_wait": "wait for the store",
    "settle": "settle",
}
"""Those that follow one another: upserts run beside encoding."""


def draw(sample: Sample | None, trouble: EmbedError | None, at: float) -> RenderableType:
    """The whole view: trouble, if there is any, and what was seen last."""
    parts: list[RenderableType] = []
    if trouble is not None:
        said = f"{format_time(at)}  {strip_controls(trouble.detail)}; trying again"
        parts.append(Text(said, style="bold red"))
    if sample is not None:
        if trouble is not None:
            parts.append(Text(f"what was seen at {format_time(sample.at)}:", style="dim"))
        parts += [_queue(sample), Text(""), _children(sample), *_gpus(sample)]
        parts += [Text(""), _work(sample)]
    return Group(*parts)


def _queue(sample: Sample) -> Table:
    queue, totals = sample.queue, sample.queue.totals
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(justify="right")
    grid.add_column()
    grid.add_row("time", format_time(sample.at), "")
    grid.add_row("waiting", f"{queue.waiting:,}", "messages in Redis")
    grid.add_row("reserved", f"{queue.reserved:,}", "messages that workers hold")
    grid.add_row("outstanding", f"{queue.outstanding:,}", _fill(sample))
    grid.add_row("oldest", format_duration(queue.oldest_age_s), "")
    grid.add_row("drain rate", f"{queue.drain_rate_per_s:,.0f}", f"texts/s, {format_left(sample)}")
    grid.add_row("done", f"{totals['done']:,}", f"of {totals['accepted']:,} texts accepted")
    grid.add_row("failed", _alarm(totals["failed"]), f"cancelled {totals['cancelled']:,}")
    grid.add_row("429s", _alarm(totals["refusals"]), f"{totals['refused']:,} texts refused")
    letters = sample.statistics.dead_letters
    again = f"redelivered {totals['redelivered']:,}, given back {totals['returned']:,}"
    grid.add_row("dead letters", _alarm(letters), again)
    return grid


def _fill(sample: Sample) -> Table:
    full = sample.queue.outstanding >= sample.limit
    bar = ProgressBar(
        total=sample.limit,
        completed=min(sample.queue.outstanding, sample.limit),
        width=BAR_WIDTH,
        complete_style="red" if full else "green",
        finished_style="red",
    )
    grid = Table.grid(padding=(0, 1))
    grid.add_row(bar, f"of {sample.limit:,} texts")
    return grid


def _alarm(count: int) -> Text:
    return Text(f"{count:,}", style="yellow" if count else "")


def _children(sample: Sample) -> RenderableType:
    workers = sample.queue.workers
    if not workers:
        return Text("no worker consumes the queue", style="yellow")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("worker")
    for name in ("pid", "batch", "texts/s", "CPU", "memory"):
        table.add_column(name, justify="right")
    for child in sample.statistics.children:
        table.add_row(*_row(child))
    for worker in workers:
        if loading := worker.concurrency - worker.warm:
            table.add_row(Text(strip_controls(worker.name)), f"{loading} loading", style="dim")
    return table


def _row(child: ChildStatistics) -> tuple[Text | str, ...]:
    return (
        Text(strip_controls(child.worker)),
        str(child.pid),
        f"{child.last_texts:,}",
        f"{child.texts_per_s:,.0f}",
        format_share(child.cpu_share),
        format_memory(child),
    )


def _gpus(sample: Sample) -> Iterator[Text]:
    for worker in sample.queue.workers:
        for gpu in worker.gpus:
            yield Text(strip_controls(f"{worker.name}  GPU {gpu.name}  {format_gpu(gpu)}"))


def _work(sample: Sample) -> Text:
    work = sample.work
    if not work.passes:
        return Text("no pass of the model lately", style="dim")
    shares = [f"{words} {format_share(work.shares[name])}" for name, words in STAGES.items()]
    return Text(
        f"{work.passes:,} passes of {work.texts_per_pass:,.1f} texts lately: "
        f"{', '.join(shares)}; padding {format_share(work.padding_share)}",
        style="dim",
    )
