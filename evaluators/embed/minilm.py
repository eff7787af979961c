"""The default embedder: all-MiniLM-L6-v2 with int8 weights on ONNX Runtime. No torch, no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from palegreen.evaluators.embed import tokens
from palegreen.evaluators.embed.embedder import EmbedderError, Vectors
from palegreen.evaluators.embed.files import asset, geometry
from palegreen.evaluators.embed.tokens import Tokens

FILE = "minilm.onnx"
SHA256 = "3f35c8da5944bbbb008d5791bc1b8f3d85975b300a6ecf35bd6570a97eee82fd"

WINDOW = 256
"""Most tokens of a text, as the model was trained; the rest is not read. About 1,100 characters of English."""

BATCH = 384
"""Most tokens that run together, padding among them. More is no faster, as the caches hold no more."""


class MiniLM:
    """Vectors of 384 dimensions. A vector does not depend on the other texts of its batch."""

    name = "minilm"
    digest = geometry(SHA256, tokens.SHA256, str(WINDOW), str(tokens.LONGEST))
    dimensions = 384

    def __init__(self, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # batches are as small as caches: side by side they gain more than shared
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it grows to the largest batch of every shape and never gives back
        options.enable_mem_pattern = False  # plans memory for each shape; here every batch has another
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = asset(FILE, SHA256)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as failure:  # its exceptions have no common base
            raise EmbedderError(f"ONNX Runtime {onnxruntime.__version__} cannot load minilm: {failure}") from failure
        self._tokens = Tokens(WINDOW)
        self._pool = ThreadPoolExecutor(threads, "minilm") if threads > 1 else None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text, in order; only the first 256 tokens of a text are read."""
        return self.vectors(self._tokens.ids(texts))

    def vectors(self, ids: Sequence[Sequence[int]]) -> Vectors:
        """One row a list of token ids with [CLS] and [SEP], at most WINDOW of them; an empty list gives zeros."""
        rows = np.zeros((len(ids), self.dimensions), np.float32)

        def run(group: list[int]) -> None:
            padded = np.zeros((len(group), len(ids[group[-1]])), np.int64)
            mask = np.zeros(padded.shape, np.int32)
            for place, index in enumerate(group):
                padded[place, : len(ids[index])] = ids[index]
                mask[place, : len(ids[index])] = 1
            rows[group] = self._session.run(None, {"ids": padded, "mask": mask})[0]

        each = groups([len(row) for row in ids], BATCH)
        for _ in map(run, each) if self._pool is None else self._pool.map(run, each):
            pass
        return rows


def groups(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of texts that run together: of similar length, `budget` tokens with padding; those of none are left out.

    Each group ends with its longest.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        if not length:
            continue
        if group and (length * (len(group) + 1) > budget or length > lengths[group[0]] * 5 // 4 + 4):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
