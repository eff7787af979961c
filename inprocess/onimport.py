"""Starts the allocator probe when PyTorch is imported: what the `.pth` file calls in each Python process.

A process that never imports PyTorch pays for one entry in `sys.meta_path` and nothing else.
"""

from __future__ import annotations

import sys


class _Watch:
    """A finder that finds nothing: it only learns that PyTorch is being imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - the finder's protocol
        if name == "torch":
            from palegreen.inprocess.allocator import start

            start()


def watch() -> None:
    """Start the probe as soon as this process imports PyTorch."""
    if "torch" in sys.modules:
        from palegreen.inprocess.allocator import start

        start()
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
