"""A stand-in for a GPU build of PyTorch: the calls the probe makes, over a model of the caching allocator.

Tests put it into a child process as the module `torch`; there is no GPU behind it.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence
from typing import Any

from support.caching import CachingAllocator

UUIDS = ("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa")


def install(allocators: Sequence[CachingAllocator], initialised: bool = True, backend: str = "native") -> Any:
    """`torch` in this process from now on; `torch.cuda.calls` counts what was called."""
    torch, cuda = types.ModuleType("torch"), types.ModuleType("torch.cuda")
    calls: dict[str, int] = {}

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return function(*arguments, **options)

        return call

    def snapshot(include_traces: bool = True) -> list[dict[str, Any]]:
        return [segment for allocator in allocators for segment in allocator.memory_snapshot()]

    cuda.initialised = initialised
    cuda.calls = calls
    os.register_at_fork(after_in_child=lambda: setattr(cuda, "initialised", False))  # as after a fork with CUDA in use
    functions = {
        "is_initialized": lambda: cuda.initialised,
        "init": lambda: setattr(cuda, "initialised", True),
        "device_count": lambda: len(allocators),
        "get_allocator_backend": lambda: backend,
        "get_device_properties": lambda index: types.SimpleNamespace(uuid=UUIDS[index]),
        "memory_stats_as_nested_dict": lambda index: allocators[index].memory_stats_as_nested_dict(),
        "memory_snapshot": snapshot,
    }
    for name, function in functions.items():
        setattr(cuda, name, counted(name, function))
    torch.cuda = cuda
    sys.modules["torch"], sys.modules["torch.cuda"] = torch, cuda
    return torch
