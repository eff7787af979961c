"""dcgm-exporter through a real HTTP server: its client, the source, and what NVML and DCGM show side by side."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from support.daemon import Daemon, run
from support.engine import samples, value
from support.gpus import Machine, library
from support.server import Answer, Server, drip, hang, response
from support.waiting import until

from palegreen.catalogue import dcgm as catalogue
from palegreen.demo.driver.build import BuildError
from palegreen.exporter.dcgm.client import DcgmError, DcgmExporter, GpuSample, Reading, Workload
from palegreen.exporter.dcgm.source import DcgmSource
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Collected, Exposition

CAPTURES = Path(__file__).parent / "captures" / "dcgm"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(CAPTURES.glob("*.prom"))}
A100, A100_IDLE = "GPU-1f027ee8-6e1e-4b8c-8108-3d370e5f0418", "GPU-7099682b-a20d-4bcc-b4ab-b9060454d81e"
SM = "palegreen_gpu_sm_active_seconds_total"
POWER = "palegreen_gpu_power_watts"
INFO = "palegreen_gpu_info"


@dataclass
class Bench:
    """A source over a page that a test may change, beside a NVML that gives the families in `given`."""

    server: Server
    given: set[tuple[str, str]] = field(default_factory=set)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.source = DcgmSource(
            DcgmExporter(self.server.url),
            15.0,
            lambda metric, uuid: (metric, uuid) in self.given,
            lambda _uuid, _instance: "",
            lambda: self.now,
        )

    def page(self, text: str) -> None:
        self.server.answers["/metrics"] = response(text)

    def read(self, after: float = 15.0) -> list[Any]:
        """Samples of a reading `after` seconds after the one before."""
        self.now += after
        return samples(self.source.collect())


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Server({"/metrics": response(PAGES["a100-profiling"])}) as server:
        yield Bench(server)


def reading(page: str) -> Reading:
    with Server({"/metrics": response(page)}) as server:
        return DcgmExporter(server.url).read()


def page_of(*lines: str) -> str:
    return "".join(f"# TYPE {line.partition('{')[0]} gauge\n{line}\n" for line in lines)


def rows(page: str, name: str, number: str, uuid: str = A100) -> str:
    """The page with another number in the rows of one field of one GPU."""
    changed, times = re.subn(rf"({name}{{[^}}]*{uuid}[^}}]*}}) \S+", rf"\1 {number}", page)
    assert times
    return changed


# The client.


@pytest.mark.parametrize("page", PAGES)
def test_a_page_gives_the_families_of_its_golden(page: str, golden: Callable[[str, str], None]) -> None:
    with Server({"/metrics": response(PAGES[page])}) as server:
        found = Bench(server).source.collect()
    golden(f"dcgm/{page}.txt", Exposition([found]).body().decode())


@pytest.mark.parametrize("page", ["new-names", "base-unit-names", "exported-pod"])
def test_old_and_new_names_and_relabelled_pages_give_the_same_records(page: str) -> None:
    assert reading(PAGES[page]).gpus == reading(PAGES["old-names"]).gpus


def test_a_record_is_in_base_units_with_its_identity_and_its_pod() -> None:
    gpu = reading(PAGES["old-names"]).gpus[0]
    assert (gpu.gpu, gpu.pci_bus_id, gpu.model) == ("0", "00000000:18:00.0", "NVIDIA H100 80GB HBM3")
    assert (gpu.hostname, gpu.driver_version) == ("gpu-node-7", "550.54.15")
    assert gpu.workloads == (Workload("prod", "llama-70b-0", "vllm"),)
    assert (gpu.memory_used_bytes, gpu.memory_reserved_bytes) == (71846 << 20, 561 << 20)
    assert (gpu.energy_joules, gpu.power_watts, gpu.sm_clock_hertz) == (164901192.0, 512.347, 1.98e9)
    assert (gpu.utilization_ratio, gpu.memory_controller_utilization_ratio) == (0.87, 0.41)
    assert gpu.nvlink_bandwidth_bytes_per_second == 220_500 * 1024 * 1000


@pytest.mark.parametrize(
    ("written", "meant"), [("45", 0.45), ("1", 0.01), ("0", 0.0), ("1.000000", 1.0), ("0.450000", 0.45)]
)
def test_gpu_util_ratio_is_a_percentage_when_whole_and_a_ratio_with_decimals(written: str, meant: float) -> None:
    found = reading(page_of(f'DCGM_FI_DEV_GPU_UTIL_RATIO{{gpu="0",UUID="GPU-a"}} {written}'))
    assert found.gpus[0].utilization_ratio == meant


def test_pods_that_share_a_gpu_give_one_record_that_names_each() -> None:
    (gpu,) = reading(PAGES["time-slicing"]).gpus
    assert [workload.pod for workload in gpu.workloads] == ["notebook-1", "notebook-2"]
    assert gpu.utilization_ratio == 0.6


def test_what_the_exporter_repeats_on_mig_instances_belongs_to_the_whole_gpu_once() -> None:
    whole, three, one, _ = reading(PAGES["mig"]).gpus
    assert [(gpu.gpu_instance, gpu.mig_profile) for gpu in (whole, three, one)] == [
        ("", ""), ("1", "3g.40gb"), ("9", "1g.10gb")
    ]  # fmt: skip
    assert (whole.power_watts, three.power_watts, one.power_watts) == (284.25, None, None)
    assert (whole.sm_active_ratio, three.sm_active_ratio, one.sm_active_ratio) == (None, 0.5, 0.125)
    assert [gpu.workloads[0].pod for gpu in (three, one)] == ["llama-70b-0", "embed-0"]


@pytest.mark.parametrize(
    "number",
    ["9223372036854775794", "9223372036854775792", "2147483632", "2147483635", "140737488355328.000000", "NaN", "+Inf"],
)
def test_a_blank_is_absent_and_named(number: str) -> None:
    page = page_of(
        f'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="GPU-a"}} {number}', 'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-a"} 40'
    )
    (gpu,) = reading(page).gpus
    assert (gpu.power_watts, gpu.temperature_celsius, gpu.blank) == (None, 40.0, {"power_watts"})


@pytest.mark.parametrize(
    "line",
    [
        'DCGM_FI_PROF_SM_ACTIVE{gpu="0",UUID="GPU-a"} 1.7',
        'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a"} 4000',
        'DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a"} -5',
        'DCGM_FI_DEV_MEMORY_TEMP{gpu="0",UUID="GPU-a"} 0',
    ],
)
def test_a_number_that_cannot_be_is_absent(line: str) -> None:
    (gpu,) = reading(page_of(line)).gpus
    assert all(getattr(gpu, key) is None for key in catalogue.fields().fields)


def test_rows_of_switches_links_and_processors_are_none_of_a_gpu() -> None:
    page = PAGES["old-names"] + page_of(
        'DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL{nvswitch="0",Hostname="n"} 7',
        'DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL{nvlink="3",gpu="0",gpu_uuid="GPU-z"} 7',
        'DCGM_FI_DEV_CPU_UTIL_TOTAL{cpu="0"} 0.5',
    )
    assert reading(page).gpus == reading(PAGES["old-names"]).gpus


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        ('DCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-bad",pod="say "hi""} 40', "broken labels"),
        ('DCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-bad"} ERROR - FAILED TO CONVERT', "no number"),
        ('DCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-bad"} 40\nDCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-bad"} 41', "twice"),
    ],
)
def test_a_broken_gpu_costs_itself_and_no_other(bad: str, cause: str) -> None:
    found = reading(PAGES["a100-profiling"] + bad + "\n")
    assert found.gpus == reading(PAGES["a100-profiling"]).gpus
    assert list(found.refused) == ["GPU-bad"]
    assert cause in found.refused["GPU-bad"]
    with pytest.raises(DcgmError, match=cause):
        reading(bad + "\n")


def test_every_field_of_the_catalogue_is_an_attribute_and_is_read_by_each_of_its_names() -> None:
    known = catalogue.fields()
    numbers = {each.name for each in fields(GpuSample)} - {*known.labels, "workloads", "blank"}
    assert set(known.fields) == numbers
    for name, native in known.natives.items():
        shown = name.removesuffix(catalogue.WHOLE)
        number = "1" if name != shown else "1.0"
        (gpu,) = reading(page_of(f'{shown}{{gpu="0",UUID="GPU-a"}} {number}')).gpus
        assert getattr(gpu, native.field) == pytest.approx(native.factor), name


@pytest.mark.parametrize(
    ("field_", "problem"),
    [
        ({"kind": "gauge", "metric": "palegreen_gpu_invented"}, "not declared"),
        ({"kind": "rate", "metric": "palegreen_gpu_pcie_replays_total"}, "a rate cannot be published as"),
        ({"kind": "share", "metric": POWER}, "a share cannot be published as"),
        ({"kind": "gauge", "metric": "palegreen_gpu_temperature_celsius"}, "has labels"),
        ({"kind": "gauge", "metrik": POWER}, "Extra inputs"),
    ],
)
def test_a_field_that_cannot_be_right_is_refused(field_: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        catalogue.Field.model_validate({"scope": "gpu", "names": {"X": "watts"}, **field_})


@settings(max_examples=150)
@given(data=st.data())
def test_a_mangled_page_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    page = PAGES["mig"].encode()
    at = data.draw(st.integers(0, len(page)))
    mangled = page[:at] + data.draw(st.binary(max_size=8)) + page[at + data.draw(st.integers(0, 200)) :]
    with Server({"/metrics": response(mangled)}) as server:
        try:
            DcgmExporter(server.url).read()
        except DcgmError as failure:
            assert len(str(failure).splitlines()) == 1


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parent.parent / "docs" / "dcgm.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    with Server({"/metrics": response(PAGES["a100-profiling"])}) as server:
        exec(example.replace("http://localhost:9400", server.url), {})
    assert capsys.readouterr().out.startswith(f"{A100}  311.5 0.75 ")


# The source.

REFUSALS: list[tuple[Answer, str]] = [
    (response("<html></html>", "text/html"), "an HTML page"),
    (response("", status="302 Found", headers={"Location": "/elsewhere"}), "redirected"),
    (response(""), "empty page"),
    (response(PAGES["mig"].rstrip("\n")), "cut short"),
    (response("# TYPE vllm:x gauge\nvllm:x 1\n"), "is this a dcgm-exporter"),
    (response(b"\xff\xfe\n"), "not UTF-8"),
    (response("error", "text/plain", "500 Internal Server Error"), "HTTP 500"),
    (hang, "no complete answer"),
    (drip(b"D" * 1000, b"HTTP/1.1 200 OK\r\n\r\n"), "no complete answer"),
    (
        response(page_of(*(f'DCGM_FI_DEV_GPU_TEMP{{gpu="{i}",UUID="GPU-{i}"}} 40' for i in range(300)))),
        "over 256 GPUs",
    ),
]


@pytest.mark.parametrize(("answer", "cause"), REFUSALS)
def test_a_bad_page_is_refused_in_one_line_that_names_the_address(answer: Answer, cause: str) -> None:
    with Server({"/metrics": answer}) as server:
        exporter = DcgmExporter(server.url, deadline=0.5)
        source = DcgmSource(exporter, 15.0, lambda *_: False, lambda *_: "")
        with pytest.raises(SourceError, match=cause) as failure:
            source.collect()
        assert str(failure.value).startswith(server.url)
        assert len(str(failure.value).splitlines()) == 1
        assert failure.value.readings.lines == {}


def test_a_ratio_counts_for_the_time_since_the_one_before(bench: Bench) -> None:
    assert value(bench.read(), SM, uuid=A100) == 0
    assert value(bench.read(20), SM, uuid=A100) == 0.75 * 20
    bench.page(rows(PAGES["a100-profiling"], "DCGM_FI_PROF_SM_ACTIVE", "0.250000"))
    found = bench.read(10)
    assert value(found, SM, uuid=A100) == 0.75 * 20 + 0.25 * 10
    assert value(found, SM, uuid=A100_IDLE) == 0
    assert value(found, "palegreen_gpu_dram_active_seconds_total", uuid=A100) == 0.5 * 30


def test_a_gap_of_more_than_three_intervals_adds_nothing(bench: Bench) -> None:
    bench.read()
    assert value(bench.read(45), SM, uuid=A100) == 0.75 * 45
    assert value(bench.read(46), SM, uuid=A100) == 0.75 * 45
    assert value(bench.read(15), SM, uuid=A100) == 0.75 * 60


def test_a_blank_between_two_numbers_is_bridged_and_shows_nothing_meanwhile(bench: Bench) -> None:
    bench.read()
    bench.page(rows(PAGES["a100-profiling"], "DCGM_FI_PROF_SM_ACTIVE", "NaN"))
    found = bench.read()
    assert value(found, SM, uuid=A100) is None
    assert value(found, "palegreen_dcgm_field_blank", uuid=A100, field="sm_active_ratio") == 1
    assert value(found, "palegreen_dcgm_field_blank", uuid=A100, field="dram_active_ratio") == 0
    bench.page(PAGES["a100-profiling"])
    assert value(bench.read(), SM, uuid=A100) == 0.75 * 30


def test_the_nvlink_counter_is_shown_as_the_rate_it_is(bench: Bench) -> None:
    name = "palegreen_dcgm_nvlink_bandwidth_bytes_per_second"
    assert value(bench.read(), name, uuid=A100) == 48_000 * 1024 * 1000
    text = Exposition([bench.source.collect()]).body().decode()
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert families[name] == "gauge"
    assert not [family for family, kind in families.items() if "nvlink" in family and kind == "counter"]


def test_the_last_xid_is_never_counted(bench: Bench) -> None:
    bench.page(PAGES["old-names"])
    assert not [sample for sample in bench.read() if "xid" in sample.name]
    assert reading(PAGES["old-names"]).gpus[0].last_xid == 31


def test_what_nvml_gives_for_a_gpu_is_not_given_again_and_each_family_names_its_source(bench: Bench) -> None:
    bench.given = {(INFO, A100), (POWER, A100)}
    found = bench.read()
    assert value(found, POWER, uuid=A100) is None
    assert value(found, POWER, uuid=A100_IDLE) == 55.125
    assert value(found, "palegreen_gpu_memory_used_bytes", uuid=A100) == 69800 << 20
    source = "palegreen_gpu_family_source"
    assert value(found, source, uuid=A100, metric=POWER, source="nvml") == 1
    assert value(found, source, uuid=A100, metric=POWER, source="dcgm") is None
    assert value(found, source, uuid=A100_IDLE, metric=POWER, source="dcgm") == 1
    assert value(found, source, uuid=A100, metric=SM, source="dcgm") == 1


def test_a_family_that_nvml_begins_to_give_is_never_shown_twice(bench: Bench) -> None:
    bench.now += 15
    old = bench.source.collect()
    nvml = Collected(A100, "0", "")
    nvml.add(POWER, 300)
    nvml.add("palegreen_gpu_temperature_celsius", 50, "gpu")
    text = Exposition([nvml.readings(), old]).body().decode()
    power = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {s.labels["uuid"]: s.value for s in power if s.name == POWER} == {A100: 300, A100_IDLE: 55.125}
    assert not [series for series, times in Counter((s.name, *s.labels.items()) for s in power).items() if times > 1]
    assert text.count(f"# TYPE {POWER} ") == 1


def test_a_gpu_that_nvml_has_lost_is_not_shown_from_the_exporters_memory(bench: Bench) -> None:
    bench.given = {(INFO, A100)}
    assert value(bench.read(), POWER, uuid=A100) == 311.5
    bench.given = set()
    found = bench.read()
    assert not [s for s in found if s.labels.get("uuid") == A100 and s.name != "palegreen_dcgm_frozen"]
    assert value(found, POWER, uuid=A100_IDLE) == 55.125, "NVML never had this one"
    bench.given = {(INFO, A100)}
    assert value(bench.read(), POWER, uuid=A100) == 311.5


def test_a_gpu_whose_energy_stands_still_for_minutes_is_old_news(bench: Bench) -> None:
    assert value(bench.read(), "palegreen_dcgm_frozen", uuid=A100) == 0
    moving = PAGES["a100-profiling"]
    for step in range(20):
        moving = rows(moving, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", str(6602345999 + step), A100_IDLE)
        bench.page(moving)
        found = bench.read()
    assert value(found, "palegreen_dcgm_frozen", uuid=A100) == 1
    assert {s.name for s in found if s.labels.get("uuid") == A100} == {"palegreen_dcgm_frozen"}
    assert value(found, "palegreen_dcgm_frozen", uuid=A100_IDLE) == 0
    assert value(found, POWER, uuid=A100_IDLE) == 55.125
    bench.page(rows(moving, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "7712399999"))
    assert value(bench.read(), POWER, uuid=A100) == 311.5


def test_a_gpu_that_leaves_the_page_leaves_no_series(bench: Bench) -> None:
    bench.read()
    bench.page("".join(line for line in PAGES["a100-profiling"].splitlines(keepends=True) if A100 not in line))
    found = bench.read()
    assert not [sample for sample in found if sample.labels.get("uuid") == A100]
    assert value(found, POWER, uuid=A100_IDLE) == 55.125


def test_profiling_that_stays_zero_on_a_busy_gpu_is_blank_and_not_idle(bench: Bench) -> None:
    page = PAGES["a100-profiling"]
    for name in re.findall("# TYPE (DCGM_FI_PROF_\\w+)", page):
        page = rows(page, name, "0.000000")
    bench.page(page)
    bench.read()
    assert value(bench.read(), "palegreen_dcgm_field_blank", uuid=A100, field="sm_active_ratio") == 0
    found = bench.read()
    assert value(found, "palegreen_dcgm_field_blank", uuid=A100, field="sm_active_ratio") == 1
    assert value(found, SM, uuid=A100) is None
    assert value(found, "palegreen_dcgm_field_blank", uuid=A100_IDLE, field="sm_active_ratio") == 0, "that one idles"
    assert value(found, SM, uuid=A100_IDLE) == 0


def test_a_refused_gpu_is_counted_and_logged_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.page(PAGES["a100-profiling"] + 'DCGM_FI_DEV_GPU_TEMP{gpu="2",UUID="GPU-bad"} x\n')
    bench.read()
    assert value(bench.read(), "palegreen_dcgm_gpus_refused") == 1
    assert capsys.readouterr().out.count("dcgm.gpu_refused") == 1


# The daemon, beside the simulated driver.


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp().parent / "drivers"


@pytest.fixture
def machine(tmp_path: Path, drivers: Path) -> Callable[..., Machine]:
    def make(scenario: dict[str, Any]) -> Machine:
        try:
            return Machine(tmp_path, library(drivers), scenario)
        except BuildError as failure:
            pytest.skip(f"the driver cannot be simulated: {failure}")

    return make


def driver_uuid(machine: Machine, index: str) -> str:
    found = text_string_to_metric_families(machine.once())
    return next(s.labels["uuid"] for f in found for s in f.samples if s.name == INFO and s.labels["gpu"] == index)


def twice(daemon: Daemon) -> list[object]:
    counted = Counter((s.name, *sorted(s.labels.items())) for s in daemon.samples())
    return [series for series, times in counted.items() if times > 1]


def test_beside_nvml_only_its_gaps_are_filled_and_nothing_is_shown_twice(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [{"power": 400, "errors": {"nvmlDeviceGetPowerUsage": "NOT_SUPPORTED"}}, {}]})
    page = PAGES["a100-profiling"].replace(A100, driver_uuid(simulated, "0")).replace(
        A100_IDLE, driver_uuid(simulated, "1")
    )  # fmt: skip
    with Server({"/metrics": response(page)}) as server:
        with simulated.daemon("--dcgm", server.url, "--dcgm-interval", "500ms") as daemon:
            source = "palegreen_gpu_family_source"
            used = "palegreen_gpu_memory_used_bytes"
            for gpu in ("0", "1"):
                until(lambda gpu=gpu: daemon.value(source, gpu=gpu, metric=used, source="nvml"), 10)
            assert daemon.value(used, gpu="0") != 69800 << 20
            assert daemon.value(POWER, gpu="0") == 311.5, "NVML does not give it for this one"
            assert daemon.value(POWER, gpu="1") != 55.125
            until(lambda: (daemon.value(SM, gpu="0") or 0) > 0, 10)
            assert not twice(daemon)
            assert daemon.value("palegreen_source_up", source="dcgm") == 1
        shown = simulated.once("--dcgm", server.url)
        assert f'metric="{used}",source="dcgm"' not in shown


def test_a_gpu_that_the_driver_lost_is_not_shown_from_the_exporters_page(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": 2})
    page = PAGES["a100-profiling"].replace(A100, driver_uuid(simulated, "0")).replace(
        A100_IDLE, driver_uuid(simulated, "1")
    )  # fmt: skip
    with (
        Server({"/metrics": response(page)}) as server,
        simulated.daemon("--dcgm", server.url, "--dcgm-interval", "500ms") as daemon,
    ):
        until(lambda: daemon.value("palegreen_gpu_family_source", gpu="0", metric=POWER, source="nvml"), 10)
        until(lambda: daemon.value(SM, gpu="0") is not None, 10)
        simulated.play({"gpus": [{"lost": True}, {}]})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="0") == 0, 15)
        until(lambda: daemon.value(SM, gpu="0") is None, 10)
        assert daemon.value(POWER, gpu="0") is None
        assert daemon.value(SM, gpu="1") is not None


def test_mig_instances_carry_the_uuid_that_nvml_knows(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [{"mig": [{"profile": "3g.40gb"}]}]})
    with simulated.daemon() as daemon:
        info = until(lambda: [s for s in daemon.samples() if s.name == "palegreen_gpu_mig_info"], 10)[0]
    page = PAGES["mig"].replace(A100, info.labels["uuid"]).replace(
        'GPU_I_ID="1"', f'GPU_I_ID="{info.labels["gpu_instance"]}"'
    )  # fmt: skip
    with (
        Server({"/metrics": response(page)}) as server,
        simulated.daemon("--dcgm", server.url, "--dcgm-interval", "500ms") as daemon,
    ):
        until(lambda: daemon.value(SM, mig=info.labels["mig"]), 10)
        assert daemon.value(SM, mig=f"{info.labels['uuid']}/9") is not None, "NVML does not know this instance"


@pytest.mark.parametrize("answer", [hang, response("<html></html>", "text/html")])
def test_an_exporter_that_is_none_is_down_with_one_line_and_disturbs_nothing(answer: Answer) -> None:
    with Server({"/metrics": answer}) as server, Daemon("--dcgm", server.url, "--dcgm-interval", "200ms") as daemon:
        until(lambda: (daemon.value("palegreen_source_errors_total", source="dcgm") or 0) >= 2, 20)
        assert daemon.value("palegreen_source_up", source="dcgm") == 0
        assert len(daemon.events("source.down")) == 1
        assert not [s for s in daemon.samples() if s.name.startswith(("palegreen_gpu_", "palegreen_dcgm_"))]


# The preflight.


def checked(url: str) -> dict[str, dict[str, Any]]:
    done = run("check", "--json", "--no-nvml", "--listen-address", "127.0.0.1:0", "--dcgm", url)
    return {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_check_names_the_exporters_gpus_its_names_and_its_profiling_fields() -> None:
    with Server({"/metrics": response(PAGES["new-names"])}) as server:
        found = checked(server.url)
    assert found["dcgm"]["ok"]
    assert found["dcgm"]["detail"].endswith("2 GPUs, names of DCGM 4.6")
    assert found["dcgm profiling"]["ok"]
    assert "not collected: sm_active_ratio" in found["dcgm profiling"]["detail"]


@pytest.mark.parametrize(
    ("page", "check", "detail", "fix"),
    [
        (PAGES["time-slicing"], "dcgm profiling", "no profiling field has a number", "SYS_ADMIN"),
        (PAGES["blanks"], "dcgm profiling", "sm_active_ratio of GPU 1", "resume"),
        ("", "dcgm", "empty page", "9400"),
        (PAGES["mig"] + 'DCGM_FI_DEV_GPU_TEMP{gpu="2",UUID="GPU-bad"} x\n', "dcgm", "GPU-bad refused", "mend"),
    ],
)
def test_check_says_what_is_amiss_with_the_exporter_and_what_to_do(
    page: str, check: str, detail: str, fix: str
) -> None:
    with Server({"/metrics": response(page)}) as server:
        finding = checked(server.url)[check]
    assert not finding["ok"]
    assert detail in finding["detail"]
    assert fix in finding["fix"]
