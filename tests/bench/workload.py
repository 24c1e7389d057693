"""The texts: the demo's corpus, each paragraph once, and texts of a wished length made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import orjson

from compose.corpus import reference_items

SEED = 6
REQUEST_TEXTS = 64
SPECIAL_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Work:
    """Texts to be found in `collection` afterwards, one point each, sent `request_texts` a time."""

    collection: str
    texts: Sequence[str]
    request_texts: int = REQUEST_TEXTS

    def requests(self, request_texts: int | None = None) -> list[list[str]]:
        step = request_texts or self.request_texts
        return [list(self.texts[at : at + step]) for at in range(0, len(self.texts), step)]


@cache
def corpus() -> tuple[str, ...]:
    """The distinct paragraphs of the Python language reference, in an order that is always the same
    and tells nothing of their length, so that any first n are a fair sample."""
    texts = sorted({str(orjson.loads(item.body)["text"]) for item in reference_items()})
    Random(SEED).shuffle(texts)
    return tuple(texts)


def sample(count: int) -> tuple[str, ...]:
    """The first `count` of the corpus, or all."""
    return corpus()[:count]


def texts_of_length(tokens: int, count: int) -> list[str]:
    """`count` different texts of about `tokens` tokens: the corpus' words, cut anew."""
    from tokenizers import Tokenizer

    from tasks.settings import Settings
    from workers.weights import find_weights

    tokenizer = Tokenizer.from_file(str(find_weights(Settings()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    words = " ".join(corpus()).split()
    per_word = len(tokenizer.encode(" ".join(words[:2000]))) / 2000
    step = max(1, round((tokens - SPECIAL_TOKENS) / per_word))
    starts = range(0, len(words) - step, max(1, min(step, (len(words) - step) // count)))
    return [" ".join(words[at : at + step]) for at in starts[:count]]
