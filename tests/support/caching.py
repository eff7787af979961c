"""A small model of PyTorch's caching allocator, for statistics and snapshots that change as the real ones do.

Written after the rules of c10/cuda/CUDACachingAllocator.cpp: sizes rounded to 512 bytes; a small pool (requests up to
1 MiB, 2 MiB segments) and a large one (20 MiB segments for requests below 10 MiB, else the request rounded to 2 MiB);
best fit within pool and stream; splitting; merging with free neighbours at release. It is no GPU, and nothing it gives
is a recording of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20
_SMALL, _SMALL_SEGMENT, _LARGE_SEGMENT, _MIN_LARGE, _ROUND_LARGE = MIB, 2 * MIB, 20 * MIB, 10 * MIB, 2 * MIB


@dataclass(eq=False)
class Block:
    size: int
    address: int
    requested: int = 0
    allocated: bool = False


@dataclass(eq=False)
class Segment:
    size: int
    stream: int
    large: bool
    address: int
    pool: tuple[int, int] = (0, 0)
    expandable: bool = False
    blocks: list[Block] = field(default_factory=list)


class CachingAllocator:
    """Allocator of one device that has `capacity` bytes."""

    def __init__(self, device: int = 0, capacity: int = 80 << 30) -> None:
        self.device = device
        self.capacity = capacity
        self.segments: list[Segment] = []
        self.retries = 0
        self.ooms = 0
        self._address = 0x7F0000000000

    def allocate(self, requested: int, stream: int = 0, pool: tuple[int, int] = (0, 0)) -> Block:
        """As a tensor does; raises MemoryError."""
        size = max(512, -(-requested // 512) * 512)
        large = size > _SMALL
        block = self._fit(size, stream, large, pool) or self._grow(size, stream, large, pool)
        segment = self._segment(block)
        left = block.size - size
        if left >= 512 if not large else left > _SMALL:
            rest = Block(left, block.address + size)
            segment.blocks.insert(segment.blocks.index(block) + 1, rest)
            block.size = size
        block.allocated, block.requested = True, requested
        return block

    def free(self, block: Block) -> None:
        """As when a tensor dies."""
        segment = self._segment(block)
        block.allocated, block.requested = False, 0
        merged: list[Block] = []
        for one in segment.blocks:
            if merged and not one.allocated and not merged[-1].allocated:
                merged[-1].size += one.size
            else:
                merged.append(one)
        segment.blocks = merged

    def empty_cache(self) -> None:
        """Give wholly free segments back."""
        self.segments = [s for s in self.segments if any(block.allocated for block in s.blocks)]

    def memory_stats_as_nested_dict(self) -> dict[str, Any]:
        blocks = [(s, b) for s in self.segments for b in s.blocks]
        split = [b for s, b in blocks if not b.allocated and len(s.blocks) > 1 and not s.expandable]
        held = [b for _, b in blocks if b.allocated]
        sums = {
            "allocated_bytes": sum(b.size for b in held),
            "active_bytes": sum(b.size for b in held),
            "reserved_bytes": sum(s.size for s in self.segments),
            "requested_bytes": sum(b.requested for b in held),
            "inactive_split_bytes": sum(b.size for b in split),
            "active": len(held),
            "inactive_split": len(split),
            "segment": len(self.segments),
        }
        found: dict[str, Any] = {key: {"all": {"current": value, "peak": value}} for key, value in sums.items()}
        return found | {"num_alloc_retries": self.retries, "num_ooms": self.ooms}

    def memory_stats(self) -> dict[str, Any]:
        found = {}
        for key, value in self.memory_stats_as_nested_dict().items():
            if isinstance(value, dict):
                found |= {f"{key}.all.{kind}": number for kind, number in value["all"].items()}
            else:
                found[key] = value
        return found

    def memory_snapshot(self) -> list[dict[str, Any]]:
        return [
            {
                "device": self.device,
                "address": s.address,
                "total_size": s.size,
                "allocated_size": sum(b.size for b in s.blocks if b.allocated),
                "active_size": sum(b.size for b in s.blocks if b.allocated),
                "requested_size": sum(b.requested for b in s.blocks),
                "stream": s.stream,
                "segment_type": "large" if s.large else "small",
                "segment_pool_id": s.pool,
                "is_expandable": s.expandable,
                "frames": [],
                "blocks": [
                    {
                        "address": b.address,
                        "size": b.size,
                        "requested_size": b.requested,
                        "state": "active_allocated" if b.allocated else "inactive",
                        "frames": [],
                    }
                    for b in s.blocks
                ],
            }
            for s in self.segments
        ]

    def _segment(self, block: Block) -> Segment:
        return next(s for s in self.segments if block in s.blocks)

    def _fit(self, size: int, stream: int, large: bool, pool: tuple[int, int]) -> Block | None:
        fitting = [
            block
            for s in self.segments
            if (s.stream, s.large, s.pool) == (stream, large, pool)
            for block in s.blocks
            if not block.allocated and block.size >= size
        ]
        return min(fitting, key=lambda block: (block.size, block.address), default=None)

    def _grow(self, size: int, stream: int, large: bool, pool: tuple[int, int]) -> Block:
        whole = _SMALL_SEGMENT if not large else _LARGE_SEGMENT
        if size >= _MIN_LARGE:
            whole = -(-size // _ROUND_LARGE) * _ROUND_LARGE
        if self._reserved() + whole > self.capacity:
            self.retries += 1
            self.empty_cache()
            if self._reserved() + whole > self.capacity:
                self.ooms += 1
                raise MemoryError(f"{size} bytes")
        self._address += 1 << 32
        block = Block(whole, self._address)
        self.segments.append(Segment(whole, stream, large, self._address, pool, blocks=[block]))
        return block

    def _reserved(self) -> int:
        return sum(s.size for s in self.segments)
