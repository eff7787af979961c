"""The queue between taps and scorer never waits, is bounded, and accounts for everything that it loses."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.taps.desk import Desk
from palegreen.evaluators.taps.queue import Queue
from palegreen.inprocess.frame import Decoder, FrameError, encode
from palegreen.runtime.exposition import Exposition
from palegreen.runtime.tally import Tally

COMMON = ("chat", "host:1", "", "")


def envelope(number: int, size: int = 10) -> Envelope:
    return Envelope({"tap": "proxy", "kind": "http", "number": number}, [b"x" * size, b""])


def dropped(tally: Tally) -> dict[str, float]:
    lines = Exposition([tally.readings()]).body().decode().splitlines()
    found = [line for line in lines if line.startswith("palegreen_tap_dropped_total{")]
    return {line.split('reason="')[1].split('"')[0]: float(line.split()[-1]) for line in found}


def numbers(frames: list[bytes]) -> list[int]:
    return [header["number"] for header, _ in Decoder().feed(b"".join(frames))]


def run(test: Callable[[Queue, Tally], Awaitable[None]], limit: int = 100_000) -> None:
    async def inside() -> None:
        tally = Tally(COMMON)
        await test(Queue(limit, tally), tally)

    asyncio.run(inside())


def test_what_does_not_fit_is_dropped_and_counted_and_what_is_there_stays() -> None:
    async def test(queue: Queue, tally: Tally) -> None:
        for number in range(20):
            queue.put(envelope(number, 1000))
        kept = numbers(await queue.lease(100, 1 << 20, 0))
        assert kept == list(range(len(kept)))
        assert 0 < len(kept) < 20
        assert dropped(tally) == {"queue_full": 20 - len(kept)}
        queue.put(envelope(99, 1_000_000))
        assert dropped(tally)["too_large"] == 1

    run(test, limit=10_000)


def test_a_lease_is_bounded_by_records_and_by_bytes_and_holds_its_room_until_it_is_settled() -> None:
    async def test(queue: Queue, _: Tally) -> None:
        for number in range(10):
            queue.put(envelope(number, 100))
        assert numbers(await queue.lease(3, 1 << 20, 0)) == [0, 1, 2]
        assert len(queue) == 10
        queue.settle()
        assert len(queue) == 7
        assert numbers(await queue.lease(100, 1, 0)) == [3]

    run(test)


def test_what_a_dead_scorer_held_comes_back_once_alone_and_is_dropped_if_it_kills_again() -> None:
    async def test(queue: Queue, tally: Tally) -> None:
        for number in range(4):
            queue.put(envelope(number))
        assert numbers(await queue.lease(2, 1 << 20, 0)) == [0, 1]
        queue.lost()
        assert numbers(await queue.lease(100, 1 << 20, 0)) == [0]
        queue.lost()
        assert dropped(tally) == {"scorer_died": 1}
        assert numbers(await queue.lease(100, 1 << 20, 0)) == [1]
        queue.settle()
        assert numbers(await queue.lease(100, 1 << 20, 0)) == [2, 3]

    run(test)


def test_an_empty_queue_answers_with_nothing_after_the_wait_and_at_once_when_something_comes() -> None:
    async def test(queue: Queue, _: Tally) -> None:
        assert await queue.lease(1, 1, 0.01) == []
        asyncio.get_running_loop().call_later(0.01, queue.put, envelope(1))
        assert numbers(await queue.lease(1, 1, 30)) == [1]

    run(test)


def test_a_patient_source_waits_for_room_and_loses_nothing() -> None:
    async def test(queue: Queue, tally: Tally) -> None:
        async def read() -> None:
            for number in range(50):
                await queue.put_patiently(envelope(number, 1000))

        reading = asyncio.create_task(read())
        seen: list[int] = []
        while len(seen) < 50:
            seen += numbers(await queue.lease(5, 1 << 20, 1))
            queue.settle()
        await reading
        assert seen == list(range(50))
        assert dropped(tally) == {}

    run(test, limit=10_000)


def test_what_is_left_at_the_end_is_counted() -> None:
    async def test(queue: Queue, tally: Tally) -> None:
        for number in range(5):
            queue.put(envelope(number))
        await queue.lease(2, 1 << 20, 0)
        queue.abandon()
        assert dropped(tally) == {"shutdown": 5}
        assert len(queue) == 0

    run(test)


def test_a_scorer_that_connects_anew_takes_over_and_gets_what_the_one_before_had_not_settled(tmp_path: Path) -> None:
    async def test(queue: Queue, tally: Tally) -> None:
        desk = Desk(queue, tmp_path / "queue")
        await desk.start()
        for number in range(3):
            queue.put(envelope(number))

        async def ask(records: int) -> tuple[list[int], asyncio.StreamWriter]:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "queue")
            writer.write(encode({"records": records, "bytes": 1 << 20}))
            decoder, got = Decoder(), []
            while True:
                for header, _ in decoder.feed(await reader.read(65536)):
                    if "end" in header:
                        return got, writer
                    got.append(header["number"])

        first, hung = await ask(100)
        assert first == [0, 1, 2]
        second, writer = await ask(100)
        assert second == [0]
        hung.close()
        writer.close()
        await desk.stop()
        assert dropped(tally) == {"shutdown": 2, "scorer_died": 1}

    run(test)


@given(
    st.lists(st.tuples(st.dictionaries(st.text(), st.text() | st.integers()), st.lists(st.binary(max_size=50)))),
    st.integers(1, 40),
)
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[dict[str, str | int], list[bytes]]], step: int
) -> None:
    frames = [({k: v for k, v in header.items() if k != "parts"}, parts) for header, parts in frames]
    stream = b"".join(encode(header, parts) for header, parts in frames)
    decoder = Decoder()
    seen = [frame for at in range(0, len(stream), step) for frame in decoder.feed(stream[at : at + step])]
    assert seen == frames


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frames_are_refused_or_awaited_and_nothing_else(noise: bytes) -> None:
    decoder = Decoder(max_body=1000)
    with contextlib.suppress(FrameError):
        list(decoder.feed(noise))


def test_a_frame_larger_than_allowed_is_refused_before_it_is_held() -> None:
    decoder = Decoder(max_body=1000)
    frame = encode({}, [random.Random(1).randbytes(2000)])
    try:
        list(decoder.feed(frame[:8]))
    except FrameError as refused:
        assert "larger than is allowed" in str(refused)
    else:
        raise AssertionError("it was taken")
