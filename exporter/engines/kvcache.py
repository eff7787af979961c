"""What a paged KV cache wastes inside its blocks, as far as engines tell.

No engine publishes the tokens that sit in used blocks. The last block of a sequence is half empty on the average, so
(block - 1) / 2 tokens a running sequence are expected to be wasted, and that over the tokens that the used blocks
hold is what can be said (Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with
PagedAttention").
"""

from __future__ import annotations

from palegreen.exporter.engines.mapping import Mapped

WASTE = "palegreen_engine_kv_cache_waste_ratio"
_RUNNING = "palegreen_engine_requests_running"
_USAGE = "palegreen_engine_kv_cache_usage_ratio"
_CAPACITY = "palegreen_engine_kv_cache_capacity_tokens"
_BLOCK = "palegreen_engine_kv_cache_block_tokens"


def add_expected_waste(mapped: Mapped) -> None:
    """Add the ratio for each owner that gives all four inputs and has something in its cache."""
    place = ()
    for owner in mapped.owners():
        inputs = [mapped.rows.get(name, {}).get((owner, place)) for name in (_RUNNING, _USAGE, _CAPACITY, _BLOCK)]
        if not all(isinstance(value, float) for value in inputs):
            continue
        running, usage, capacity, block = (float(value) for value in inputs if isinstance(value, float))
        used = usage * capacity
        if used > 0 and block >= 1:
            mapped.rows.setdefault(WASTE, {})[owner, place] = min(running * (block - 1) / 2 / used, 1.0)
