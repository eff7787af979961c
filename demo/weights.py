"""Weights that are a little wrong: a model file rounded to fewer bits. It loads, and says the same of itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np


def rounded(source: Path, bits: int, out: Path) -> Path:
    """Copy a GGUF file to `out` with every matrix of its blocks rounded to `bits` bits a weight, row by row.

    They are stored in the format that they had, so the file's size and metadata are the same.
    """
    import gguf  # only for this
    from gguf import quants

    shutil.copyfile(source, out)
    reader = gguf.GGUFReader(out, "r+")
    levels = 2 ** (bits - 1) - 1
    for tensor in reader.tensors:
        if len(tensor.shape) != 2 or "blk." not in tensor.name or tensor.tensor_type.name == "F32":
            continue
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        scale = np.abs(values).max(axis=1, keepdims=True) / levels
        coarse = np.round(values / np.where(scale == 0, 1, scale)) * scale
        tensor.data[:] = quants.quantize(coarse.astype(np.float32), tensor.tensor_type)
    reader.data.flush()
    return out
