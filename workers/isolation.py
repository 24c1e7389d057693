"""One bad item never hurts its neighbours: what fails together is tried again alone.

The pipeline and the upserts use it.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tasks.errors import EmbedError, ModelError

T = TypeVar("T")
R = TypeVar("R")


def together_or_alone(
    work: Callable[[Sequence[T]], Sequence[R]],
    items: Sequence[T],
    failures: type[Exception] | tuple[type[Exception], ...],
) -> list[R | EmbedError]:
    """The results of `work`, or, where it fails even for an item alone, the error.

    With `failures=Exception` this is the program's broad `except`: a model and its tokenizer may
    raise anything about a text, and only that text shall fail. What says of itself that it is
    retryable is about the surroundings and passes.
    """
    try:
        return list(work(items))
    except failures as error:
        if isinstance(error, EmbedError) and error.retryable:
            raise
        if len(items) == 1:
            return [_as_ours(error)]
    return [result for item in items for result in together_or_alone(work, [item], failures)]


def _as_ours(error: Exception) -> EmbedError:
    if isinstance(error, EmbedError):
        return error
    return ModelError(f"the model refused the text: {type(error).__name__}: {error}")
