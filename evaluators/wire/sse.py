"""Server-sent events: the stream format of the WHATWG's HTML standard, section 9.2.6, parsed as bytes come."""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event.

    `data` is UTF-8 as it came, its lines joined by LF. `name` is the field `event`, empty for a plain message. `end`
    is how many bytes of the stream had to come for it: up to the blank line that ends it.
    """

    data: bytes
    name: str
    end: int


class Parser:
    """Cuts a stream into events, however it is split; the events do not depend on where.

    Fields `id` and `retry` are about connecting again and are passed over, as are comments. An event without a blank
    line after it never happened, as the standard says.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []  # the line that is not whole
        self._line_at = 0  # where it begins in the stream
        self._after_cr = False
        self._begun = False
        self._data: list[bytes] = []
        self._name = ""

    def feed(self, data: bytes) -> list[Event]:
        """The events that end in `data`."""
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:  # the LF of a CRLF whose CR ended the line
                data = data[1:]
                self._line_at += 1
        if b"\n" not in data and b"\r" not in data:
            self._held.append(data)
            return []
        if self._held:
            data = b"".join((*self._held, data))
            self._held.clear()
        lines = data.splitlines(keepends=True)
        if not lines[-1].endswith((b"\n", b"\r")):
            self._held.append(lines.pop())
        self._after_cr = data.endswith(b"\r")
        if not self._begun:
            self._begun = True
            bare = lines[0].removeprefix(_BOM)
            self._line_at += len(lines[0]) - len(bare)
            lines[0] = bare
        return self._take(lines)

    def _take(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        at, held = self._line_at, self._data
        for line in lines:
            if line.startswith(b"data: "):
                held.append(line[6:].rstrip(b"\r\n"))
            elif line in (b"\n", b"\r\n", b"\r"):
                if held:
                    events.append(Event(held[0] if len(held) == 1 else b"\n".join(held), self._name, at))
                    held.clear()
                self._name = ""
            else:
                self._take_rare(line.rstrip(b"\r\n"))
            at += len(line)
        self._line_at = at
        return events

    def _take_rare(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
        elif field == b"data":
            self._data.append(value)  # without a blank, or without a colon


def parse(body: bytes) -> list[Event]:
    """The events of a whole stream."""
    return Parser().feed(body)
