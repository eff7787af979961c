"""Ports of the node: RDMA devices and network cards as sysfs shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.daemon import Daemon
from support.waiting import until

from palegreen.exporter.network.source import NetworkSource
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Exposition

PORT = "palegreen_network_port_"


class Sysfs:
    """A sysfs tree of our own making, and what the source reads of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = NetworkSource(sysfs=root)

    def port(self, device: str, number: int = 1, **files: str) -> Path:
        """An RDMA port; `__` in a name stands for a slash."""
        return self._write(self.root / "class" / "infiniband" / device / "ports" / str(number), files)

    def card(self, name: str, *, hardware: bool = True, **files: str) -> Path:
        """A network interface, which has a device when it is hardware."""
        card = self._write(self.root / "class" / "net" / name, {"type": "1"} | files)
        if hardware:
            target = self.root / "devices" / name
            target.mkdir(parents=True, exist_ok=True)
            (card / "device").symlink_to(target)
        return card

    def samples(self) -> dict[tuple[str, str], float]:
        """Values by (name without its prefix, the label values that tell series apart)."""
        text = Exposition([self.source.collect()]).body().decode()
        return {
            (sample.name.removeprefix(PORT), " ".join(value for value in sample.labels.values() if value)): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    @staticmethod
    def _write(folder: Path, files: Mapping[str, str]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text + "\n")
        return folder


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


INFINIBAND = {
    "link_layer": "InfiniBand",
    "state": "4: ACTIVE",
    "phys_state": "5: LinkUp",
    "rate": "400 Gb/sec (4X NDR)",
    "counters__port_rcv_data": "1000",
    "counters__port_xmit_data": "18446744073709551615",
    "counters__port_rcv_packets": "7",
    "counters__port_xmit_packets": "8",
    "counters__symbol_error": "0",
    "counters__link_downed": "3",
    "counters__VL15_dropped": "1",
    "counters__port_xmit_wait": "99",
    "hw_counters__out_of_sequence": "12",
    "hw_counters__lifespan": "10",
}


def test_an_infiniband_port_gives_bytes_errors_rate_and_state(sysfs: Sysfs) -> None:
    sysfs.port("mlx5_0", **INFINIBAND)
    mlx = "mlx5_0 1 rdma infiniband"
    assert sysfs.samples() == {
        ("up", mlx): 1,
        ("info", f"{mlx} active linkup"): 1,
        ("rate_bits_per_second", mlx): 400e9,
        ("rx_bytes_total", mlx): 4000,
        ("tx_bytes_total", mlx): 4.0 * 18446744073709551615,
        ("rx_packets_total", mlx): 7,
        ("tx_packets_total", mlx): 8,
        ("tx_wait_ticks_total", mlx): 99,
        ("errors_total", f"{mlx} symbol_error"): 0,
        ("errors_total", f"{mlx} link_downed"): 3,
        ("errors_total", f"{mlx} VL15_dropped"): 1,
        ("errors_total", f"{mlx} out_of_sequence"): 12,
    }


def test_a_roce_port_gives_congestion_apart_from_errors(sysfs: Sysfs) -> None:
    sysfs.port(
        "mlx5_bond_0",
        link_layer="Ethernet",
        state="4: ACTIVE",
        rate="2.5 Gb/sec (1X SDR)",
        hw_counters__np_cnp_sent="5",
        hw_counters__rp_cnp_handled="6",
        hw_counters__roce_adp_retrans="7",
        hw_counters__packet_seq_err="8",
        hw_counters__local_ack_timeout_err="9",
    )
    samples, port = sysfs.samples(), "mlx5_bond_0 1 rdma ethernet"
    assert samples["rate_bits_per_second", port] == 2.5e9
    events = {key[1].split()[-1]: value for key, value in samples.items() if key[0] == "congestion_events_total"}
    errors = {key[1].split()[-1]: value for key, value in samples.items() if key[0] == "errors_total"}
    assert events == {"np_cnp_sent": 5, "rp_cnp_handled": 6, "roce_adp_retrans": 7}
    assert errors == {"packet_seq_err": 8, "local_ack_timeout_err": 9}


def test_an_efa_port_without_standard_counters_gives_its_drivers_bytes(sysfs: Sysfs) -> None:
    sysfs.port(
        "rdmap0s6",
        link_layer="Unknown",
        state="4: ACTIVE",
        hw_counters__rx_bytes="1001",
        hw_counters__tx_bytes="2002",
        hw_counters__rx_drops="1",
    )
    port = "rdmap0s6 1 rdma unknown"
    assert sysfs.samples() == {
        ("up", port): 1,
        ("info", f"{port} active"): 1,
        ("rx_bytes_total", port): 1001,
        ("tx_bytes_total", port): 2002,
        ("errors_total", f"{port} rx_drops"): 1,
    }


def test_an_efa_port_without_any_counter_gives_its_state_alone(sysfs: Sysfs) -> None:
    sysfs.port("efa_0", link_layer="Unknown", state="4: ACTIVE", phys_state="5: LinkUp")
    assert {name for name, _ in sysfs.samples()} == {"up", "info"}


def test_a_plain_card_gives_bytes_errors_rate_and_carrier(sysfs: Sysfs) -> None:
    sysfs.card(
        "eth0",
        operstate="up",
        carrier="1",
        speed="25000",
        carrier_changes="4",
        statistics__rx_bytes="10",
        statistics__tx_bytes="20",
        statistics__rx_packets="1",
        statistics__tx_packets="2",
        statistics__rx_errors="0",
        statistics__tx_dropped="5",
        statistics__collisions="6",
    )
    eth = "eth0 ethernet ethernet"
    assert sysfs.samples() == {
        ("up", eth): 1,
        ("info", f"{eth} up"): 1,
        ("rate_bits_per_second", eth): 25e9,
        ("carrier_changes_total", eth): 4,
        ("rx_bytes_total", eth): 10,
        ("tx_bytes_total", eth): 20,
        ("rx_packets_total", eth): 1,
        ("tx_packets_total", eth): 2,
        ("errors_total", f"{eth} rx_errors"): 0,
        ("errors_total", f"{eth} tx_dropped"): 5,
    }


def test_interfaces_that_are_no_hardware_or_another_view_of_an_rdma_port_are_left_out(sysfs: Sysfs) -> None:
    sysfs.card("veth12ab", hardware=False, operstate="up", statistics__rx_bytes="1")
    sysfs.card("bond0", hardware=False, operstate="up", statistics__rx_bytes="1")
    sysfs.card("ib0", type="32", operstate="up", statistics__rx_bytes="1")
    (sysfs.root / "class" / "net" / "bonding_masters").write_text("bond0\n")
    assert sysfs.samples() == {}


@pytest.mark.parametrize("speed", ["-1", "0", "4294967295", ""])
def test_a_card_whose_speed_is_not_known_has_no_rate(sysfs: Sysfs, speed: str) -> None:
    sysfs.card("eth0", operstate="up", carrier="1", speed=speed)
    assert {name for name, _ in sysfs.samples()} == {"up", "info"}


def test_a_card_that_is_switched_off_is_down_though_its_carrier_cannot_be_read(sysfs: Sysfs) -> None:
    sysfs.card("eth1", operstate="down", speed="10000")
    assert sysfs.samples() == {("up", "eth1 ethernet ethernet"): 0, ("info", "eth1 ethernet ethernet down"): 1}


def test_a_card_of_which_nothing_tells_the_carrier_is_neither_up_nor_down(sysfs: Sysfs) -> None:
    sysfs.card("eth1", operstate="unknown")
    assert [name for name, _ in sysfs.samples()] == ["info"]


def test_a_port_that_goes_down_says_so_and_loses_its_rate_but_no_count(sysfs: Sysfs) -> None:
    port = sysfs.port("mlx5_0", **INFINIBAND)
    before = sysfs.samples()
    (port / "state").write_text("1: DOWN\n")
    (port / "phys_state").write_text("2: Polling\n")
    (port / "rate").write_text("10 Gb/sec (4X SDR)\n")
    (port / "counters" / "link_downed").write_text("4\n")
    after, mlx = sysfs.samples(), "mlx5_0 1 rdma infiniband"
    assert after["up", mlx] == 0
    assert after["errors_total", f"{mlx} link_downed"] == 4
    assert ("info", f"{mlx} down polling") in after
    assert set(before) - set(after) == {("rate_bits_per_second", mlx), ("info", f"{mlx} active linkup")}


@pytest.mark.parametrize("text", ["N/A (no PMA)", "", "-5", "1.5", "\xb2", "9" * 400])
def test_a_counter_that_is_no_number_is_absent(sysfs: Sysfs, text: str) -> None:
    port = sysfs.port("mlx5_0", **INFINIBAND)
    (port / "counters" / "port_rcv_data").write_text(text)
    assert not [key for key in sysfs.samples() if key[0] == "rx_bytes_total"]
    assert [key for key in sysfs.samples() if key[0] == "tx_bytes_total"]


def test_a_file_that_cannot_be_read_costs_its_series_alone(sysfs: Sysfs) -> None:
    port = sysfs.port("mlx5_0", **INFINIBAND)
    whole = set(sysfs.samples())
    counter = port / "counters" / "symbol_error"
    counter.unlink()
    counter.mkdir()  # reading it fails, for root as well
    assert whole - set(sysfs.samples()) == {("errors_total", "mlx5_0 1 rdma infiniband symbol_error")}


def test_a_fifo_in_the_place_of_a_counter_holds_nothing_up(sysfs: Sysfs) -> None:
    port = sysfs.port("mlx5_0", **INFINIBAND)
    (port / "counters" / "symbol_error").unlink()
    os.mkfifo(port / "counters" / "symbol_error")
    assert ("up", "mlx5_0 1 rdma infiniband") in sysfs.samples()


def test_a_device_that_leaves_takes_its_series_along(sysfs: Sysfs) -> None:
    port = sysfs.port("mlx5_0", **INFINIBAND)
    sysfs.port("mlx5_1", 2, **INFINIBAND)
    port.rename(sysfs.root / "gone")
    assert {labels.split()[0] for _, labels in sysfs.samples()} == {"mlx5_1"}


def test_a_machine_without_ports_is_up_and_empty(sysfs: Sysfs) -> None:
    assert sysfs.samples() == {}
    assert sysfs.source.describe() == "network ports: 0 RDMA, 0 Ethernet"


def test_no_more_ports_are_shown_than_a_machine_can_have(sysfs: Sysfs) -> None:
    for number in range(300):
        sysfs.port("mlx5_0", number, link_layer="InfiniBand", state="4: ACTIVE")
    assert len([name for name, _ in sysfs.samples() if name == "up"]) == 256


def test_a_folder_of_devices_that_cannot_be_listed_fails_the_source_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "net").symlink_to(tmp_path / "class" / "net")  # a loop
    with pytest.raises(SourceError, match=f"{tmp_path}/class/net cannot be listed: Too many levels"):
        NetworkSource(sysfs=tmp_path).collect()


def test_this_machines_own_sysfs_is_read() -> None:
    """Each interface with a device, by the kernel's own word, is there with the kernel's counters."""
    cards = {
        path.name
        for path in Path("/sys/class/net").iterdir()
        if (path / "device").exists() and (path / "type").read_text() == "1\n"
    }
    before = {name: int(Path(f"/sys/class/net/{name}/statistics/rx_bytes").read_text()) for name in cards}
    text = Exposition([NetworkSource().collect()]).body().decode()
    found = {
        sample.labels["device"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"{PORT}rx_bytes_total" and sample.labels["kind"] == "ethernet"
    }
    assert set(found) == cards
    assert all(found[name] >= count for name, count in before.items())


def test_the_daemon_shows_the_ports_and_can_be_told_not_to(tmp_path: Path) -> None:
    Sysfs(tmp_path / "sys").card("eth0", operstate="up", carrier="1")
    with Daemon("--network", "--host-root", str(tmp_path)) as daemon:
        until(lambda: daemon.value(f"{PORT}up", device="eth0") == 1)
        assert daemon.value("palegreen_source_up", source="network") == 1
    with Daemon("--no-network", "--host-root", str(tmp_path)) as daemon:
        until(lambda: daemon.value("palegreen_build_info") == 1)
        assert daemon.value("palegreen_source_up", source="network") is None
