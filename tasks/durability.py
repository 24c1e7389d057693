"""Whether a Redis keeps what it acknowledges: workers and web ask at their start, doctor any time.

Any package may import it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.broker import text
from tasks.settings import MIB, Settings

NAMES = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")
"""The configuration that is examined."""
BASE64_GROWTH = 4 / 3
"""Texts lie in the queue in base64."""
ROOM = 2
"""Memory for the texts' limit at least; envelopes, the ledger and results take room as well."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What is so; with advice, it should be otherwise, and `serious` is when texts may be lost."""

    detail: str
    advice: str = ""
    serious: bool = False


def examine(configuration: Mapping[Any, Any], settings: Settings) -> Iterator[Remark]:
    """Remarks on the reply of `CONFIG GET` for `NAMES`."""
    values = {text(name): text(value) for name, value in configuration.items()}
    yield _examine_durability(values["appendonly"], values["appendfsync"])
    yield _examine_eviction(values["maxmemory-policy"])
    yield _examine_memory(int(values["maxmemory"]), settings)


def _examine_durability(appendonly: str, appendfsync: str) -> Remark:
    detail = f"appendonly {appendonly}, appendfsync {appendfsync}"
    if appendonly != "yes":
        advice = "set appendonly yes: without it accepted texts are gone when Redis ends"
        return Remark(detail, advice, serious=True)
    if appendfsync != "always":
        advice = "set appendfsync always: otherwise the last second's texts may be lost in a crash"
        return Remark(detail, advice)
    return Remark(detail)


def _examine_eviction(policy: str) -> Remark:
    detail = f"maxmemory-policy {policy}"
    if policy != "noeviction":
        advice = "set maxmemory-policy noeviction: any other may drop accepted texts silently"
        return Remark(detail, advice, serious=True)
    return Remark(detail)


def _examine_memory(maxmemory: int, settings: Settings) -> Remark:
    if maxmemory == 0:
        advice = f"set maxmemory to at least {ROOM} times EMBED_QUEUE_BYTES"
        return Remark("maxmemory is not set: nothing bounds it", advice)
    detail = (
        f"maxmemory {maxmemory // MIB} MiB, EMBED_QUEUE_BYTES {settings.queue_bytes // MIB} MiB"
    )
    if maxmemory < BASE64_GROWTH * settings.queue_bytes:
        advice = "raise maxmemory, or lower EMBED_QUEUE_BYTES: Redis is full before the queue is"
        return Remark(detail, advice, serious=True)
    if maxmemory < ROOM * settings.queue_bytes:
        return Remark(detail, f"at least {ROOM} times as much leaves room for what is beside texts")
    return Remark(detail)
