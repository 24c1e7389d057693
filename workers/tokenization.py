"""From texts to token ids and back to padded batches, as one model reads them. No torch here.

Every real encoder has one: a text is tokenized once, and the length check, the plan and the model
call share the result.
"""

from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from tasks.errors import ModelError
from workers.chunks import split_text
from workers.encoder import TokenizedText

Ids = NDArray[np.int64]


class TextTokenizer:
    """A model's tokenizer. Calls take turns: the `tokenizers` library is not thread safe."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        prompt: str = "",
        query_prompt: str | None = None,
        pad_id: int = 0,
        pad_left: bool = False,
    ) -> None:
        """`tokenizer` is changed: it neither truncates nor pads any more.

        `prompt` goes before documents, and before queries where they have none of their own.
        Raises ModelError where special tokens and prompt leave no room for a text.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.max_tokens, self.prompt = max_tokens, prompt
        self.query_prompt = prompt if query_prompt is None else query_prompt
        self.pad_id, self.pad_left = pad_id, pad_left
        self._tokenizer = tokenizer
        self._lock = Lock()
        overhead = len(self.tokenize([""])[0])
        if overhead >= max_tokens:
            raise ModelError(f"the model reads {max_tokens} tokens: no room for a text")
        self._splitter = TextSplitter.from_huggingface_tokenizer(tokenizer, max_tokens - overhead)

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Each document whole, with the prompt and special tokens."""
        return self._tokenize(texts, self.prompt)

    def tokenize_queries(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Each query whole, with its prompt and special tokens."""
        return self._tokenize(texts, self.query_prompt)

    def split(self, text: str) -> list[str]:
        """Chunks that the model reads whole; see `workers.encoder.Encoder.split`."""
        with self._lock:
            return split_text(text, self._splitter, self.max_tokens)

    def pad(self, texts: Sequence[TokenizedText]) -> tuple[Ids, Ids]:
        """Ids and attention mask, both of shape (texts, tokens of the longest).

        Texts beyond `max_tokens` are truncated as the model's own tokenizer would.
        """
        rows = [self._truncate(text) for text in texts]
        width = max(map(len, rows), default=0)
        ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            place = slice(width - len(row), width) if self.pad_left else slice(len(row))
            ids[number, place] = row
            mask[number, place] = 1
        return ids, mask

    def count_prompt_tokens(self, prompt: str) -> int | None:
        """Tokens of a prompt without a closing special one, which poolings that leave the prompt
        out skip; None without a prompt. As sentence-transformers counts them."""
        if not prompt:
            return None
        with self._lock:
            read = self._tokenizer.encode(prompt)
        return len(read.ids) - read.special_tokens_mask[-1]

    def to_json(self) -> str:
        """What `Tokenizer.from_str` reads."""
        return str(self._tokenizer.to_str())

    def _tokenize(self, texts: Sequence[str], prompt: str) -> list[TokenizedText]:
        with self._lock:
            read = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        return [TokenizedText(text, row.ids, prompt) for text, row in zip(texts, read, strict=True)]

    def _truncate(self, text: TokenizedText) -> Sequence[int]:
        if len(text) <= self.max_tokens:
            return text.ids
        with self._lock:  # special tokens stay: only the tokenizer knows where they stand
            self._tokenizer.enable_truncation(self.max_tokens)
            try:
                ids: list[int] = self._tokenizer.encode(text.prompt + text.text).ids
            finally:
                self._tokenizer.no_truncation()
        return ids
