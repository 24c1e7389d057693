"""What an accepted request with an `Idempotency-Key` leaves in Redis. Any package may import it.

The accept script replaces a mark and accepts in one step, and only where it finds the mark that it
was told to expect: of two requests with the same key one is accepted, and the other hears what the
first has left.
"""

import hashlib
from dataclasses import asdict, dataclass

MARKS = "embedmill:request:"
"""What the names of their keys in Redis begin with."""


@dataclass(frozen=True, slots=True)
class Mark:
    """`before` is what has to be there, the empty string: nothing; `after` replaces it."""

    key: str
    before: str
    after: str
    ttl_s: int

    def to_fields(self) -> dict[str, str | int]:
        """As the script reads it."""
        return asdict(self)


def mark_key(owner: str, given: str) -> str:
    """Of a client's key: nobody's key is another one's, and its length does not matter."""
    digest = hashlib.sha256(f"{owner}\0{given}".encode()).hexdigest()
    return f"{MARKS}{digest[:32]}"
