"""The file tap: every line once, however the file is written, rotated and read again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.receivers import counted

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.taps import file
from palegreen.runtime.tally import Tally
from palegreen.runtime.yamlfile import ConfigError


class Reading:
    """A file tap that runs, and the lines it has handed over."""

    def __init__(self, path: Path, position: Path | None = None, room: asyncio.Semaphore | None = None) -> None:
        self.lines: list[bytes] = []
        self.envelopes: list[Envelope] = []
        self.tally = Tally(("endpoint", "instance", "namespace", "pod"))
        self._room = room
        self._task = asyncio.create_task(
            file.FileTap(path, True, self._put, self.tally, position=position, poll=0.01).run()
        )

    async def _put(self, envelope: Envelope) -> None:
        if self._room is not None:
            await self._room.acquire()
        self.envelopes.append(envelope)
        self.lines += envelope.parts

    async def has(self, *lines: bytes) -> None:
        """Wait for exactly these lines."""
        for _ in range(1000):
            if len(self.lines) >= len(lines):
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.03)
        assert self.lines == list(lines)

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@contextlib.asynccontextmanager
async def followed(path: Path, position: Path | None = None) -> AsyncIterator[Reading]:
    reading = Reading(path, position)
    try:
        yield reading
    finally:
        await reading.stop()


def once(path: Path) -> tuple[list[bytes], Tally]:
    lines: list[bytes] = []
    tally = Tally(("endpoint", "instance", "namespace", "pod"))

    async def put(envelope: Envelope) -> None:
        lines.extend(envelope.parts)

    asyncio.run(file.FileTap(path, False, put, tally).run())
    return lines, tally


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as out:
        out.write(data)


def test_a_file_is_read_once_with_its_last_line_whether_that_ends_or_not(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\n  \n\xff\xfe not UTF-8\n{"last":1}')
    lines, tally = once(path)
    assert lines == [b'{"a":1}', b"\xff\xfe not UTF-8", b'{"last":1}']
    assert counted(tally) == {"tap_received_total file": 3}


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=30))
def test_lines_come_out_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("file") / "s.jsonl"
    path.write_bytes(b"".join(line + b"\r\n" for line in lines))
    wanted = [line for line in [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]] + lines[1:] if line.strip()]
    assert once(path)[0] == wanted


def test_a_file_larger_than_a_turn_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    wanted = [b"%d " % number + b"x" * (number % 3000) for number in range(2000)]
    path.write_bytes(b"\n".join(wanted))
    assert once(path)[0] == wanted


def test_a_line_over_the_limit_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"one\n" + b"x" * (file.MAX_LINE + 1) + b"\nthree\n")
    with caplog.at_level(logging.WARNING):
        lines, tally = once(path)
    assert lines == [b"one", b"three"]
    assert counted(tally) == {"tap_received_total file": 3, "tap_dropped_total file too_large": 1}
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: line 2 is longer than {file.MAX_LINE} bytes and was skipped"
    ]


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_a_file_that_cannot_be_read_once_is_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    reason = "No such file or directory" if what == "missing" else "not a regular file"
    with pytest.raises(ConfigError, match=f"^file: {path}: {reason}$"):
        once(path)


def test_each_envelope_says_file_and_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "s.jsonl"
        path.write_bytes(b"a\n\nb\n")
        async with followed(path) as reading:
            await reading.has(b"a", b"b")
            said = [(e.meta["kind"], e.meta["tap"], e.meta["file"], e.meta["line"]) for e in reading.envelopes]
            assert said == [("jsonl", "file", "s.jsonl", 1), ("jsonl", "file", "s.jsonl", 3)]

    asyncio.run(scenario())


def test_a_followed_file_may_appear_later_and_grow_in_the_middle_of_a_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "s.jsonl"
        async with followed(path) as reading:
            await reading.has()
            append(path, b"one\ntw")
            await reading.has(b"one")
            append(path, b"o\nthree\n")
            await reading.has(b"one", b"two", b"three")

    asyncio.run(scenario())


def test_a_file_that_is_renamed_is_read_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, old = tmp_path / "s.jsonl", tmp_path / "s.jsonl.1"
        append(path, b"one\n")
        async with followed(path) as reading:
            await reading.has(b"one")
            path.rename(old)
            append(old, b"two\nthree")
            await reading.has(b"one", b"two")
            append(path, b"four\n")
            await reading.has(b"one", b"two", b"three", b"four")

    asyncio.run(scenario())


@pytest.mark.parametrize("fresh", [b"new\n", b"a longer text than was there before\n"])
def test_a_file_that_is_cut_and_written_anew_is_read_from_its_start(tmp_path: Path, fresh: bytes) -> None:
    async def scenario() -> None:
        path = tmp_path / "s.jsonl"
        append(path, b"one\ntwo\nhalf")
        async with followed(path) as reading:
            await reading.has(b"one", b"two")
            path.write_bytes(fresh)  # truncates, the inode stays
            await reading.has(b"one", b"two", fresh.strip())

    asyncio.run(scenario())


def test_reading_waits_while_there_is_no_room_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "s.jsonl"
        path.write_bytes(b"".join(b"%d\n" % number for number in range(100)))
        room = asyncio.Semaphore(3)
        reading = Reading(path, room=room)
        await reading.has(b"0", b"1", b"2")
        for _ in range(97):
            room.release()
        await reading.has(*[b"%d" % number for number in range(100)])
        await reading.stop()

    asyncio.run(scenario())


def test_a_tap_that_is_started_again_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, position = tmp_path / "s.jsonl", tmp_path / "position"
        append(path, b"one\ntwo\nth")
        async with followed(path, position) as reading:
            await reading.has(b"one", b"two")
        append(path, b"ree\nfour\n")
        async with followed(path, position) as reading:
            await reading.has(b"three", b"four")
            assert reading.envelopes[0].meta["line"] == 3
        path.write_bytes(b"another file that happens to be longer than the first\n")
        async with followed(path, position) as reading:
            await reading.has(b"another file that happens to be longer than the first")
        position.write_bytes(b'{"inode": "what"}')
        async with followed(path, position) as reading:
            await reading.has(b"another file that happens to be longer than the first")
        assert b"another" not in position.read_bytes()  # no text of users outside the store

    asyncio.run(scenario())


def test_lines_that_found_no_room_before_a_restart_are_read_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, position = tmp_path / "s.jsonl", tmp_path / "position"
        append(path, b"one\ntwo\nthree\n")
        reading = Reading(path, position, room=asyncio.Semaphore(1))
        await reading.has(b"one")
        await reading.stop()
        async with followed(path, position) as again:
            await again.has(b"two", b"three")

    asyncio.run(scenario())


def test_a_position_that_cannot_be_kept_is_a_warning_and_reading_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        append(tmp_path / "s.jsonl", b"one\n")
        async with followed(tmp_path / "s.jsonl", tmp_path / "nowhere" / "position") as reading:
            await reading.has(b"one")

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert f"position not kept: {tmp_path}/nowhere/position: No such file or directory" in caplog.text
