"""Texts to token ids: MiniLM's WordPiece vocabulary (uncased), for the default and the static embedder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tokenizers import Tokenizer

from palegreen.evaluators.embed.files import asset

SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
LONGEST = 4096
"""Characters that are read of a text. Tokenising takes time by the character, and a window of 256 tokens is seldom
more than 1,500 of them."""

VOCABULARY = 30522
UNKNOWN, CLS, SEP = 100, 101, 102


class Tokens:
    """The tokeniser. `window` is the most tokens of a text, [CLS] and [SEP] among them; None: all of them, bare."""

    def __init__(self, window: int | None) -> None:
        # Else every batch is spread over all cores, and the number of threads is bounded by nothing.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._tokenizer = Tokenizer.from_buffer(asset("tokenizer.json", SHA256))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if window is not None:
            self._tokenizer.enable_truncation(window)
        self._special = window is not None

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids by text. A text in which there is nothing to read has none."""
        encodings = self._tokenizer.encode_batch_fast(
            [readable(text) for text in texts], add_special_tokens=self._special
        )
        frame = 2 if self._special else 0
        return [ids if len(ids := encoding.ids) > frame else [] for encoding in encodings]


def readable(text: str) -> str:
    """The first LONGEST characters, as the tokeniser takes them: lone surrogates, which no UTF-8 has, become `?`."""
    return text[:LONGEST].encode("utf-8", "replace").decode()
