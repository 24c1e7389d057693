"""What a worker learns when it claims a message. `tasks.ledger` describes the call; any package may
import it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tasks.broker import text


@dataclass(frozen=True, slots=True)
class Claim:
    """The documents of a message that are not settled: indices in their job, ascending.

    `expired` when the job's record is gone. A document's acceptance number is `sequence` + index,
    or has its place in `numbers`: replayed documents keep theirs.
    `suspect` when an earlier claim of this message ended without a word: its process was lost.
    `uncontested` are those of the indices whose document nobody else may still write with another
    content: neither a message that is not settled nor a dead letter.
    `overtaken` are those of which a deletion was accepted later, with its number.
    `done` and `failed` count those of its documents that have ended already. `waited_s`: since the
    job was accepted.
    """

    expired: bool
    sequence: int
    indices: tuple[int, ...]
    suspect: bool = False
    done: int = 0
    failed: int = 0
    numbers: tuple[int, ...] = ()
    uncontested: frozenset[int] = frozenset()
    overtaken: Mapping[int, int] = field(default_factory=dict)
    waited_s: float = field(default=0.0, compare=False)

    def number(self, index: int) -> int:
        """A document's acceptance number."""
        return self.numbers[index] if self.numbers else self.sequence + index


def read_claim(reply: Any) -> Claim:
    """A claim from the script's reply."""
    if text(reply[0]) == "expired":
        return Claim(expired=True, sequence=0, indices=())
    return Claim(
        expired=False,
        sequence=int(reply[1]),
        suspect=bool(reply[2]),
        done=int(reply[3]),
        failed=int(reply[4]),
        indices=tuple(map(int, reply[5])),
        numbers=tuple(orjson.loads(reply[6])) if reply[6] else (),
        uncontested=frozenset(map(int, reply[8])),
        overtaken=read_overtaken(reply[9]),
        waited_s=max(float(reply[7]), 0.0),
    )


def read_overtaken(flat: Sequence[Any]) -> dict[int, int]:
    """Numbers of deletions by the index of what they win over, from a script's reply."""
    return {int(index): int(number) for index, number in zip(flat[::2], flat[1::2], strict=True)}
