"""The simulated driver, as NVIDIA's own Python binding sees it. Each test has a process of its own to load it."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pynvml
import pytest

from palegreen.demo.driver import build as build_module
from palegreen.demo.driver.build import OLD_DRIVER, SYMBOL, BuildError, build
from palegreen.demo.driver.gpu import Event, Wave
from palegreen.demo.driver.scenario import ENVIRONMENT_VARIABLE, ScenarioError, load

SCENARIOS = Path(__file__).parents[1] / "demo" / "driver"

# Reads an expression a line and answers with its value, or the name of the NVML error it raised.
CHILD = """
import sys, time, ctypes
from concurrent.futures import ThreadPoolExecutor
import pynvml
from pynvml import *
pool = ThreadPoolExecutor(16)
def gpu(index): return nvmlDeviceGetHandleByIndex(index)
def mig(index, device=0): return nvmlDeviceGetMigDeviceHandleByIndex(gpu(device), index)
def plain(value):
    if isinstance(value, nvmlFriendlyObject): return vars(value)
    if isinstance(value, ctypes.Structure): return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, (list, tuple)): return [plain(item) for item in value]
    return value if isinstance(value, (int, float, str, bytes, type(None))) else repr(value)
for line in sys.stdin:
    try:
        code = compile(line, "test", "eval" if "\\t" not in line else "exec")
        print(repr(plain(eval(code, globals()))), flush=True)
    except (NVMLError, NVMLLibraryMismatchError) as error:
        print("!" + type(error).__name__.removeprefix("NVMLError_"), flush=True)
"""


class NvmlError(Exception):
    """An NVML error that the child met."""


class Machine:
    """A child process on a simulated machine, and the scenario of that machine."""

    def __init__(self, library: Path, scenario: Path) -> None:
        self.scenario = scenario
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_LIBRARY_PATH": str(library.parent), ENVIRONMENT_VARIABLE: str(scenario)},
        )

    def __call__(self, expression: str) -> Any:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.write(expression + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline().strip()
        if answer.startswith("!"):
            raise NvmlError(answer[1:])
        return ast.literal_eval(answer)

    def fails(self, expression: str) -> str:
        """The name of the error that a call ends with."""
        with pytest.raises(NvmlError) as caught:
            self(expression)
        return str(caught.value)

    def change(self, scenario: dict[str, Any]) -> None:
        load(scenario).write(self.scenario)
        time.sleep(0.025)  # the library looks every 20 ms

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()


Boot = Callable[..., Machine]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    shared = tmp_path_factory.getbasetemp().parent
    with ThreadPoolExecutor() as pool:
        new = pool.submit(build, shared / "driver")
        old = pool.submit(build, shared / "driver-old", without=OLD_DRIVER)
        return {False: new.result(), True: old.result()}


@pytest.fixture
def boot(libraries: dict[bool, Path], tmp_path: Path) -> Iterator[Boot]:
    machines = []

    def start(scenario: dict[str, Any] | Path, *, old: bool = False, init: bool = True) -> Machine:
        path = tmp_path / f"scenario{len(machines)}"
        load(scenario).write(path)
        machines.append(machine := Machine(libraries[old], path))
        if init:
            machine("nvmlInit()")
        return machine

    yield start
    for machine in machines:
        machine.close()


# Building


def test_builds_may_run_at_once_and_a_later_one_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "driver"
    with ThreadPoolExecutor() as pool:
        paths = set(pool.map(build, [folder] * 2))
    assert paths == {folder / "libnvidia-ml.so.1"} == set(folder.iterdir())
    before = paths.pop().stat()
    after = build(folder).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_without_a_compiler_the_build_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if build_module.importlib.util.find_spec("ziglang"):
        pytest.skip("ziglang is installed")
    with pytest.raises(BuildError, match=r"^no C compiler: install gcc, or pip install ziglang$"):
        build(tmp_path)


def test_every_declared_function_is_there_and_the_rest_says_not_supported(boot: Boot) -> None:
    machine = boot({"gpus": 1})
    called = set(re.findall(r'GetFunctionPointer\("(nvml[A-Z]\w+)"', Path(pynvml.__file__).read_text()))
    assert len(called) > 300
    missing = machine(f"[name for name in {sorted(called)} if not hasattr(pynvml.nvmlLib, name)]")
    assert missing == []
    assert machine.fails("nvmlDeviceGetBoardPartNumber(gpu(0))") == "NotSupported"


def test_the_library_can_be_told_from_nvidias(boot: Boot) -> None:
    assert boot({"gpus": 1})(f"ctypes.c_int.in_dll(pynvml.nvmlLib, '{SYMBOL}').value") == 1


# Values

GPU = {
    "name": "NVIDIA L40S",
    "memory_total": "48GiB",
    "memory_used": "20GiB",
    "memory_reserved": "512MiB",
    "bar1_total": "64GiB",
    "bar1_used": "1GiB",
    "gpu_utilization": 83,
    "memory_utilization": 41,
    "encoder_utilization": 7,
    "decoder_utilization": 9,
    "sm_clock": 1500,
    "max_sm_clock": 2520,
    "reason_sw_power_cap": 1,
    "reason_hw_thermal": 1,
    "temperature": 71,
    "temperature_memory": 80,
    "temperature_gpu_max": 88,
    "power": 301.5,
    "power_limit": 350,
    "fans": 1,
    "fan_speed": 55,
    "ecc_dram_corrected_volatile": 3,
    "ecc_sram_corrected_volatile": 4,
    "ecc_sram_uncorrected_aggregate": 2,
    "remapped_rows_correctable": 5,
    "remapped_rows_pending": 1,
    "pcie_tx_rate": 2e9,
    "pcie_replays": 6,
    "recovery_action": 1,
    "fabric_state": 3,
}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("nvmlSystemGetDriverVersion()", "580.95.05"),
        ("nvmlSystemGetNVMLVersion()", "13.580.95.05"),
        ("nvmlSystemGetCudaDriverVersion()", 13000),
        ("nvmlSystemGetCudaDriverVersion_v2()", 13000),
        ("nvmlDeviceGetCount()", 1),
        ("nvmlDeviceGetName(G)", "NVIDIA L40S"),
        ("nvmlDeviceGetUUID(G).count('-')", 5),
        ("nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID(G)))", 0),
        ("nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('0000:19:00.0'))", 0),
        ("nvmlDeviceGetPciInfo(G).busId", "00000000:19:00.0"),
        ("nvmlDeviceGetMinorNumber(G)", 0),
        ("nvmlDeviceGetArchitecture(G)", 9),
        ("nvmlDeviceGetBrand(G)", 14),
        ("nvmlDeviceGetCudaComputeCapability(G)", [9, 0]),
        ("nvmlDeviceGetMemoryInfo(G)", {"total": 48 << 30, "free": 55 << 29, "used": 41 << 29}),
        (
            "nvmlDeviceGetMemoryInfo(G, nvmlMemory_v2)",
            {"version": 0x2000028, "total": 48 << 30, "reserved": 1 << 29, "free": 55 << 29, "used": 20 << 30},
        ),
        ("nvmlDeviceGetBAR1MemoryInfo(G).bar1Used", 1 << 30),
        ("nvmlDeviceGetUtilizationRates(G)", {"gpu": 83, "memory": 41}),
        ("nvmlDeviceGetEncoderUtilization(G)", [7, 166667]),
        ("nvmlDeviceGetDecoderUtilization(G)", [9, 166667]),
        ("nvmlDeviceGetClockInfo(G, NVML_CLOCK_SM)", 1500),
        ("nvmlDeviceGetMaxClockInfo(G, NVML_CLOCK_SM)", 2520),
        ("nvmlDeviceGetCurrentClocksEventReasons(G)", 0x44),
        ("nvmlDeviceGetCurrentClocksThrottleReasons(G)", 0x44),
        ("nvmlDeviceGetSupportedClocksEventReasons(G)", 0x1FF),
        ("nvmlDeviceGetTemperature(G, NVML_TEMPERATURE_GPU)", 71),
        ("nvmlDeviceGetTemperatureV(G, NVML_TEMPERATURE_GPU)", 71),
        ("nvmlDeviceGetTemperatureThreshold(G, NVML_TEMPERATURE_THRESHOLD_GPU_MAX)", 88),
        ("nvmlDeviceGetMarginTemperature(G)", 17),
        ("nvmlDeviceGetPowerUsage(G)", 301500),
        ("nvmlDeviceGetEnforcedPowerLimit(G)", 350000),
        ("nvmlDeviceGetPowerManagementLimit(G)", 350000),
        ("nvmlDeviceGetPowerManagementLimitConstraints(G)", [200000, 700000]),
        ("nvmlDeviceGetNumFans(G)", 1),
        ("nvmlDeviceGetFanSpeed(G)", 55),
        ("nvmlDeviceGetPerformanceState(G)", 0),
        ("nvmlDeviceGetPersistenceMode(G)", 1),
        ("nvmlDeviceGetComputeMode(G)", 0),
        ("nvmlDeviceGetVirtualizationMode(G)", 0),
        ("nvmlDeviceGetEccMode(G)", [1, 1]),
        ("nvmlDeviceGetTotalEccErrors(G, 0, 0)", 7),
        ("nvmlDeviceGetTotalEccErrors(G, 1, 1)", 2),
        ("nvmlDeviceGetMemoryErrorCounter(G, 0, 0, NVML_MEMORY_LOCATION_SRAM)", 4),
        ("nvmlDeviceGetMemoryErrorCounter(G, 0, 0, NVML_MEMORY_LOCATION_DEVICE_MEMORY)", 3),
        ("nvmlDeviceGetRemappedRows(G)", [5, 0, 1, 0]),
        ("nvmlDeviceGetPcieThroughput(G, NVML_PCIE_UTIL_TX_BYTES)", 2_000_000),
        ("nvmlDeviceGetPcieReplayCounter(G)", 6),
        ("nvmlDeviceGetCurrPcieLinkGeneration(G)", 5),
        ("nvmlDeviceGetCurrPcieLinkWidth(G)", 16),
        ("nvmlDeviceGetMigMode(G)", [0, 0]),
        ("nvmlDeviceGetSupportedEventTypes(G) & 0xC008", 0xC008),
        ("nvmlGpmQueryDeviceSupport(G).isSupportedDevice", 1),
    ],
)
def test_a_call_says_what_the_scenario_says(reader: Machine, call: str, expected: object) -> None:
    assert reader(call) == expected


@pytest.fixture(scope="module")
def reader(libraries: dict[bool, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    path = tmp_path_factory.mktemp("reader") / "scenario"
    load({"gpus": [GPU]}).write(path)
    machine = Machine(libraries[False], path)
    machine("nvmlInit()")
    machine("globals().update(G=gpu(0))")
    yield machine
    machine.close()


def test_structures_that_carry_a_version_are_filled(reader: Machine) -> None:
    reader("globals().update(rows=c_nvmlRemappedRowsInfo_v2_t(), fabric=c_nvmlGpuFabricInfoV_t())")
    reader("nvmlDeviceGetRemappedRows_v2(G, ctypes.byref(rows))")
    assert reader("rows")["corrActiveRemaps"] == 5
    reader("nvmlDeviceGetGpuFabricInfoV(G, ctypes.byref(fabric))")
    assert reader("fabric.state") == 3


def test_a_structure_of_an_unknown_version_is_refused(reader: Machine) -> None:
    assert reader.fails("nvmlDeviceGetMemoryInfo(G, 0x7000028)") == "ArgumentVersionMismatch"


def test_pcie_throughput_takes_its_time_as_the_real_call_does(reader: Machine) -> None:
    start = time.monotonic()
    reader("nvmlDeviceGetPcieThroughput(G, 0)")
    assert time.monotonic() - start >= 0.02


def test_field_values_come_each_with_a_result_of_their_own(reader: Machine) -> None:
    ids = [3, 6, 82, 94, 142, 144, 186, 230, 1, 999]
    values = reader(f"[(v.nvmlReturn, v.value.uiVal) for v in nvmlDeviceGetFieldValues(G, {ids})]")
    assert values[:8] == [[0, 7], [0, 2], [0, 80], [0, 6], [0, 5], [0, 1], [0, 301500], [0, 1]]
    assert [code for code, _ in values[8:]] == [3, 2]


def test_eight_gpus_differ_in_what_identifies_them(boot: Boot) -> None:
    machine = boot({"gpus": 8})
    for read in ("nvmlDeviceGetUUID", "nvmlDeviceGetSerial", "nvmlDeviceGetMinorNumber"):
        assert len(set(machine(f"[{read}(gpu(n)) for n in range(nvmlDeviceGetCount())]"))) == 8
    assert machine.fails("gpu(8)") == "InvalidArgument"


def test_identities_are_the_same_on_every_run() -> None:
    assert load({"gpus": 3}).gpus[2].uuid == load({"gpus": 8}).gpus[2].uuid


def test_null_and_named_errors_are_what_the_call_returns(boot: Boot) -> None:
    machine = boot(
        {
            "gpus": [{"errors": {"nvmlDeviceGetPowerUsage": "NO_PERMISSION", "field:82": "UNKNOWN"}}, {}],
            "each": {"temperature": None},
            "errors": {"nvmlDeviceGetSerial": "NOT_SUPPORTED"},
        }
    )
    assert machine.fails("nvmlDeviceGetTemperature(gpu(1), 0)") == "NotSupported"
    assert machine.fails("nvmlDeviceGetPowerUsage(gpu(0))") == "NoPermission"
    assert machine("nvmlDeviceGetPowerUsage(gpu(1))") == 420000
    assert machine.fails("nvmlDeviceGetSerial(gpu(1))") == "NotSupported"
    assert machine("[v.nvmlReturn for v in nvmlDeviceGetFieldValues(gpu(0), [82, 94])]") == [999, 0]


# Time


def test_a_wave_runs_from_the_start_of_the_scenario(boot: Boot) -> None:
    wave = {"base": 400, "amplitude": 200, "period": 20}
    start = time.time() - 3.2
    machine = boot({"start": start, "gpus": [{"power": wave}]})
    watts = machine("nvmlDeviceGetPowerUsage(gpu(0))") / 1000
    assert watts == pytest.approx(Wave(**wave).at(time.time() - start), abs=10)


@pytest.mark.parametrize(("shape", "duty"), [("sine", 0.5), ("square", 0.5), ("square", 0.9)])
def test_energy_is_the_integral_of_power(boot: Boot, shape: str, duty: float) -> None:
    power = {"base": 400, "amplitude": 300, "period": 7, "shape": shape, "duty": duty}
    start = time.time() - 9
    machine = boot({"start": start, "gpus": [{"power": power, "energy": 1000}]})
    joules = machine("nvmlDeviceGetTotalEnergyConsumption(gpu(0))") / 1000
    steps = 20_000
    step = (time.time() - start) / steps
    expected = 1000 + sum(Wave(**power).at((n + 0.5) * step) for n in range(steps)) * step
    assert joules == pytest.approx(expected, abs=50)


def test_counters_go_on_when_the_scenario_changes(boot: Boot) -> None:
    machine = boot({"start": time.time() - 100, "gpus": [{"power": 600}]})
    before = machine("nvmlDeviceGetTotalEnergyConsumption(gpu(0))")
    machine.change({"start": time.time(), "gpus": [{"power": 1}]})
    after = machine("nvmlDeviceGetTotalEnergyConsumption(gpu(0))")
    assert 0 <= after - before < 600_000
    assert before >= 60_000_000


def test_throttle_time_grows_while_a_reason_holds(boot: Boot) -> None:
    machine = boot({"start": time.time() - 10, "gpus": [{"reason_sw_power_cap": 1}]})
    assert machine("nvmlDeviceGetViolationStatus(gpu(0), 0).violationTime") / 1e9 == pytest.approx(10, abs=1)
    assert machine("nvmlDeviceGetViolationStatus(gpu(0), 1).violationTime") == 0
    assert machine("nvmlDeviceGetFieldValues(gpu(0), [74])[0].value.ullVal") / 1e9 == pytest.approx(10, abs=1)


def test_samples_are_those_the_driver_took_since_the_last_look(boot: Boot) -> None:
    gpu = {"gpu_utilization": {"base": 50, "amplitude": 50, "period": 4, "shape": "square"}, "sample_buffer": 60}
    machine = boot({"start": time.time() - 60, "gpus": [{**gpu, "sample_period": 0.2}]})
    read = "[(s.timeStamp, s.sampleValue.uiVal) for s in nvmlDeviceGetSamples(gpu(0), 1, {})[1]]"
    samples = machine(read.format(0))
    assert len(samples) == 60
    assert {value for _, value in samples} == {0, 100}
    assert {round((b[0] - a[0]) / 1e4) for a, b in itertools.pairwise(samples)} == {20}
    assert machine(f"len({read.format(samples[-4][0])})") in (3, 4)
    assert machine.fails(read.format(int(time.time() * 1e6) + 10**6)) == "NotFound"


def test_samples_taken_before_a_change_keep_their_values(boot: Boot) -> None:
    start = time.time() - 60
    machine = boot({"start": start, "gpus": [{"gpu_utilization": 20, "sample_period": 0.02}]})
    machine("gpu(0)")
    machine.change({"start": start, "gpus": [{"gpu_utilization": 90, "sample_period": 0.02}]})
    time.sleep(0.05)
    values = machine("[s.sampleValue.uiVal for s in nvmlDeviceGetSamples(gpu(0), 1, 0)[1]]")
    assert set(values) == {20, 90}
    assert values == sorted(values)


def test_process_utilization_counts_from_the_last_timestamp_and_says_not_found_when_idle(boot: Boot) -> None:
    processes = [{"pid": 41, "gpu_utilization": 30}, {"pid": 42}]
    machine = boot({"start": time.time() - 60, "gpus": [{"processes": processes}]})
    samples = machine("nvmlDeviceGetProcessUtilization(gpu(0), 0)")
    assert {(sample["pid"], sample["smUtil"]) for sample in samples} == {(41, 30)}
    newest = max(sample["timeStamp"] for sample in samples)
    assert machine.fails(f"nvmlDeviceGetProcessUtilization(gpu(0), {newest + 10**6})") == "NotFound"


def test_gpm_gives_the_mean_between_two_samples(boot: Boot) -> None:
    machine = boot({"gpus": [{"gpm_sm": {"base": 40, "amplitude": 10, "period": 0.02}, "gpm_tensor": 12.5}]})
    machine("globals().update(a=nvmlGpmSampleAlloc(), b=nvmlGpmSampleAlloc(), m=c_nvmlGpmMetricsGet_t())")
    machine("nvmlGpmSampleGet(gpu(0), a)")
    time.sleep(0.1)
    machine("nvmlGpmSampleGet(gpu(0), b)")
    for line in ("m.version = 1", "m.numMetrics = 3", "m.sample1, m.sample2 = a, b"):
        machine(line + "\t")
    machine("m.metrics[0].metricId, m.metrics[1].metricId, m.metrics[2].metricId = 2, 5, 30\t")
    machine("nvmlGpmMetricsGet(m)")
    found = machine("[(m.metrics[n].nvmlReturn, m.metrics[n].value) for n in range(3)]")
    assert found[0] == [0, pytest.approx(40, abs=2)]
    assert found[1] == [0, pytest.approx(12.5)]
    assert found[2][0] == 3
    machine("nvmlGpmSampleFree(a), nvmlGpmSampleFree(b)")


# Processes and MIG


def test_processes_are_listed_by_what_they_do(boot: Boot) -> None:
    processes = [
        {"pid": 7, "memory_used": "3GiB"},
        {"pid": 8, "type": "graphics", "memory_used": None},
        {"pid": 9, "type": "mps"},
    ]
    machine = boot({"gpus": [{"processes": processes}, {}]})
    for suffix in ("", "_v2", "_v3"):
        found = machine(f"nvmlDeviceGetComputeRunningProcesses{suffix}(gpu(0))")
        assert [(process["pid"], process["usedGpuMemory"]) for process in found] == [(7, 3 << 30)]
    assert machine("nvmlDeviceGetGraphicsRunningProcesses(gpu(0))")[0]["usedGpuMemory"] is None
    assert machine("nvmlDeviceGetMPSComputeRunningProcesses(gpu(0))")[0]["pid"] == 9
    assert machine("nvmlDeviceGetComputeRunningProcesses(gpu(1))") == []


def test_mig_devices_have_their_own_memory_processes_and_attributes(boot: Boot) -> None:
    machine = boot(SCENARIOS / "mig.yaml")
    assert machine("nvmlDeviceGetMigMode(gpu(0))") == [1, 1]
    assert machine("nvmlDeviceGetMaxMigDeviceCount(gpu(0))") == 7
    assert machine("nvmlDeviceGetName(mig(0))") == "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    assert machine("nvmlDeviceGetUUID(mig(0))").startswith("MIG-")
    assert machine("nvmlDeviceIsMigDeviceHandle(mig(0)).value") == 1
    assert machine("nvmlDeviceGetIndex(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig(1)))") == 0
    assert machine("nvmlDeviceGetGpuInstanceId(mig(1)), nvmlDeviceGetComputeInstanceId(mig(1))") == [2, 0]
    assert machine("nvmlDeviceGetMemoryInfo(mig(0), nvmlMemory_v2).used") == 22 << 30
    assert machine("nvmlDeviceGetAttributes(mig(0))")["gpuInstanceSliceCount"] == 3
    assert machine("[p.pid for p in nvmlDeviceGetComputeRunningProcesses(mig(1))]") == [5102]
    assert machine("[p.pid for p in nvmlDeviceGetComputeRunningProcesses(gpu(0))]") == [5101, 5102]
    assert machine.fails("mig(2)") == "NotFound"
    assert machine("nvmlDeviceGetMigMode(gpu(1))") == [0, 0]


def test_utilization_is_not_told_on_a_gpu_in_mig_mode(boot: Boot) -> None:
    machine = boot(SCENARIOS / "mig.yaml")
    assert machine.fails("nvmlDeviceGetUtilizationRates(gpu(0))") == "NotSupported"
    assert machine.fails("nvmlDeviceGetUtilizationRates(mig(0))") == "NotSupported"
    assert machine.fails("nvmlDeviceGetSamples(gpu(0), 1, 0)") == "NotSupported"
    assert machine.fails("nvmlDeviceGetProcessUtilization(gpu(0), 0)") == "NotSupported"
    assert machine("nvmlDeviceGetUtilizationRates(gpu(1)).gpu") == 70


def test_what_else_fits_on_a_mig_gpu_is_told_to_root_only(boot: Boot) -> None:
    mig = [{"profile": "3g.40gb"}, {"profile": "1g.10gb"}]
    machine = boot({"privileged": True, "gpus": [{"mig": mig}]})
    info = "nvmlDeviceGetGpuInstanceProfileInfo(gpu(0), NVML_GPU_INSTANCE_PROFILE_{}_SLICE).id"
    remaining = f"nvmlDeviceGetGpuInstanceRemainingCapacity(gpu(0), {info})"
    assert [machine(remaining.format(slices)) for slices in (1, 2, 3, 7)] == [3, 1, 0, 0]
    machine("globals().update(places=(c_nvmlGpuInstancePlacement_t * 8)(), n=ctypes.c_uint(8))")
    machine("nvmlDeviceGetGpuInstancePossiblePlacements(gpu(0), 9, places, ctypes.byref(n))")
    assert machine("[(p.start, p.size) for p in places[:n.value]]") == [[0, 4], [4, 4]]
    machine.change({"gpus": [{"mig": mig}]})
    assert machine.fails(remaining.format(1)) == "NoPermission"


# An old driver


def test_an_old_driver_lacks_functions_and_the_older_ones_do(boot: Boot) -> None:
    machine = boot({"gpus": [{"processes": [{"pid": 5}]}]}, old=True)
    for call in (
        "nvmlDeviceGetMemoryInfo(gpu(0), nvmlMemory_v2)",
        "nvmlDeviceGetComputeRunningProcesses_v3(gpu(0))",
        "nvmlDeviceGetCurrentClocksEventReasons(gpu(0))",
        "nvmlDeviceGetMarginTemperature(gpu(0))",
        "nvmlGpmQueryDeviceSupport(gpu(0))",
    ):
        assert machine.fails(call) == "FunctionNotFound"
    # The binding raises this one, which is no NVMLError, where it calls the newest version by itself.
    assert machine.fails("nvmlDeviceGetComputeRunningProcesses(gpu(0))") == "NVMLLibraryMismatchError"
    assert machine("nvmlDeviceGetMemoryInfo(gpu(0)).total") == 81559 << 20
    assert machine("[p.pid for p in nvmlDeviceGetComputeRunningProcesses_v2(gpu(0))]") == [5]
    assert machine("nvmlDeviceGetCurrentClocksThrottleReasons(gpu(0))") == 0


# What goes wrong


@pytest.mark.parametrize(
    ("error", "raised"),
    [("LIB_RM_VERSION_MISMATCH", "LibRmVersionMismatch"), ("DRIVER_NOT_LOADED", "DriverNotLoaded")],
)
def test_init_fails_as_told_and_works_once_the_driver_is_right(boot: Boot, error: str, raised: str) -> None:
    machine = boot({"init": error, "gpus": 1}, init=False)
    assert machine.fails("nvmlInit()") == raised
    assert machine.fails("nvmlDeviceGetCount()") == "Uninitialized"
    machine.change({"gpus": 1})
    machine("nvmlInit()")
    assert machine("nvmlDeviceGetCount()") == 1
    machine("nvmlShutdown()")
    assert machine.fails("nvmlDeviceGetCount()") == "Uninitialized"


def test_a_hang_blocks_one_gpu_and_ends_when_the_scenario_says_so(boot: Boot) -> None:
    machine = boot({"gpus": 2})
    machine("globals().update(a=gpu(0), b=gpu(1))")
    machine.change({"gpus": [{"hang": True}, {}]})
    machine("globals().update(stuck=[pool.submit(nvmlDeviceGetPowerUsage, a) for _ in range(8)])")
    start = time.monotonic()
    assert machine("[nvmlDeviceGetPowerUsage(b) for _ in range(100)]") == [420000] * 100
    assert time.monotonic() - start < 0.5
    time.sleep(0.1)
    assert machine("[call.done() for call in stuck]") == [False] * 8
    load({"gpus": 2}).write(machine.scenario)
    start = time.monotonic()
    assert machine("[call.result() for call in stuck]") == [420000] * 8
    assert time.monotonic() - start < 0.2


def test_a_hang_may_concern_named_calls_only(boot: Boot) -> None:
    machine = boot({"gpus": [{"hang": ["nvmlDeviceGetUtilizationRates"]}]})
    machine("globals().update(stuck=pool.submit(nvmlDeviceGetUtilizationRates, gpu(0)))")
    assert machine("nvmlDeviceGetPowerUsage(gpu(0))") == 420000
    assert machine("stuck.done()") == 0


def test_a_lost_gpu_comes_back_under_the_same_handle(boot: Boot) -> None:
    machine = boot({"gpus": 2})
    machine("globals().update(a=gpu(0), b=gpu(1))")
    machine.change({"gpus": [{"lost": True}, {}]})
    assert machine.fails("nvmlDeviceGetPowerUsage(a)") == "GpuIsLost"
    assert machine.fails("gpu(0)") == "GpuIsLost"
    assert machine("nvmlDeviceGetPowerUsage(b)") == 420000
    machine.change({"gpus": 2})
    assert machine("nvmlDeviceGetPowerUsage(a)") == 420000


def test_gpus_come_and_go(boot: Boot) -> None:
    machine = boot({"gpus": 2})
    machine("globals().update(b=gpu(1))")
    machine.change({"gpus": 1})
    assert machine("nvmlDeviceGetCount()") == 1
    assert machine.fails("nvmlDeviceGetPowerUsage(b)") == "GpuIsLost"
    machine.change({"gpus": 4})
    assert machine("nvmlDeviceGetCount()") == 4


def test_every_xid_is_heard_once_repeats_too_and_not_those_before_the_set(boot: Boot) -> None:
    machine = boot({"gpus": 2, "events": [{"gpu": 0, "xid": 13}]})
    machine("globals().update(events=nvmlEventSetCreate())")
    machine("[nvmlDeviceRegisterEvents(gpu(n), 0xC008, events) for n in range(2)]")
    assert machine.fails("nvmlEventSetWait(events, 20)") == "Timeout"
    appended = [{"gpu": 1, "xid": 31}, {"gpu": 1, "xid": 31}, {"gpu": 0, "type": "recovery_action", "data": 1}]
    machine.change({"gpus": 2, "events": [{"gpu": 0, "xid": 13}, *appended]})
    wait = "(lambda e: (nvmlDeviceGetIndex(e.device), e.eventType, e.eventData))(nvmlEventSetWait(events, 500))"
    assert [machine(wait) for _ in range(3)] == [[1, 8, 31], [1, 8, 31], [0, 0x8000, 1]]
    assert machine.fails("nvmlEventSetWait(events, 0)") == "Timeout"
    machine("nvmlEventSetFree(events)")


def test_a_wait_for_events_wakes_when_one_arrives(boot: Boot) -> None:
    machine = boot({"gpus": 1})
    machine("globals().update(events=nvmlEventSetCreate())")
    machine("nvmlDeviceRegisterEvents(gpu(0), 0x8, events)")
    machine("globals().update(waiting=pool.submit(nvmlEventSetWait, events, 5000))")
    machine.change({"gpus": 1, "events": [{"gpu": 0, "xid": 79}]})
    assert machine("waiting.result().eventData") == 79


def test_a_set_hears_the_xid_of_a_lost_gpu_before_that_it_is_lost(boot: Boot) -> None:
    machine = boot({"gpus": 1})
    machine("globals().update(events=nvmlEventSetCreate())")
    machine("nvmlDeviceRegisterEvents(gpu(0), 0x8, events)")
    machine.change({"gpus": [{"lost": True}], "events": [{"gpu": 0, "xid": 79}]})
    assert machine("nvmlEventSetWait(events, 100).eventData") == 79
    assert machine.fails("nvmlEventSetWait(events, 100)") == "GpuIsLost"


SYSTEM_EVENTS = "[list(event.values()) for event in nvmlSystemEventSetWait(0x1000020, events, 200, buffer, 4)]"


def test_system_events_are_heard_once_by_their_sets_and_not_by_those_of_gpus(boot: Boot) -> None:
    machine = boot({"gpus": 2, "events": [{"gpu": 0, "type": "unbind"}]})
    machine("globals().update(buffer=(c_nvmlSystemEventData_v1_t * 4)(), of_gpus=nvmlEventSetCreate())")
    machine("globals().update(events=nvmlSystemEventSetCreate(nvmlSystemEventSetCreateRequest_v1))")
    machine("nvmlDeviceRegisterEvents(gpu(1), 0x1, of_gpus)")
    machine("nvmlSystemRegisterEvents(nvmlSystemRegisterEventRequest_v1, 3, events)")
    assert machine(SYSTEM_EVENTS) == []
    appended = [{"gpu": 1, "type": "unbind"}, {"gpu": 1, "xid": 31}, {"gpu": 1, "type": "bind"}]
    machine.change({"gpus": 2, "events": [{"gpu": 0, "type": "unbind"}, *appended]})
    assert machine(SYSTEM_EVENTS) == [[1, 0x1F00], [2, 0x1F00]], "type and PCI address"
    assert machine(SYSTEM_EVENTS) == []
    assert machine.fails("nvmlEventSetWait(of_gpus, 0)") == "Timeout"
    machine("nvmlSystemEventSetFree(nvmlSystemEventSetFreeRequest_v1, events)")
    assert machine.fails("nvmlSystemEventSetCreate(1)") == "ArgumentVersionMismatch"


def test_an_old_driver_has_no_system_events(boot: Boot) -> None:
    machine = boot({"gpus": 1}, old=True)
    assert machine.fails("nvmlSystemEventSetCreate(nvmlSystemEventSetCreateRequest_v1)") == "FunctionNotFound"


def test_a_descriptor_is_open_from_the_first_init_to_the_last_shutdown(boot: Boot) -> None:
    machine = boot({"gpus": 1}, init=False)
    held = "[p for p in map(os.path.realpath, glob.glob('/proc/self/fd/*')) if p == os.environ[VARIABLE]]".replace(
        "VARIABLE", repr(ENVIRONMENT_VARIABLE)
    )
    machine("globals().update(os=__import__('os'), glob=__import__('glob'))")
    machine("[nvmlInit(), nvmlInit(), nvmlShutdown()]")
    assert machine(held) == [str(machine.scenario)]
    machine("nvmlShutdown()")
    assert machine(held) == []


# Scenarios


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_scenarios_that_come_along_run(boot: Boot, path: Path) -> None:
    machine = boot(path)
    assert machine("nvmlDeviceGetCount()") == len(load(path).gpus)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gpus: 1\ncolour: red\n", "colour: Extra inputs are not permitted"),
        ("gpus:\n  - {powr: 3}\n", "gpus.0.powr: Extra inputs are not permitted"),
        ("gpus:\n  - {gpu_utilization: {base: 90, amplitude: 20}}\n", "gpus.0.gpu_utilization: "),
        ("gpus:\n  - {power: {base: 10, amplitude: 20}}\n", "gpus.0.power: the value would be negative"),
        ("gpus: 1\ninit: BROKEN\n", "init: 'BROKEN' is none of SUCCESS, "),
        ("gpus: 1\nevents: [{gpu: 4, xid: 13}]\n", "events: no GPU 4"),
        ("gpus: 99\n", "gpus: "),
        ("gpus:\n  - {errors: {GetName: UNKNOWN}}\n", "gpus.0.errors.GetName"),
        ("gpus:\n  - {mig: [{profile: 7g.80gb}, {}]}\n", "gpus.0.mig: no room for 1g.10gb"),
        ("gpus: 1\nevents: [{gpu: 0, id: 5}, {gpu: 0, id: 5}]\n", "events: ids must rise"),
        ("gpus:\n  - {mig: [{profile: 9g.90gb}]}\n", "gpus.0.mig.0: profile '9g.90gb' is none of "),
    ],
)
def test_a_mistake_in_a_scenario_is_one_line_with_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


def test_a_loaded_scenario_can_be_changed_and_written_again(boot: Boot, tmp_path: Path) -> None:
    machine = boot({"gpus": 2})
    machine("globals().update(events=nvmlEventSetCreate())")
    machine("nvmlDeviceRegisterEvents(gpu(1), 0x8, events)")
    scenario = load({"gpus": 2})
    scenario.gpus[0].lost = True
    scenario.gpus[1].power = Wave(base=123)
    scenario.events.append(Event(gpu=1, xid=94))
    scenario.write(machine.scenario)
    time.sleep(0.025)
    assert machine.fails("nvmlDeviceGetPowerUsage(gpu(0))") == "GpuIsLost"
    assert machine("nvmlDeviceGetPowerUsage(gpu(1))") == 123_000
    assert machine("nvmlEventSetWait(events, 100).eventData") == 94
    with pytest.raises(ValueError, match="negative"):
        scenario.gpus[1].power = {"base": -1}  # type: ignore[assignment]


def test_the_command_line_builds_and_compiles(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "palegreen.demo.driver", "compile", "--out", str(tmp_path / "flat")]
    done = subprocess.run([*command, str(SCENARIOS / "demo.yaml")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "flat")
    failed = subprocess.run([*command, str(tmp_path / "none.yaml")], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr == f"{tmp_path / 'none.yaml'}: No such file or directory\n"
