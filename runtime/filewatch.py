"""Whether a file has changed and is at rest, so that nobody is read in the middle of writing it."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, ...] | None


class FileWatch:
    """Looks at one file whenever asked; None is never changed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether it is another than it was last time this said so, and the same as at the last look."""
        before, self._seen = self._seen, self._stamp()
        if self._seen == before != self._known:
            self._known = self._seen
            return True
        return False

    def read(self) -> None:
        """Somebody has read it just now for another reason."""
        self._known = self._stamp()

    def _stamp(self) -> Stamp:
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
