"""Cutting a text that is longer than the model reads into chunks; encoders import it.

Borders come from `semantic-text-splitter`: paragraphs, then Unicode sentences (UAX 29, so that
Korean, Chinese and Japanese have them too), then words, then characters. See
docs/decisions/0003-long-texts.md.
"""

from typing import Protocol

from semantic_text_splitter import TextSplitter

WINDOW_CHARACTERS = 8192
"""The library's time grows with the square of a text without sentence borders: 300,000 characters
of Chinese took 45 s in one piece and 5 s in windows."""
WINDOW_CHARACTERS_PER_TOKEN = 32
"""Keeps a window many chunks long for models that read thousands of tokens."""


class Splitter(Protocol):
    def chunks(self, text: str, /) -> list[str]:
        """The parts of the text in their order."""
        ...


def split_text(text: str, splitter: Splitter, max_tokens: int) -> list[str]:
    """The chunks that `splitter` makes of the text; nothing but white space is dropped."""
    size = max(WINDOW_CHARACTERS, WINDOW_CHARACTERS_PER_TOKEN * max_tokens)
    windows = TextSplitter(size, trim=False).chunks(text)
    return [chunk for window in windows for chunk in splitter.chunks(window)]
