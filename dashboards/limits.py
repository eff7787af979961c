"""Where panels draw their lines: the thresholds of the rules."""

from __future__ import annotations

_SHIM = {
    "burn_rate_fast": 14.4,
    "burn_rate_slow": 1.0,
    "drift_ratio": 1.0,
    "kv_cache_usage_ratio": 0.95,
    "tail_ratio": 10.0,
    "allocator_fragmentation_ratio": 0.3,
    "throttled_ratio": 0.1,
    "temperature_margin": 5.0,
    "gpu_memory_used_ratio": 0.95,
    "check_fail_ratio": 0.05,
    "recall_ratio": 0.9,
    "source_age_seconds": 60.0,
    "evaluator_lag_seconds": 60.0,
    "saturation": 0.9,
}


def limit(name: str) -> float:
    """The value of a threshold, in its unit. Raises KeyError."""
    return _SHIM[name]
