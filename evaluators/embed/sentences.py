"""Any sentence-transformers model as the embedder. Brings PyTorch; the extra is sentence-transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from sentence_transformers import SentenceTransformer

from palegreen.evaluators.embed.embedder import EmbedderError, Vectors
from palegreen.evaluators.embed.files import geometry
from palegreen.evaluators.embed.tokens import LONGEST, readable

BATCH = 16


class Sentences:
    """A model by the path of its folder, or by the name under which the Hugging Face cache of this machine has it.

    The digest is of the folder's files: a name alone is no geometry, as its owner may change what it stands for.
    """

    def __init__(self, model: str, threads: int) -> None:
        self.name = f"sentence-transformers:{model}"
        torch.set_num_threads(threads)
        folder = _folder(model)
        try:
            self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as failure:  # whatever it meets in a folder that holds no model
            raise EmbedderError(f"{self.name} cannot be loaded: {' '.join(str(failure).split())}") from failure
        self.digest = geometry(_contents(folder), str(LONGEST))
        self.dimensions = len(self._model.encode(["dimensions"])[0])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text, in order; the model's own window and at most 4,096 characters are read."""
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        filled = [index for index, text in enumerate(texts) if text.strip()]
        if filled:
            rows[filled] = self._model.encode(
                [readable(texts[index]) for index in filled],
                batch_size=BATCH,
                convert_to_numpy=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return rows


def _folder(model: str) -> Path:
    """Where a model lies on this machine. Raises EmbedderError."""
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception as failure:  # names that are none, a cache that is not there: exceptions of many kinds
        raise EmbedderError(
            f"sentence-transformers:{model} is neither a folder nor in the Hugging Face cache of this machine: "
            f"give the path of its folder, or fetch it first with hf download {model}"
        ) from failure


def _contents(folder: Path) -> str:
    """Digest of the names and contents of all files of a model but its documentation."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.suffix == ".md" or any(part.startswith(".") for part in name.parts):
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name.as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
