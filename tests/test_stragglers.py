"""Stragglers: one GPU of an engine's group below its siblings."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from palegreen.exporter.attribution.owners import Owner
from palegreen.exporter.nvml.usage import DeviceUse, ProcessUse
from palegreen.exporter.stragglers import StragglerSource
from palegreen.runtime.exposition import Exposition

OWNERS = {
    1: Owner("prod", "llama-0", "vllm"), 2: Owner("prod", "llama-0", "vllm"), 3: Owner("prod", "llama-0", "vllm"),
    4: Owner("prod", "other", "vllm"), 5: Owner(unit="triton.service"), 6: Owner(unit="triton.service"),
    7: Owner(), 8: None,
}  # fmt: skip
CLOCK = 1.98e9


def gpu(number: int, pid: int, clock: float = CLOCK, busy: float = 0.0, mig: str = "") -> DeviceUse:
    processes = (ProcessUse(pid, None, None),)
    return DeviceUse(f"GPU-{number}", str(number), mig, 0, 0, processes, busy_seconds=busy, sm_clock_hertz=clock)


class Node:
    """A source over GPUs and a clock that a test moves."""

    def __init__(self, devices: Sequence[DeviceUse]) -> None:
        self.devices, self.now = devices, 0.0
        self.source = StragglerSource(lambda: self.devices, OWNERS.__getitem__, lambda: self.now)

    def samples(self) -> list[Sample]:
        text = Exposition([self.source.collect()]).body().decode()
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def deficits(self, signal: str) -> dict[str, float]:
        return {s.labels["gpu"]: round(s.value, 6) for s in self.samples() if s.labels["signal"] == signal}


def test_a_gpu_whose_clock_is_below_its_siblings_has_a_deficit() -> None:
    node = Node([gpu(0, 1), gpu(1, 2, CLOCK / 2), gpu(2, 3)])
    assert node.deficits("sm_clock") == {"0": 0.0, "1": 0.5, "2": 0.0}
    assert {s.labels["pod"] for s in node.samples()} == {"llama-0"}


def test_only_gpus_of_one_container_or_unit_are_compared() -> None:
    node = Node([gpu(0, 1), gpu(1, 4, CLOCK / 2), gpu(2, 5), gpu(3, 6, CLOCK / 4), gpu(4, 7), gpu(5, 7), gpu(6, 8)])
    assert node.deficits("sm_clock") == {"2": 0.0, "3": 0.75}


def test_busy_time_is_compared_over_the_last_minute_once_half_of_it_was_seen() -> None:
    node = Node([gpu(0, 1), gpu(1, 2)])
    assert node.deficits("busy") == {}
    node.now, node.devices = 20.0, [gpu(0, 1, busy=16.0), gpu(1, 2, busy=4.0)]
    assert node.deficits("busy") == {}
    node.now, node.devices = 50.0, [gpu(0, 1, busy=40.0), gpu(1, 2, busy=10.0)]
    assert node.deficits("busy") == {"0": 0.0, "1": 0.75}
    node.now, node.devices = 100.0, [gpu(0, 1, busy=80.0), gpu(1, 2, busy=50.0)]
    assert node.deficits("busy") == {"0": 0.0, "1": 0.0}


def test_siblings_that_idle_say_nothing() -> None:
    node = Node([gpu(0, 1), gpu(1, 2)])
    node.deficits("busy")
    node.now = 50.0
    assert node.deficits("busy") == {}


def test_mig_devices_are_no_siblings() -> None:
    assert Node([gpu(0, 1, mig="MIG-a"), gpu(0, 2, mig="MIG-b")]).samples() == []
