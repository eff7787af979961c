"""The last samples of a replica, as small as they can be: to look back at when something has alarmed.

A whitened vector is kept as four bits a dimension: in steps of 0.71 standard deviations, so the error adds 0.04 to a
variance of 1. With its id a sample takes some 190 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.features import CLIP
from palegreen.evaluators.detectors.mewma import State

MOST = 384
"""Samples at most."""
ID_BYTES = 64
_LEVELS = 7
_STEP = CLIP / _LEVELS


def packed(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Vectors (n, d) in [-CLIP, CLIP] as (n, (d + 1) // 2) bytes; 0 in a byte's half stands for nothing."""
    levels = (np.rint(rows / _STEP) + (_LEVELS + 1)).astype(np.uint8)
    if levels.shape[1] % 2:
        levels = np.pad(levels, ((0, 0), (0, 1)))
    halves: NDArray[np.uint8] = (levels[:, ::2] * np.uint8(16)) | levels[:, 1::2]
    return halves


def unpacked(packed: NDArray[np.uint8], dimensions: int) -> NDArray[np.float32]:
    """Vectors (n, d) again; NaN where there was none."""
    levels = np.stack([packed >> 4, packed & 15], axis=2).reshape(len(packed), -1)[:, :dimensions]
    return np.where(levels > 0, (levels.astype(np.float32) - (_LEVELS + 1)) * _STEP, np.float32(np.nan))


class Ring:
    """Samples with number, time (epoch seconds), id, vectors of both channels, and the streams that were too high.

    Args:
        dimensions: of each channel's vectors.
        streams: how many there are.
        size: bytes that it may take.
    """

    def __init__(self, dimensions: Mapping[str, int], streams: int, size: int) -> None:
        self._dimensions = dict(dimensions)
        self._streams = streams
        vectors = [(channel, np.uint8, ((count + 1) // 2,)) for channel, count in self._dimensions.items()]
        self._dtype = np.dtype(
            [
                ("number", np.int64),
                ("time", np.float64),
                ("id", f"S{ID_BYTES}"),
                ("high", np.uint8, ((streams + 7) // 8,)),
                *vectors,
            ]
        )
        self._held = np.zeros(min(MOST, size // self._dtype.itemsize), self._dtype)
        self._next = self._count = 0

    def push(self, number: int, time: float, name: str, vectors: Mapping[str, NDArray[np.uint8] | None]) -> None:
        """Take a sample; vectors are `packed`, None where there is none."""
        slot = self._held[self._next]
        slot["number"], slot["time"], slot["id"] = number, time, name.encode(errors="replace")[:ID_BYTES]
        slot["high"] = 0
        for channel in self._dimensions:
            vector = vectors.get(channel)
            slot[channel] = 0 if vector is None else vector
        self._next = (self._next + 1) % len(self._held)
        self._count = min(self._count + 1, len(self._held))

    def mark(self, high: NDArray[np.bool_]) -> None:
        """In which streams the last sample was beyond its limit."""
        self._held[self._next - 1]["high"] = np.packbits(high)

    def samples(self) -> NDArray[Any]:
        """What is held, oldest first."""
        return np.roll(self._held, -self._next) if self._count == len(self._held) else self._held[: self._count]

    def vectors(self, channel: str, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Of `samples`, (n, dimensions), NaN where there is none."""
        return unpacked(samples[channel], self._dimensions[channel])

    def high(self, stream: int, samples: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of `samples` were beyond their limit in a stream."""
        bits: NDArray[np.bool_] = np.unpackbits(samples["high"], axis=1)[:, stream] > 0
        return bits

    def state(self) -> State:
        """To go on from after a restart: its bytes, as plain numbers."""
        held = np.frombuffer(self.samples().tobytes(), np.uint8).reshape(self._count, self._dtype.itemsize)
        return {"samples": held.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state. Raises ValueError or KeyError, if it is not one of such a ring."""
        held = state["samples"]
        if held.dtype != np.uint8 or held.ndim != 2 or held.shape[1] != self._dtype.itemsize:
            raise ValueError("samples of another shape")
        rows = np.frombuffer(held.tobytes(), self._dtype)[-len(self._held) :]
        self._count = len(rows)
        self._held[: self._count] = rows
        self._next = self._count % len(self._held)
