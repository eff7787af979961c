"""What is taken from PyTorch's allocator dictionaries: pure functions, one pass, nothing kept.

The dictionaries are those of `torch.cuda.memory_stats()` (flat keys such as `allocated_bytes.all.current`),
`torch.cuda.memory_stats_as_nested_dict()` (the same, nested) and `torch.cuda.memory_snapshot()` (a list of segments).
A build or a process without CUDA gives empty ones, and nothing comes of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_BYTES = (
    ("allocated", "allocated_bytes"),
    ("active", "active_bytes"),
    ("reserved", "reserved_bytes"),
    ("requested", "requested_bytes"),
    ("inactive_split", "inactive_split_bytes"),
)
_EVENTS = (("retries", "num_alloc_retries"), ("ooms", "num_ooms"))
_DEFAULT_POOL = (0, 0)


def statistics(stats: Mapping[str, Any]) -> dict[str, int]:
    """Bytes held now over all pools, and counts of retries and of out-of-memory errors; what is missing is left out."""
    found = {}
    for name, family in _BYTES:
        value = _current(stats, family)
        if value is not None:
            found[name] = value
    for name, key in _EVENTS:
        if key in stats:
            found[name] = stats[key]
    return found


def blocks(stats: Mapping[str, Any]) -> int:
    """About how many blocks a snapshot would list: what it costs grows with them."""
    return sum(_current(stats, family) or 0 for family in ("active", "inactive_split", "segment"))


def summaries(segments: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, int]]:
    """Sums over one snapshot, in bytes, by device index.

    Private pools (CUDA graphs, MemPool) count in `private` and nowhere else. `free`, `largest` and `largest_sum` are
    of inactive blocks outside expandable segments, whose free pages can be unmapped and mapped elsewhere;
    `largest_sum` adds up the largest block of each stream, since a block serves no other stream than its own.
    `inactive_split` is as PyTorch counts it: inactive blocks that share their segment with others.
    """
    found: dict[int, dict[str, int]] = {}
    largest: dict[tuple[int, int], int] = {}
    for segment in segments:
        device, size = segment["device"], segment["total_size"]
        sums = found.get(device)
        if sums is None:
            sums = found[device] = dict.fromkeys(
                ("reserved", "allocated", "requested", "inactive_split", "free", "private", "expandable"), 0
            )
        if tuple(segment.get("segment_pool_id", _DEFAULT_POOL)) != _DEFAULT_POOL:
            sums["private"] += size
            continue
        sums["reserved"] += size
        sums["allocated"] += segment["allocated_size"]
        expandable = segment.get("is_expandable", False)
        if expandable:
            sums["expandable"] += size
        listed = segment["blocks"]
        free = split = requested = most = 0
        for block in listed:
            state = block["state"]
            if state == "active_allocated":
                requested += block.get("requested_size", 0)
            elif state == "inactive" and not expandable:
                size = block["size"]
                free += size
                if size > most:
                    most = size
        if len(listed) > 1:
            split = free
        sums["free"] += free
        sums["inactive_split"] += split
        sums["requested"] += requested
        group = (device, segment["stream"])
        if most > largest.get(group, 0):
            largest[group] = most
    for device, sums in found.items():
        of_streams = [most for (owner, _), most in largest.items() if owner == device]
        sums["largest"] = max(of_streams, default=0)
        sums["largest_sum"] = sum(of_streams)
    return found


def _current(stats: Mapping[str, Any], family: str) -> int | None:
    flat: int | None = stats.get(f"{family}.all.current")
    if flat is not None or family not in stats:
        return flat
    nested: int = stats[family]["all"]["current"]
    return nested
