"""Which model made a collection: our entry in the collection's own metadata.

The store writes and checks it; the preflight reads it without loading the store's client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.messages import ModelCard

METADATA = "embedmill"


@dataclass(frozen=True, slots=True)
class Provenance:
    """`model` is None where somebody else made the collection."""

    model: str | None
    dimension: int


def write_provenance(card: ModelCard) -> dict[str, Any]:
    """The metadata of a collection that this model makes."""
    return {METADATA: {"model": card.name, "dimension": card.dimension}}


def read_provenance(metadata: Mapping[str, Any] | None, dimension: int) -> Provenance:
    """Who made a collection of this metadata, whose vectors have `dimension` floats."""
    entry = (metadata or {}).get(METADATA)
    model = entry.get("model") if isinstance(entry, Mapping) else None
    return Provenance(model if isinstance(model, str) else None, dimension)


def describe_mismatch(
    collection: str, made_by: Provenance, model: str, dimension: int | None
) -> str | None:
    """One sentence if this model must not write there; `dimension` None is not known yet."""
    same_model = made_by.model in (None, model)
    if same_model and dimension in (None, made_by.dimension):
        return None
    maker = f"{made_by.model or 'a model'} with {made_by.dimension} dimensions"
    ours = f"{model} with {dimension}" if dimension else model
    return (
        f"collection {collection} was made by {maker}, but the workers run {ours}; "
        "choose another collection, or the EMBED_MODEL that made it"
    )
