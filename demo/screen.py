"""Where the demo says how things are: lines that stay and, below them, a summary that is rewritten."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

_EVERY = 5.0  # seconds between summaries in a file


class Screen:
    """Standard output. On a terminal the summary stays at the bottom; into a file it goes every five seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._back = ""
        self._shown = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another summary."""
        return self._terminal or time.monotonic() - self._shown >= _EVERY

    def show(self, stay: Sequence[str], summary: Sequence[str]) -> None:
        """Print lines that stay, then the summary, in the place of the one before."""
        back = self._back
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1  # of a line that wraps only a part could be taken back
            summary = [line[:width] for line in summary]
            self._back = f"\x1b[{len(summary)}F\x1b[J"  # up to its first line, and clear from there
        self._shown = time.monotonic()
        print(back + "\n".join([*stay, *summary]), flush=True)


def say(text: str) -> None:
    """Print a line that stays, at once."""
    print(text, flush=True)
