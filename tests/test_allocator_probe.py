"""The allocator probe inside serving processes: real processes, and a stand-in for PyTorch's GPU build."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.caching import MIB, CachingAllocator
from support.serving import TESTS, Serving
from support.waiting import until

from palegreen.exporter.allocator.files import Believed, Files
from palegreen.inprocess import install
from palegreen.inprocess.torchstats import blocks, statistics, summaries

CAPTURES = sorted((Path(__file__).parent / "captures" / "allocator").glob("*.json"))
START = "say(probe.start(None, 0.05, 0.1))\n"
ONE_GPU = "gpu = CachingAllocator(); tensor = gpu.allocate(100 * MIB); torch = install([gpu])\n"
WAIT = "sys.stdin.readline()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "allocator"
    made.mkdir()
    return made


def serving(folder: Path, program: str, **env: str) -> Serving:
    return Serving(program, env={"PALEGREEN_ALLOCATOR_DIR": str(folder), **env})


def told(folder: Path, pid: int) -> Believed | None:
    """What the daemon believes of a process."""
    return next((found for found in Files(folder).read()[0] if found.pid == pid), None)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_statistics_and_sums_are_those_worked_out_by_hand(capture: Path) -> None:
    case = json.loads(capture.read_text(encoding="utf-8"))
    assert statistics(case["memory_stats"]) == case["expect"]["statistics"]
    assert blocks(case["memory_stats"]) == case["expect"]["blocks"]
    found = {str(device): sums for device, sums in summaries(case["memory_snapshot"]).items()}
    assert found == case["expect"]["summaries"]


def test_the_dictionaries_of_a_build_without_cuda_are_empty_and_give_nothing() -> None:
    assert statistics({}) == {}
    assert blocks({}) == 0
    assert summaries([]) == {}


def test_flat_and_nested_statistics_are_the_same() -> None:
    gpu = CachingAllocator()
    tensors = [gpu.allocate(size) for size in (3 * MIB, 700, 12 * MIB)]
    gpu.free(tensors[0])
    assert statistics(gpu.memory_stats()) == statistics(gpu.memory_stats_as_nested_dict())
    assert blocks(gpu.memory_stats()) == blocks(gpu.memory_stats_as_nested_dict())


def test_sums_of_a_snapshot_agree_with_the_statistics_of_the_same_moment() -> None:
    gpu = CachingAllocator()
    tensors = [gpu.allocate(size) for size in (3 * MIB + 1, 700, 12 * MIB, 5 * MIB, 900 * 1024, 4 * MIB) * 5]
    for tensor in tensors[::2]:
        gpu.free(tensor)
    at_once, stats = summaries(gpu.memory_snapshot())[0], statistics(gpu.memory_stats())
    assert all(at_once[key] == stats[key] for key in ("reserved", "allocated", "requested", "inactive_split"))


def test_a_process_tells_what_its_allocator_holds(folder: Path) -> None:
    program = ONE_GPU + START + WAIT
    with serving(folder, program) as process:
        assert process.hear() == "True"
        found = until(lambda: told(folder, process.pid))
        (device,) = found.record.devices
        assert (device.uuid, device.allocated, device.reserved) == (
            "11111111-2222-3333-4444-555555555555", 100 * MIB, 100 * MIB,
        )  # fmt: skip
        assert device.snapshot is not None
        assert found.record.backend == "native"


def test_only_gpus_that_hold_memory_are_told_and_asked_again(folder: Path) -> None:
    program = (
        "gpus = [CachingAllocator(0), CachingAllocator(1)]; gpus[1].allocate(MIB); torch = install(gpus)\n"
        "say(probe.start(None, 0.05, 3600))\n" + WAIT + "say(torch.cuda.calls)\n"
    )
    with serving(folder, program) as process:
        process.hear()
        found = until(lambda: told(folder, process.pid))
        assert [device.uuid[:8] for device in found.record.devices] == ["66666666"]
        process.tell()
        calls: dict[str, int] = eval(process.hear())
        assert calls["device_count"] == 1
        assert calls["get_device_properties"] == 1
        assert calls["memory_snapshot"] == 1


def test_a_process_that_has_not_initialised_cuda_is_left_uninitialised_and_leaves_no_file(folder: Path) -> None:
    program = (
        "gpu = CachingAllocator(); torch = install([gpu], initialised=False)\n" + START + WAIT
        + "say(sorted(torch.cuda.calls)); gpu.allocate(MIB); torch.cuda.init()\n" + WAIT
    )  # fmt: skip
    with serving(folder, program) as process:
        process.hear()
        process.tell()
        assert process.hear() in ("['is_initialized']", "[]")
        assert until(lambda: told(folder, process.pid))


def test_pytorch_is_not_imported(folder: Path) -> None:
    program = START + "time.sleep(0.2); say('torch' in sys.modules)\n"
    with serving(folder, program) as process:
        assert process.hear() == "True"
        assert process.hear() == "False"
        assert list(folder.iterdir()) == []


def test_an_initialised_process_without_gpu_memory_leaves_no_file(folder: Path) -> None:
    program = "torch = install([CachingAllocator()])\n" + START + "time.sleep(0.3); say(torch.cuda.calls)\n" + WAIT
    with serving(folder, program) as process:
        process.hear()
        assert "memory_stats_as_nested_dict" in process.hear()
        assert list(folder.iterdir()) == []


def test_a_second_start_changes_nothing(folder: Path) -> None:
    program = ONE_GPU + START + START + "import threading\nsay(threading.active_count())\n" + WAIT
    with serving(folder, program) as process:
        assert [process.hear() for _ in range(3)] == ["True", "True", "2"]
        until(lambda: told(folder, process.pid))
        assert len(list(folder.iterdir())) == 1


def test_the_file_goes_when_the_process_ends(folder: Path) -> None:
    with serving(folder, ONE_GPU + START + WAIT) as process:
        process.hear()
        until(lambda: told(folder, process.pid))
        process.tell()
        process.end()
    assert list(folder.iterdir()) == []


def test_a_killed_process_is_believed_no_more_and_its_file_is_cleared_away_by_the_next_one(folder: Path) -> None:
    with serving(folder, ONE_GPU + START + WAIT) as process:
        process.hear()
        until(lambda: told(folder, process.pid))
        process.kill()
        (left,) = folder.iterdir()
        assert Files(folder).read() == ([], {"unlocked": 1})
        old = left.stat().st_mtime - 120
        os.utime(left, (old, old))
    with serving(folder, ONE_GPU + START + WAIT) as process:
        process.hear()
        until(lambda: told(folder, process.pid))
        assert len(list(folder.iterdir())) == 1
        assert not left.exists()


def test_clearing_away_spares_living_writers_and_what_is_not_ours(folder: Path) -> None:
    for name in ("notes.json", "allocator-1-0123456789abcdef.json.bak"):
        (folder / name).write_text("x", encoding="utf-8")
        os.utime(folder / name, (0, 0))
    with serving(folder, ONE_GPU + "say(probe.start(None, 3600, 3600))\n" + WAIT) as silent:
        silent.hear()
        until(lambda: told(folder, silent.pid))
        (file,) = folder.glob(f"allocator-{silent.pid}-*")
        os.utime(file, (0, 0))
        with serving(folder, ONE_GPU + START + WAIT) as process:
            process.hear()
            until(lambda: told(folder, process.pid))
            assert file.exists()
            assert len(list(folder.iterdir())) == 4


def test_a_child_forked_before_cuda_is_in_use_tells_of_itself_as_does_its_parent(folder: Path) -> None:
    program = (
        "gpu = CachingAllocator(); torch = install([gpu], initialised=False)\n" + START + WAIT
        + "child = os.fork()\n"
        + "gpu.allocate((50 if child == 0 else 70) * MIB); torch.cuda.init()\n"
        + "if child == 0:\n    time.sleep(60); os._exit(0)\n"
        + "say(child)\n" + WAIT + "os.kill(child, 9); os.waitpid(child, 0); say('ended')\n" + WAIT
    )  # fmt: skip
    with serving(folder, program) as process:
        process.hear()
        process.tell()
        child = int(process.hear())
        assert until(lambda: told(folder, child)).record.devices[0].allocated == 50 * MIB
        assert until(lambda: told(folder, process.pid)).record.devices[0].allocated == 70 * MIB
        process.tell()
        process.hear()
        assert told(folder, child) is None
        assert told(folder, process.pid)


def test_a_child_that_cannot_use_its_parents_cuda_says_nothing_and_the_parent_goes_on(folder: Path) -> None:
    program = (
        ONE_GPU + START + WAIT
        + "child = os.fork()\n"
        + "if child == 0:\n    time.sleep(0.3); os._exit(0)\n"
        + "gpu.allocate(7 * MIB); os.waitpid(child, 0); say('ended')\n" + WAIT
    )  # fmt: skip
    with serving(folder, program) as process:
        process.hear()
        until(lambda: told(folder, process.pid))
        process.tell()
        assert process.hear() == "ended"
        assert len(list(folder.iterdir())) == 1
        until(lambda: (found := told(folder, process.pid)) and found.record.devices[0].allocated == 107 * MIB)


def test_spawned_children_start_through_the_pth_file_when_they_import_pytorch(folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install.main(["--directory", str(site)])
    stand_in = tmp_path / "modules" / "torch"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from support.caching import CachingAllocator\nfrom support.fake_torch import install\n"
        "_gpu = CachingAllocator(); _gpu.allocate(1 << 20)\ncuda = install([_gpu]).cuda\n",
        encoding="utf-8",
    )
    program = f"import site, sys; site.addsitedir({str(site)!r}); sys.path.insert(0, {str(stand_in.parent)!r})\n"
    for wanted, rest in (
        ("False", "print('palegreen.inprocess.allocator' in sys.modules)"),
        ("True", "import torch; print('palegreen.inprocess.allocator' in sys.modules)"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program + rest], capture_output=True, text=True, check=True,
            env=os.environ | {"PALEGREEN_ALLOCATOR_DIR": str(folder)},
        )  # fmt: skip
        assert (done.stdout.strip(), done.stderr) == (wanted, "")
    with serving(folder, program + "import torch\nsay('in')\n" + WAIT) as process:
        process.hear()
        assert until(lambda: told(folder, process.pid))
    install.main(["--directory", str(site), "--uninstall"])
    assert list(site.iterdir()) == []


def test_watching_for_pytorch_hides_no_other_importer() -> None:
    program = (
        "from palegreen.inprocess.onimport import watch\nasked = []\n"
        "class Next:\n    def find_spec(self, name, path=None, target=None): asked.append(name)\n"
        "sys.meta_path.insert(0, Next()); watch(); before = len(sys.meta_path); watch()\n"
        "try:\n    import torch\nexcept ImportError:\n    pass\n"
        "say('torch' in asked, len(sys.meta_path) == before)\n"
    )
    with Serving(program, env={"PALEGREEN_ALLOCATOR_DIR": ""}) as process:
        assert process.hear() == "True True"


def test_without_the_variable_the_pth_file_loads_nothing(tmp_path: Path) -> None:
    install.main(["--directory", str(tmp_path)])
    program = (
        f"import site, sys; before = set(sys.modules); site.addsitedir({str(tmp_path)!r})\n"
        "print(sorted(set(sys.modules) - before), len(sys.meta_path))\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "PALEGREEN_ALLOCATOR_DIR"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.startswith("[]")


def test_entry_points_of_vllm_and_sglang_resolve_and_do_nothing_without_a_folder() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    for group in ("vllm.general_plugins", "sglang.srt.plugins"):
        ((name, value),) = project["project"]["entry-points"][group].items()
        program = (
            "import logging; logging.basicConfig(level='INFO', stream=sys.stdout)\n"
            "from importlib.metadata import EntryPoint\n"
            f"run = EntryPoint({name!r}, {value!r}, {group!r}).load()\n"
            "run(); run()\nimport threading\nsay(threading.active_count())\n"
        )
        with Serving(program, env={"PALEGREEN_ALLOCATOR_DIR": ""}) as process:
            assert "PALEGREEN_ALLOCATOR_DIR is not set" in process.hear()
            assert process.hear() == "1"


def test_a_missing_folder_is_said_once_and_nothing_is_started(tmp_path: Path) -> None:
    with Serving(START + START, env={"PALEGREEN_ALLOCATOR_DIR": str(tmp_path / "none")}) as process:
        assert [process.hear(), process.hear()] == ["False", "False"]
        assert process.end().count("is not a folder") == 1


@pytest.mark.parametrize(
    "broken",
    [
        "torch.cuda.memory_stats_as_nested_dict = None; torch.cuda.memory_stats = lambda index: 1 / 0",
        "torch.cuda.is_initialized = lambda: 1 / 0",
        "torch.cuda.device_count = lambda: 1 / 0",
        "torch.cuda.get_device_properties = lambda index: 1 / 0",
    ],
)
def test_an_error_inside_is_logged_once_and_never_reaches_the_server(folder: Path, broken: str) -> None:
    program = ONE_GPU + broken + "\nsay(probe.start(None, 0.02, 0.02)); time.sleep(0.4); say('serving')\n"
    with serving(folder, program) as process:
        assert [process.hear(), process.hear()] == ["True", "serving"]
        assert process.end().count("division by zero") == 1
    assert list(folder.iterdir()) == []


def test_statistics_go_on_where_a_snapshot_cannot_be_had(folder: Path) -> None:
    program = ONE_GPU + "torch.cuda.memory_snapshot = lambda: 1 / 0\n" + START + WAIT
    with serving(folder, program) as process:
        process.hear()
        device = until(lambda: told(folder, process.pid)).record.devices[0]
        assert (device.reserved, device.snapshot) == (100 * MIB, None)


def test_no_snapshot_is_taken_of_more_blocks_than_it_may_hold_the_server_up_for(folder: Path) -> None:
    program = (
        ONE_GPU + "read = gpu.memory_stats_as_nested_dict\n"
        "torch.cuda.memory_stats_as_nested_dict = lambda index: read() | {'active': {'all': {'current': 30_000}}}\n"
        + START + WAIT + "say(torch.cuda.calls.get('memory_snapshot'))\n"
    )  # fmt: skip
    with serving(folder, program) as process:
        process.hear()
        assert until(lambda: told(folder, process.pid)).record.devices[0].snapshot is None
        process.tell()
        assert process.hear() == "None"


def test_another_allocator_is_named_and_not_asked(folder: Path) -> None:
    program = (
        "torch = install([CachingAllocator()], backend='cudaMallocAsync')\n" + START + WAIT + "say(torch.cuda.calls)\n"
    )
    with serving(folder, program) as process:
        process.hear()
        found = until(lambda: told(folder, process.pid))
        assert (found.record.backend, found.record.devices) == ("cudaMallocAsync", ())
        process.tell()
        calls: dict[str, Any] = eval(process.hear())
        assert set(calls) == {"is_initialized", "get_allocator_backend"}


def test_a_program_that_closes_all_its_files_loses_none_to_the_probe(folder: Path) -> None:
    program = (
        ONE_GPU + START + WAIT + "folder = os.environ['PALEGREEN_ALLOCATOR_DIR']\n"
        + "os.closerange(3, 100)\nmine = [open(f'{folder}/mine{i}', 'w+') for i in range(20)]\n"
        + "time.sleep(0.3)\nsay(sum(os.fstat(file.fileno()).st_size for file in mine))\n" + WAIT
    )  # fmt: skip
    with serving(folder, program) as process:
        process.hear()
        until(lambda: told(folder, process.pid))
        process.tell()
        assert process.hear() == "0"
        assert until(lambda: told(folder, process.pid))


def test_a_process_is_readable_by_the_daemon_whatever_its_umask(folder: Path) -> None:
    with serving(folder, "os.umask(0o077)\n" + ONE_GPU + START + WAIT) as process:
        process.hear()
        until(lambda: told(folder, process.pid))
        (file,) = folder.iterdir()
        assert file.stat().st_mode & 0o777 == 0o644


def test_the_probe_needs_nothing_but_the_standard_library(folder: Path) -> None:
    root = Path(__file__).parent.parent
    program = "from palegreen.inprocess.allocator import start; import sys; print(start()); print(*sys.modules)"
    package = folder / "palegreen"
    package.mkdir()
    (package / "inprocess").symlink_to(root / "inprocess")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{program}"],
        capture_output=True, text=True, check=True, env={"PALEGREEN_ALLOCATOR_DIR": str(folder)},
    )  # fmt: skip
    assert done.stdout.startswith("True")
    assert {name.split(".")[1] for name in done.stdout.split() if name.startswith("palegreen.")} == {"inprocess"}


def test_the_installed_distribution_lists_the_entry_points() -> None:
    listed = {point.value for point in importlib.metadata.entry_points(group="vllm.general_plugins")}
    if not listed:
        pytest.skip("this environment was installed before the entry points were there")
    assert "palegreen.inprocess.allocator:plugin" in listed


def test_a_stopped_process_goes_stale_and_comes_back(folder: Path) -> None:
    with serving(folder, ONE_GPU + START + WAIT) as process:
        process.hear()
        written = until(lambda: told(folder, process.pid)).written
        os.kill(process.pid, signal.SIGSTOP)
        later = Files(folder, clock=lambda: written + 15)
        assert later.read() == ([], {"stale": 1})
        os.kill(process.pid, signal.SIGCONT)
        assert until(lambda: told(folder, process.pid))
