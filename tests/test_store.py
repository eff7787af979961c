"""The store: what goes in is there, whatever happens to the process, the disk, the file or the clock."""

from __future__ import annotations

import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.samples import PASSED, REFUSED, batch, scored

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.clock import SteadyClock
from palegreen.evaluators.store.query import ANY, Filter, Reader
from palegreen.evaluators.store.scored import Scored
from palegreen.evaluators.store.store import Labels, Store

DAY = 86400.0
MIB = 1 << 20
WRITER = Path(__file__).parent / "support" / "store_writer.py"


class Clock:
    """A wall clock and a steady one, set by hand."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.steady = 0.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


@pytest.fixture
def opened(path: Path, clock: Clock) -> Iterator[Callable[..., Store]]:
    stores = []

    def make(max_age: float = 7 * DAY, max_bytes: int = 64 * MIB, path: Path = path) -> Store:
        stores.append(Store(path, max_age, max_bytes, lambda: clock.wall, lambda: clock.steady))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def ids(path: Path, wanted: Filter | None = None, limit: int = 10_000) -> list[str]:
    with Reader(path) as reader:
        return [stored.id for stored in reader.newest(wanted or Filter(), limit)]


def test_a_sample_is_read_back_as_it_was_recorded_with_its_scores(opened: Callable[..., Store], path: Path) -> None:
    sample = Sample("It is 4.", id="r1", time=1e9, model="llama", prompt_tokens=3, completion_tokens=4)
    sample.messages = [{"role": "user", "content": "2 + 2? 日本"}]
    outcomes = {"refusal": REFUSED, "cosine": Outcome(None, 0.5), "json": None}
    opened().add([Scored(sample, outcomes, embedder="abc")])
    with Reader(path) as reader:
        (stored,) = reader.find("r1")
    assert stored.record == {
        "response": "It is 4.",
        "id": "r1",
        "time": 1e9,
        "model": "llama",
        "messages": [{"role": "user", "content": "2 + 2? 日本"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        "scores": {
            "refusal": {"passed": False, "score": 0.1, "why": "says that it cannot help"},
            "cosine": {"passed": None, "score": 0.5},
            "json": None,
        },
        "embedder": "abc",
    }
    assert (stored.result, stored.failed) == ("fail", ["refusal"])


@pytest.mark.parametrize(
    ("outcomes", "result"),
    [
        ({"a": PASSED, "b": REFUSED}, "fail"),
        ({"a": PASSED, "b": None}, "pass"),
        ({"a": Outcome(None, 0.2)}, "unscored"),
        ({"a": None}, "unscored"),
        ({}, "unscored"),
    ],
)
def test_a_sample_fails_with_any_check_and_is_unscored_where_none_passes_or_fails(
    outcomes: dict[str, Outcome | None], result: str
) -> None:
    assert scored(outcomes=outcomes).result == result


@settings(max_examples=30)
@given(st.lists(st.text(st.characters()), min_size=1, max_size=4))
def test_any_text_is_stored_even_halves_of_surrogate_pairs(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("texts") / "samples.db"
    with closing(Store(path, DAY, 64 * MIB)) as store:
        store.add([scored(response=text, id="", session=text, completion_tokens=1 << 70) for text in texts])
        assert store.counts().lost == {}
    with Reader(path) as reader:
        found = [stored.record["response"] for stored in reversed(reader.newest(Filter(), 10))]
    assert found == [text.encode(errors="replace").decode() for text in texts]


def test_a_sample_nested_too_deeply_is_counted_and_the_rest_of_its_batch_is_stored(
    opened: Callable[..., Store], path: Path
) -> None:
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    store = opened()
    store.add([scored(1), scored(2, response_format=deep), scored(3)])
    assert (ids(path), store.counts().lost) == (["r3", "r1"], {"other": 1})


def test_filters_join(opened: Callable[..., Store], path: Path) -> None:
    opened().add(
        [
            scored(1, model="a", session="s", outcomes={"refusal": REFUSED}),
            scored(2, model="b", sampled="kept", outcomes={"json": REFUSED, "refusal": REFUSED}),
            scored(3, model="b", endpoint="chat", replica="p/0"),
        ]
    )
    assert ids(path) == ["r3", "r2", "r1"]
    assert ids(path, limit=1) == ["r3"]
    assert ids(path, Filter(failed=ANY)) == ["r2", "r1"]
    assert ids(path, Filter(failed="json")) == ["r2"]
    assert ids(path, Filter(failed="refusal", model="a")) == ["r1"]
    assert ids(path, Filter(failed="refusal", since=1e9 + 2)) == ["r2"]
    assert ids(path, Filter(since=1e9 + 2, until=1e9 + 3)) == ["r2"]
    assert ids(path, Filter(sampled="kept")) == ["r2"]
    assert ids(path, Filter(endpoint="chat", replica="p/0")) == ["r3"]
    assert ids(path, Filter(session="s")) == ["r1"]


def test_the_file_is_for_its_owner_alone(opened: Callable[..., Store], path: Path) -> None:
    store = opened()
    store.add(batch(1))
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_feedback_is_attached_to_the_sample_and_its_labels_are_told(opened: Callable[..., Store], path: Path) -> None:
    store = opened()
    store.add([scored(1, endpoint="chat", replica="p/0", session="s", trace_id="t"), scored(2, id="")])
    assert store.attach_feedback("r1", "thumbs_down") == Labels("llama", "chat", "p/0", "s", "t")
    assert store.attach_feedback("r1", "thumbs_up") == Labels("llama", "chat", "p/0", "s", "t")
    assert store.attach_feedback("unknown", "thumbs_up") is None
    assert store.attach_feedback("", "thumbs_up") is None
    with Reader(path) as reader:
        assert [stored.feedback for stored in reader.newest(Filter(), 9)] == [None, "thumbs_up"]
        assert reader.find("r1")[0].record["feedback"] == "thumbs_up"


def test_samples_go_once_they_are_too_old_by_when_they_were_stored(
    opened: Callable[..., Store], path: Path, clock: Clock
) -> None:
    store = opened(max_age=DAY)
    store.add([scored(1, time=1.0)])  # recorded long ago: a file that is read now
    clock.pass_by(0.6 * DAY)
    store.add([scored(2, outcomes={"refusal": REFUSED})])
    assert ids(path) == ["r2", "r1"]
    clock.pass_by(0.6 * DAY)
    store.expire()
    assert ids(path) == ["r2"]
    assert store.counts().samples == 1
    clock.pass_by(DAY)
    assert not store.expire()
    assert ids(path) == []
    assert ids(path, Filter(failed="refusal")) == []
    assert store.counts().samples == 0


def test_texts_that_went_are_not_left_in_the_files(opened: Callable[..., Store], path: Path, clock: Clock) -> None:
    store = opened(max_age=DAY)
    store.add([scored(1, response="a secret of somebody " * 500)])
    clock.pass_by(DAY + 1)
    while store.expire():
        pass
    assert not any(b"a secret of somebody" in file.read_bytes() for file in path.parent.iterdir())


def test_the_oldest_go_where_the_files_would_be_larger_than_allowed(opened: Callable[..., Store], path: Path) -> None:
    store = opened(max_bytes=4 * MIB)
    for first in range(0, 6400, 64):
        store.add(batch(64, first, response="word " * 400))
        assert store.counts().bytes <= 5 * MIB
    counts = store.counts()
    assert counts.lost == {}
    kept = counts.samples or 0
    assert 500 < kept < 2000
    assert ids(path) == [f"r{number}" for number in reversed(range(6400 - kept, 6400))]


def test_a_lower_limit_is_reached_step_by_step_and_the_file_shrinks(opened: Callable[..., Store], path: Path) -> None:
    store = opened()
    store.add(batch(8000, response="word " * 400))
    store.close()
    assert path.stat().st_size > 15 * MIB
    store = opened(max_bytes=4 * MIB)
    store.expire()
    assert (store.counts().samples or 0) > 6000
    while store.expire():
        pass
    assert store.counts().bytes <= 4 * MIB
    assert ids(path)[0] == "r7999"


def test_a_wrong_clock_deletes_nothing_until_it_has_been_so_for_an_hour(
    opened: Callable[..., Store], path: Path, clock: Clock
) -> None:
    store = opened(max_age=DAY)
    store.add(batch(10))
    clock.wall += 365 * DAY
    for _ in range(50):
        clock.pass_by(60)
        store.expire()
    store.close()
    store = opened(max_age=DAY)  # nor after a new start
    store.add([scored(10)])
    clock.wall -= 730 * DAY
    for _ in range(50):
        clock.pass_by(600)
        store.expire()
    assert len(ids(path)) == 11
    clock.wall += 730 * DAY
    for _ in range(3):
        clock.pass_by(3600)
        store.expire()
    assert ids(path) == []


@given(
    st.lists(
        st.tuples(st.floats(0, 3600), st.one_of(st.just(0.0), st.floats(-400 * DAY, 400 * DAY))),
        min_size=1,
        max_size=50,
    )
)
def test_the_store_s_time_never_goes_back_and_leaps_at_most_when_a_leap_has_lasted(
    moves: list[tuple[float, float]],
) -> None:
    clock = Clock()
    time = SteadyClock(None, lambda: clock.wall, lambda: clock.steady)
    before, leapt_at = time.now(), None
    for passed, leap in moves:
        clock.pass_by(passed)
        clock.wall += leap
        now = time.now()
        assert now >= before + passed - 1e-3
        if now > before + passed + 61:
            assert leapt_at is not None
            assert clock.steady - leapt_at >= 3600
        leapt_at = None if clock.wall <= now + 60 else clock.steady if leapt_at is None else leapt_at
        before = now


def test_a_store_that_was_killed_again_and_again_is_whole_and_has_every_committed_batch(path: Path) -> None:
    rng = random.Random(4)
    size, committed, batches = 50, 0, set[int]()
    for _ in range(10):
        command = [sys.executable, str(WRITER), str(path), str(committed), str(size)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            wanted = rng.randrange(1, 6)
            for line in process.stdout:
                batches.add(int(line))
                if len(batches) >= wanted + committed:
                    break
            try:
                process.wait(rng.random() * 0.05)  # somewhere within the batches after that
            except subprocess.TimeoutExpired:
                process.kill()
            batches |= {int(line) for line in process.stdout}
        committed = max(batches) + 2  # the one that was being written may be there too
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = dict(connection.execute("SELECT session, count(*) FROM samples GROUP BY session"))
    assert {str(number) for number in batches} <= found.keys()
    assert set(found.values()) == {size}


def test_the_store_is_read_while_it_is_written(opened: Callable[..., Store], path: Path) -> None:
    store = opened()
    store.add(batch(3))
    with Reader(path) as reader:
        count, last = reader.extent(Filter())
        chunks = reader.chunks(Filter(), last)
        first = next(chunks)
        store.add(batch(3, 3))
        assert [stored.id for stored in first] == ["r0", "r1", "r2"]
        assert (count, list(chunks)) == (3, [])  # what came later is not of this export
        assert len(reader.newest(Filter(), 9)) == 6
    assert store.counts().lost == {}
