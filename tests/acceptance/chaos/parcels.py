"""What the senders send: seeded documents in parcels, some of them revised later."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

LIST = 64
WORDS = ("mill", "text", "vector", "queue", "worker", "store", "ledger", "parcel", "sheet")


@dataclass(frozen=True, slots=True)
class Sheet:
    """One document in one revision."""

    id: str
    text: str

    def row(self) -> dict[str, object]:
        return {"id": self.id, "text": self.text, "metadata": {"sheet": self.id}}


Parcel = tuple[Sheet, ...]


def pack_parcels(documents: int, chance: Random) -> list[Parcel]:
    """Half of the documents alone, half in lists of 64; in each list some long ones."""
    alone = documents // 2
    singles: list[Parcel] = [(_sheet(number, chance),) for number in range(alone)]
    lists = [
        tuple(_sheet(number, chance) for number in numbers)
        for numbers in _split(range(alone, documents))
    ]
    parcels = singles + lists
    chance.shuffle(parcels)
    return parcels


def revise(parcel: Parcel) -> Parcel:
    """The same documents with shorter texts: the long ones have fewer chunks than before."""
    return tuple(
        Sheet(sheet.id, f"Revised: {sheet.text[: len(sheet.text) // 2]}") for sheet in parcel
    )


def _sheet(number: int, chance: Random) -> Sheet:
    length = 600 if chance.random() < 0.02 else chance.randint(3, 40)
    words = " ".join(chance.choices(WORDS, k=length))
    return Sheet(f"sheet-{number}", f"Sheet {number}: {words}.")


def _split(numbers: range) -> Iterator[range]:
    for start in range(numbers.start, numbers.stop, LIST):
        yield range(start, min(start + LIST, numbers.stop))
