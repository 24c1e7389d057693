"""The arguments of `tasks.embed` as a message carries them."""

from collections.abc import Mapping, Sequence
from typing import Any


def name_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """By the names in the task's signature; what is missing has its default."""
    return {**dict(zip(("documents", "collection", "on_long"), args, strict=False)), **kwargs}
