"""Files of allocator probes as the daemon reads them: what is believed, of whom, and what it means."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.caching import MIB, CachingAllocator
from support.daemon import Daemon, run
from support.engine import samples, value
from support.serving import Serving, Writer
from support.waiting import until

from palegreen.exporter.allocator.files import REASONS, Files
from palegreen.exporter.allocator.record import RecordError, parsed
from palegreen.exporter.allocator.source import AllocatorSource
from palegreen.exporter.nvml.usage import DeviceUse, ProcessUse
from palegreen.exporter.source import SourceError
from palegreen.inprocess.recordfile import framed
from palegreen.inprocess.torchstats import statistics, summaries

GIB = 1 << 30
UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "66666666-7777-8888-9999-aaaaaaaaaaaa"
NAME = "allocator-1-0123456789abcdef.json"
PREFIX = "palegreen_allocator_"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "allocator"
    made.mkdir()
    return made


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    with Writer(folder) as process:
        yield process


def record(**changes: Any) -> dict[str, Any]:
    """A record that is believed; `changes` are of its device."""
    device = {
        "uuid": UUID, "allocated": 6 * GIB, "active": 6 * GIB, "reserved": 10 * GIB, "requested": 3 * GIB,
        "inactive_split": GIB, "retries": 2, "ooms": 1,
    }  # fmt: skip
    return {"backend": "native", "stats_seconds": 0.0002, "devices": [device | changes]}


def body(**changes: Any) -> bytes:
    return json.dumps(record(**changes)).encode()


def gpu(
    *processes: tuple[int, int | None], uuid: str = f"GPU-{UUID}", mig: str = "", total: int = 80 * GIB
) -> DeviceUse:
    uses = tuple(ProcessUse(pid, memory, None) for pid, memory in processes)
    return DeviceUse(uuid, "0", mig, total, total, uses)


def refused(folder: Path) -> dict[str, int]:
    believed, reasons = Files(folder).read()
    assert not believed
    return dict(reasons)


def shown(source: AllocatorSource) -> dict[str, float]:
    """Values of the samples of one process, by name and the labels that tell them apart."""
    found = {}
    for sample in samples(source.collect()):
        rest = [sample.labels[label] for label in ("kind", "step") if label in sample.labels]
        found["/".join([sample.name.removeprefix(PREFIX), *rest])] = sample.value
    return found


# What the numbers mean


def test_a_process_is_shown_with_its_owner_and_gpu(folder: Path, writer: Writer) -> None:
    writer.write(body())
    usage = [gpu((writer.pid, 11 * GIB))]
    source = AllocatorSource(Files(folder), lambda: usage, lambda pid: ("prod", "llama-0", f"vllm-{pid}"))
    found = samples(source.collect())
    common = {
        "namespace": "prod", "pod": "llama-0", "container": f"vllm-{writer.pid}", "pid": str(writer.pid),
        "uuid": f"GPU-{UUID}", "mig": "",
    }  # fmt: skip
    for name, number in {
        "allocated_bytes": 6 * GIB, "active_bytes": 6 * GIB, "reserved_bytes": 10 * GIB, "requested_bytes": 3 * GIB,
        "inactive_split_bytes": GIB, "releasable_bytes": 3 * GIB, "outside_bytes": GIB,
        "retries_total": 2, "ooms_total": 1,
    }.items():  # fmt: skip
        assert value(found, PREFIX + name, **common) == number
    assert value(found, PREFIX + "info", backend="native", pid=str(writer.pid)) == 1
    assert "1 processes" in source.describe()


def test_ratios_follow_their_definitions_and_leave_private_pools_out(folder: Path, writer: Writer) -> None:
    def segment(size: int, *parts: tuple[str, int], **more: Any) -> dict[str, Any]:
        blocks = [{"state": state, "size": size, "requested_size": size * 3 // 4} for state, size in parts]
        held = sum(size for state, size in parts if state == "active_allocated")
        return {"device": 0, "total_size": size, "allocated_size": held, "stream": 0, "blocks": blocks} | more

    live, free = "active_allocated", "inactive"
    sums = summaries([
        segment(20 * MIB, (live, 8 * MIB), (free, 6 * MIB), (live, 2 * MIB), (free, 4 * MIB)),
        segment(10 * MIB, (free, 10 * MIB)),
        segment(20 * MIB, (live, 15 * MIB), (free, 5 * MIB), stream=7),
        segment(40 * MIB, (live, 20 * MIB), (free, 20 * MIB), is_expandable=True),
        segment(90 * MIB, (live, 10 * MIB), (free, 80 * MIB), segment_pool_id=(0, 3)),
    ])[0]  # fmt: skip
    writer.write(body(snapshot=sums))
    found = shown(AllocatorSource(Files(folder)))
    assert found["fragmentation_ratio/split"] == pytest.approx(15 / 90)  # 6 + 4 + 5 of 20 + 10 + 20 + 40
    assert found["fragmentation_ratio/external"] == pytest.approx(1 - (10 + 5) / 25)  # largest of stream 0 and 7
    assert found["fragmentation_ratio/rounding"] == pytest.approx(0.25)
    assert found["largest_free_block_bytes"] == 10 * MIB
    assert found["private_pools_bytes"] == 90 * MIB
    assert found["expandable_segments_bytes"] == 40 * MIB


def test_fragmenting_on_purpose_raises_split_external_and_rounding_and_release_lowers_them() -> None:
    model = CachingAllocator()

    def ratios() -> tuple[float, float, float]:
        told = record(**statistics(model.memory_stats()), snapshot=summaries(model.memory_snapshot())[0])
        (device,) = parsed(json.dumps(told).encode()).devices
        assert device.snapshot is not None
        return device.snapshot.split or 0, device.snapshot.external or 0, device.snapshot.rounding or 0

    whole = [model.allocate(20 * MIB) for _ in range(10)]
    assert ratios() == (0, 0, 0)
    pieces = [model.allocate(2 * MIB + 1) for _ in range(200)]
    for piece in pieces[::2]:
        model.free(piece)
    split, external, rounding = ratios()
    assert split > 0.25
    assert external > 0.9
    assert rounding > 0
    for piece in pieces[1::2]:
        model.free(piece)
    model.empty_cache()
    assert ratios() == (0, 0, 0)
    assert len(whole) == len(model.segments)


def test_what_has_nothing_to_divide_by_is_absent_and_zero_is_a_measurement(folder: Path, writer: Writer) -> None:
    none = dict.fromkeys(summaries(_fragmented().memory_snapshot())[0], 0)
    writer.write(body(snapshot=none, retries=0))
    found = shown(AllocatorSource(Files(folder)))
    assert found["retries_total"] == 0
    assert found["private_pools_bytes"] == 0
    assert not [name for name in found if name.startswith(("fragmentation_ratio", "largest"))]


def test_without_a_snapshot_there_are_no_ratios(folder: Path, writer: Writer) -> None:
    writer.write(body())
    assert not [name for name in shown(AllocatorSource(Files(folder))) if name.startswith("fragmentation")]


def test_an_old_pytorch_without_requested_bytes_has_no_rounding(folder: Path, writer: Writer) -> None:
    told = record()
    del told["devices"][0]["requested"]
    writer.write(json.dumps(told).encode())
    assert "requested_bytes" not in shown(AllocatorSource(Files(folder)))


def test_outside_bytes_are_absent_where_the_driver_does_not_tell_or_lags_behind(folder: Path, writer: Writer) -> None:
    writer.write(body())
    for memory in (None, 9 * GIB):
        usage = [gpu((writer.pid, memory))]
        assert "outside_bytes" not in shown(AllocatorSource(Files(folder), lambda usage=usage: usage))  # type: ignore[misc]


@pytest.mark.parametrize("told", ["mig", "gpu"])
def test_a_process_on_a_mig_device_is_shown_on_it_whichever_uuid_cuda_gives(
    folder: Path, writer: Writer, told: str
) -> None:
    writer.write(body(uuid=OTHER if told == "mig" else UUID))
    usage = [gpu(), gpu((writer.pid, 12 * GIB), mig=f"MIG-{OTHER}", total=20 * GIB)]
    found = samples(AllocatorSource(Files(folder), lambda: usage).collect())
    assert value(found, PREFIX + "outside_bytes", uuid=f"GPU-{UUID}", mig=f"MIG-{OTHER}") == 2 * GIB


def test_a_process_on_some_mig_device_of_a_gpu_is_shown_on_the_gpu_where_nobody_tells_which(
    folder: Path, writer: Writer
) -> None:
    writer.write(body())
    usage = [gpu(mig=f"MIG-{OTHER}", total=20 * GIB)]
    found = samples(AllocatorSource(Files(folder), lambda: usage).collect())
    assert value(found, PREFIX + "reserved_bytes", uuid=f"GPU-{UUID}", mig="") == 10 * GIB


def test_a_pytorch_that_tells_no_uuid_is_placed_by_the_driver_where_that_is_certain(
    folder: Path, writer: Writer
) -> None:
    writer.write(body(uuid=""))
    one = gpu((writer.pid, 11 * GIB))
    found = samples(AllocatorSource(Files(folder), lambda: [one, gpu(uuid=f"GPU-{OTHER}")]).collect())
    assert value(found, PREFIX + "outside_bytes", uuid=f"GPU-{UUID}") == GIB
    both = AllocatorSource(Files(folder), lambda: [one, gpu((writer.pid, GIB), uuid=f"GPU-{OTHER}")])
    assert "reserved_bytes" not in shown(both)


# Who is believed


def test_a_record_is_about_the_process_that_holds_its_lock_whatever_name_and_content_claim(
    folder: Path, writer: Writer
) -> None:
    writer.write(json.dumps(record() | {"pid": 1, "namespace": "kube-system"}).encode())
    (file,) = folder.iterdir()
    file.rename(folder / NAME)
    assert [found.pid for found in Files(folder).read()[0]] == [writer.pid]


def test_a_record_that_another_process_puts_into_a_file_is_not_believed(folder: Path, writer: Writer) -> None:
    writer.write(body())
    (file,) = folder.iterdir()
    forged = framed(body(reserved=70 * GIB))
    with file.open("r+b") as open_file:
        open_file.write(forged)
    assert refused(folder) == {"torn": 1}
    writer.write(body())
    assert len(Files(folder).read()[0]) == 1


def test_a_record_that_an_intruder_locks_in_somebody_elses_file_is_about_the_intruder(folder: Path) -> None:
    forged = body(reserved=70 * GIB)
    program = (
        "import fcntl\nfrom palegreen.inprocess.recordfile import framed, offset\n"
        f"forged = {forged!r}\nsay('ready')\nfd = os.open(sys.stdin.readline().strip(), os.O_RDWR)\n"
        "fcntl.lockf(fd, fcntl.LOCK_EX, 1, offset(forged))\nos.pwrite(fd, framed(forged), 0)\nsay('forged')\ninput()\n"
    )
    with Serving(program) as intruder:
        intruder.hear()
        with Writer(folder) as writer:
            writer.write(body())
            (file,) = folder.iterdir()
            intruder.tell(str(file))
            intruder.hear()
            assert [found.pid for found in Files(folder).read()[0]] == [intruder.pid]


def test_a_file_older_than_the_process_with_its_writers_pid_is_not_believed(
    folder: Path, writer: Writer, tmp_path: Path
) -> None:
    writer.write(body())
    fields = Path(f"/proc/{writer.pid}/stat").read_text(encoding="utf-8").split()
    fields[21] = str(int(fields[21]) + 100_000)
    (tmp_path / "proc" / str(writer.pid)).mkdir(parents=True)
    (tmp_path / "proc" / str(writer.pid) / "stat").write_text(" ".join(fields), encoding="utf-8")
    assert Files(folder, proc=tmp_path / "proc").read() == ([], {"reused_pid": 1})
    assert Files(folder, proc=tmp_path / "nowhere").read() == ([], {"reused_pid": 1})


def test_nobodys_file_is_not_believed(folder: Path) -> None:
    (folder / NAME).write_bytes(framed(body()))
    assert refused(folder) == {"unlocked": 1}


@pytest.mark.parametrize("lock", ["F_RDLCK", "OFD"])
def test_a_lock_that_does_not_name_one_writer_is_not_believed(folder: Path, lock: str) -> None:
    (folder / NAME).write_bytes(framed(body()))
    ofd = "fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack('@hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))\n"
    shared = "fcntl.lockf(fd, fcntl.LOCK_SH)\n"
    program = f"import fcntl, struct\nfd = os.open({str(folder / NAME)!r}, os.O_RDWR)\n"
    with Serving(program + (ofd if lock == "OFD" else shared) + "say('locked')\ninput()\n") as process:
        process.hear()
        # a shared lock does not conflict with reading, so the kernel does not even name it
        assert refused(folder) == ({"lock": 1} if lock == "OFD" else {"unlocked": 1})


def test_a_daemon_that_cannot_see_the_writer_says_what_to_do(folder: Path, writer: Writer) -> None:
    writer.write(body())
    program = (
        "from pathlib import Path\nfrom palegreen.exporter.allocator.files import Files\n"
        "from palegreen.exporter.allocator.source import AllocatorSource\n"
        f"AllocatorSource(Files(Path({str(folder)!r}))).collect()\n"
    )
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", program]
    if subprocess.run(["unshare", "--pid", "--fork", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no new pid namespace can be made here")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "SourceError: 1 files: its writer is not visible" in done.stderr
    assert "hostPID" in done.stderr


def test_of_two_files_of_a_process_the_newer_one_counts(folder: Path, writer: Writer) -> None:
    writer.another()
    writer.write(body(retries=3))
    old = next(path for path in folder.iterdir() if path.stat().st_size)
    stamp = old.stat().st_mtime - 1
    os.utime(old, (stamp, stamp))
    writer.write(body(retries=4), file=1)
    believed, reasons = Files(folder).read()
    assert [found.record.devices[0].retries for found in believed] == [4]
    assert reasons == {"second": 1}


def test_a_gpu_that_the_node_does_not_have_is_not_spoken_for(folder: Path, writer: Writer) -> None:
    writer.write(body(uuid=OTHER))
    found = shown(AllocatorSource(Files(folder), lambda: [gpu()]))
    assert "reserved_bytes" not in found
    assert "info" not in found


def test_more_than_the_gpu_has_is_not_believed(folder: Path, writer: Writer) -> None:
    writer.write(body(reserved=81 * GIB))
    source = AllocatorSource(Files(folder), lambda: [gpu()])
    found = samples(source.collect())
    assert value(found, PREFIX + "reserved_bytes") is None
    assert value(found, PREFIX + "files_refused_total", reason="impossible") == 1
    found = samples(source.collect())
    assert value(found, PREFIX + "files_refused_total", reason="impossible") == 2


def test_a_gpu_that_hangs_for_a_while_is_still_the_nodes(folder: Path, writer: Writer) -> None:
    writer.write(body())
    present = [gpu((writer.pid, 11 * GIB))]
    source = AllocatorSource(Files(folder), lambda: present)
    assert "outside_bytes" in shown(source)
    present = [gpu(uuid=f"GPU-{OTHER}")]
    found = shown(source)
    assert found["reserved_bytes"] == 10 * GIB
    assert "outside_bytes" not in found


# What a hostile folder can hold


def test_nothing_but_regular_files_is_opened(folder: Path, tmp_path: Path) -> None:
    names = [f"allocator-{number}-0123456789abcdef.json" for number in range(5)]
    (folder / names[0]).symlink_to("/etc/passwd")
    os.mkfifo(folder / names[1])
    os.mknod(folder / names[2], stat.S_IFSOCK | 0o600)
    (folder / names[3]).symlink_to(folder / "nowhere")
    (folder / "allocator-x.json").write_text("x", encoding="utf-8")
    (folder / "elsewhere").symlink_to(tmp_path)
    assert refused(folder) == {"type": 4, "name": 2}


def test_a_huge_file_is_not_read(folder: Path, writer: Writer) -> None:
    writer.write(body())
    (file,) = folder.iterdir()
    os.truncate(file, 1 << 40)
    assert refused(folder) == {"size": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "malformed"),
        (b"null", "malformed"),
        (b"[1]", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 60_000, "malformed"),
        (b'{"devices": ' + b"9" * 60_000 + b"}", "malformed"),
        (body(reserved=float("nan")), "malformed"),
        (body(reserved=float("inf")), "malformed"),
        (body(reserved="1"), "malformed"),
        (body(reserved=True), "malformed"),
        (body(reserved=None), "malformed"),
        (body(uuid="GPU-1\n} evil 1"), "malformed"),
        (body(uuid=UUID + "\n"), "malformed"),
        (body(snapshot=[]), "malformed"),
        (body(snapshot={}), "malformed"),
        (json.dumps(record() | {"devices": [{}]}).encode(), "malformed"),
        (json.dumps(record() | {"devices": {}}).encode(), "malformed"),
        (json.dumps(record() | {"devices": [1]}).encode(), "malformed"),
        (json.dumps(record() | {"devices": record()["devices"] * 65}).encode(), "malformed"),
        (json.dumps(record() | {"stats_seconds": "1"}).encode(), "malformed"),
        (json.dumps(record() | {"snapshot_age": -1}).encode(), "malformed"),
        (json.dumps(record() | {"devices": record()["devices"] * 2}).encode(), "impossible"),
        (body(reserved=-1), "impossible"),
        (body(reserved=1 << 60), "impossible"),
        (body(allocated=7 * GIB), "impossible"),
        (body(requested=7 * GIB), "impossible"),
        (body(inactive_split=50 * GIB), "impossible"),
        (body(retries=-1), "impossible"),
    ],
)
def test_content_that_cannot_be_true_is_refused_whole(
    folder: Path, writer: Writer, content: bytes, reason: str
) -> None:
    writer.write(content)
    assert refused(folder) == {reason: 1}


def test_sums_of_a_snapshot_that_contradict_each_other_are_refused() -> None:
    good = summaries(_fragmented().memory_snapshot())[0]
    parsed(body(snapshot=good))
    for key in ("allocated", "requested", "inactive_split", "free", "largest", "largest_sum", "expandable"):
        with pytest.raises(RecordError, match="contradict") as caught:
            parsed(body(snapshot=good | {key: good["reserved"] + 1}))
        assert caught.value.impossible


def test_an_unknown_allocator_is_no_label_of_its_own(folder: Path, writer: Writer) -> None:
    writer.write(json.dumps({"backend": "x" * 1000}).encode())
    found = samples(AllocatorSource(Files(folder)).collect())
    assert value(found, PREFIX + "info", backend="other") == 1


def test_thousands_of_files_cost_a_bounded_look_and_drown_only_their_own_folder(folder: Path) -> None:
    flooded, honest = folder / "flooded", folder / "honest"
    flooded.mkdir()
    honest.mkdir()
    for number in range(3000):
        (flooded / f"allocator-{number}-0123456789abcdef.json").touch()
    with Writer(honest) as writer:
        writer.write(body())
        believed, reasons = Files(folder).read()
    assert [found.pid for found in believed] == [writer.pid]
    assert reasons == {"unlocked": 64, "too_many": 1}


def test_a_flood_of_the_folder_itself_is_cut_off(folder: Path) -> None:
    for number in range(1500):
        (folder / f"{number}").touch()
    assert refused(folder) == {"name": 1024, "too_many": 1}


def test_a_file_that_may_not_be_read_is_counted(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (folder / NAME).touch(0o000)
    assert refused(folder) == {"unreadable": 1}


def test_records_are_never_seen_half_written(folder: Path) -> None:
    program = (
        "from palegreen.inprocess.recordfile import RecordFile\nimport json\n"
        f"file = RecordFile({str(folder)!r})\nbodies = [{body(retries=1)!r}, {body(retries=2)!r} + b' ' * 30000]\n"
        "file.write(bodies[0]); say('writing')\n"
        "while True:\n    for one in bodies: file.write(one)\n"
    )
    with Serving(program) as process:
        process.hear()
        files, seen, torn = Files(folder), set(), 0
        for _ in range(2000):
            believed, reasons = files.read()
            seen |= {found.record.devices[0].retries for found in believed}
            assert set(reasons) <= {"torn"}, reasons
            torn += reasons["torn"]
        assert seen == {1, 2}


# As a source of the daemon


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"allocator_dir: .*none: No such file or directory"):
        AllocatorSource(Files(tmp_path / "none")).collect()


def test_the_daemon_shows_a_process_while_it_lives_and_nothing_of_it_after(folder: Path) -> None:
    program = (
        "gpu = CachingAllocator(); tensor = gpu.allocate(100 * MIB); install([gpu])\n"
        f"say(probe.start({str(folder)!r}))\nsys.stdin.readline()\n"
    )
    with Daemon("--allocator-dir", str(folder)) as daemon, Serving(program) as process:
        process.hear()
        name = PREFIX + "reserved_bytes"
        assert until(lambda: daemon.value(name, pid=str(process.pid)), 20) == 100 * MIB
        process.kill()
        until(lambda: daemon.value(name) is None, 20)
        assert daemon.value("palegreen_source_up", source="allocator") == 1
        assert (daemon.value(PREFIX + "files_refused_total", reason="unlocked") or 0) >= 1


def test_check_says_whether_the_folder_can_be_read(folder: Path) -> None:
    def finding(path: Path) -> tuple[bool, str]:
        done = run("check", "--json", "--no-nvml", "--allocator-dir", str(path))
        found = {one["check"]: one for one in json.loads(done.stdout)}["allocators"]
        return found["ok"], found["detail"]

    assert finding(folder) == (True, f"{folder}: 0 processes")
    assert finding(folder / "none") == (False, f"allocator_dir: {folder / 'none'}: No such file or directory")


def test_each_reason_is_explained_in_the_documentation() -> None:
    text = (Path(__file__).parent.parent / "docs" / "allocator.md").read_text(encoding="utf-8")
    assert all(f"| `{reason}` |" in text for reason in REASONS)


def _fragmented() -> CachingAllocator:
    model = CachingAllocator()
    tensors = [model.allocate(3 * MIB + 1) for _ in range(20)]
    for tensor in tensors[::2]:
        model.free(tensor)
    return model


def test_the_lock_commands_of_this_platform_are_those_the_reader_asks_with() -> None:
    assert (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK) == (0, 1, 2)
