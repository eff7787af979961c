"""The store in trouble: disks that are full or read-only, files that are corrupt or somebody else's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from support.disk import on_a_disk
from support.samples import batch

from palegreen.evaluators.store.query import Filter, Reader, StoreError
from palegreen.evaluators.store.store import Store

DAY = 86400.0
MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


@pytest.fixture
def opened(path: Path, clock: Clock) -> Iterator[Callable[..., Store]]:
    structlog.reset_defaults()
    stores = []

    def make(path: Path = path) -> Store:
        stores.append(Store(path, DAY, 64 * MIB, clock, clock))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def ids(path: Path) -> list[str]:
    with Reader(path) as reader:
        return [stored.id for stored in reader.newest(Filter(), 10_000)]


def test_a_full_disk_is_counted_and_logged_once_and_storing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    result, logged = on_a_disk(
        tmp_path,
        """
now = [0.0]
store = Store(disk / "samples.db", 1e6, 1 << 30, steady=lambda: now[0])
filler = disk / "filler"
filler.write_bytes(bytes(600 << 10))
for number in range(40):
    now[0] += 10
    store.add(batch(10, 10 * number, response="word " * 200))
filler.unlink()
now[0] += 10
stored, lost = store.counts().samples, store.counts().lost
store.add(batch(10, 1000))
with Reader(disk / "samples.db") as reader:
    newest = reader.newest(Filter(), 1)[0].id
result = stored, lost, store.counts().samples, newest
""",
    )
    stored, lost, then, newest = result
    assert list(lost) == ["full"]
    assert stored + lost["full"] == 400
    assert (then, newest) == (stored + 10, "r1009")
    assert [(line["event"], line.get("reason")) for line in logged] == [
        ("store.failed", "full"),
        ("store.recovered", None),
    ]


def test_a_read_only_disk_is_counted_and_storing_goes_on_when_it_is_writable_again(tmp_path: Path) -> None:
    result, logged = on_a_disk(
        tmp_path,
        """
now = [0.0]
remount("ro")
store = Store(disk / "samples.db", 1e6, 1 << 30, steady=lambda: now[0])
store.add(batch(3))
before = store.counts().samples, store.counts().lost
remount("rw")
now[0] += 10
store.add(batch(3))
result = before, store.counts().samples, store.counts().lost
""",
    )
    assert result == [[None, {"readonly": 3}], 3, {"readonly": 3}]
    assert [line["event"] for line in logged] == ["store.failed", "store.recovered"]


def test_a_store_is_read_on_a_read_only_volume_while_it_is_written_and_after(tmp_path: Path) -> None:
    result, _ = on_a_disk(
        tmp_path,
        """
def seen():
    with Reader(view / "samples.db") as reader:
        return len(reader.newest(Filter(), 99)), reader.warning
store = Store(disk / "samples.db", 1e6, 1 << 30)
store.add(batch(3))
result = [seen()]
store.add(batch(3))
result += [seen()]
(disk / "log").write_bytes((disk / "samples.db-wal").read_bytes())
store.close()
result += [seen()]
(disk / "samples.db-wal").write_bytes((disk / "log").read_bytes())  # a writer that was killed, on another machine
result += [seen()[1] != ""]
""",
    )
    assert result == [[3, ""], [6, ""], [6, ""], True]


@pytest.mark.parametrize("place", ["missing/samples.db", "."])
def test_a_place_that_cannot_be_a_file_is_one_line_and_its_samples_are_counted(
    opened: Callable[..., Store], tmp_path: Path, place: str
) -> None:
    with capture_logs() as logged:
        store = opened(tmp_path / place)
        store.add(batch(3))
        store.add(batch(2))
    assert store.attach_feedback("r0", "thumbs_up") is None
    assert (store.counts().samples, store.counts().lost) == (None, {"other": 5})
    assert [line["event"] for line in logged] == ["store.failed"]


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        ("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)", "is a database of another program"),
        ("PRAGMA application_id=1", "is a database of another program"),
        ("PRAGMA application_id=1346859569; PRAGMA user_version=2", "has schema 2 of a newer Palegreen"),
    ],
)
def test_somebody_else_s_database_and_a_newer_one_are_left_alone(
    opened: Callable[..., Store], path: Path, statements: str, problem: str
) -> None:
    with closing(sqlite3.connect(path)) as theirs:
        theirs.executescript(statements)
    before = path.read_bytes()
    with capture_logs() as logged:
        opened().add(batch(3))
    assert problem in logged[0]["problem"]
    assert len(logged) == 1
    with pytest.raises(StoreError, match=problem):
        Reader(path)
    assert (path.read_bytes(), [file.name for file in path.parent.iterdir()]) == (before, ["samples.db"])


def test_a_file_that_is_no_database_is_left_alone(opened: Callable[..., Store], path: Path) -> None:
    path.write_text("notes of somebody\n" * 100)
    with capture_logs() as logged:
        store = opened()
        store.add(batch(3))
    assert store.counts().lost == {"corrupt": 3}
    assert [line["problem"] for line in logged] == ["file is not a database"]
    assert path.read_text() == "notes of somebody\n" * 100


def damage(path: Path) -> None:
    """Overwrite all but the first page, as a bad disk would."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_a_corrupt_store_is_moved_aside_and_a_new_one_begun(
    opened: Callable[..., Store], path: Path, clock: Clock
) -> None:
    store = opened()
    store.add(batch(500))
    store.close()
    damage(path)
    with pytest.raises(StoreError, match="malformed"):
        ids(path)
    with capture_logs() as logged:
        store = opened()
        store.add(batch(3))
        store.add(batch(3, 3))
    lost = store.counts().lost
    assert lost in ({}, {"corrupt": 3})
    assert len(ids(path)) == 6 - sum(lost.values())
    assert [line["event"] for line in logged] == ["store.failed", "store.recovered"]
    aside = path.with_name("samples.db.corrupt-20231114T221320Z")
    assert aside.exists()
    assert aside.name in logged[0]["problem"]
    clock.now = aside.stat().st_mtime + DAY + 1
    opened()
    assert not aside.exists()  # it holds texts, which are kept no longer than others


def test_a_store_that_is_removed_while_it_is_open_is_begun_anew(opened: Callable[..., Store], path: Path) -> None:
    store = opened()
    store.add(batch(3))
    for file in list(path.parent.iterdir()):
        file.unlink()
    store.add(batch(2, 3))
    assert ids(path) == ["r4", "r3"]
    assert store.counts().lost == {}


def test_a_reader_that_never_ends_bounds_the_log_and_is_told_of(
    opened: Callable[..., Store], path: Path, clock: Clock
) -> None:
    store = opened()
    store.add(batch(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM samples").fetchone()
        with capture_logs() as logged:
            for first in range(1, 1000, 8):
                store.add(batch(8, first, response="x" * 200_000))
        assert store.counts().bytes < 200 * MIB
        assert "a reader holds" in logged[0]["problem"]
        assert list(store.counts().lost) == ["other"]
    clock.now += 10
    store.add(batch(1, 5000))
    assert ids(path)[0] == "r5000"
