"""Ports of RDMA devices and network cards, read from sysfs.

Formats are those of the kernel's Documentation/ABI (stable/sysfs-class-infiniband, testing/sysfs-class-net and
testing/sysfs-class-net-statistics). A file that is not there, cannot be read, or holds no number gives no series.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import structlog

from palegreen.exporter.kernelfile import raw
from palegreen.exporter.network.counters import CARD_ERRORS, CONGESTION, RDMA_ERRORS
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()

_MOST_PORTS = 256
_LONGEST = 4096  # bytes; an attribute of sysfs is at most a page
_WORD = 4  # bytes: port_rcv_data and port_xmit_data count octets divided by four
_ETHERNET = 1  # ARPHRD_ETHER; an IPoIB interface (32) is another view of an RDMA port that is read already
_DOWN = frozenset({"down", "lowerlayerdown", "notpresent"})  # RFC 2863, as operstate spells it
_RATE = re.compile(r"(\d+(?:\.\d+)?) Gb/sec")


class NetworkSource:
    """Reads `sysfs` every `interval` seconds. A machine without such ports is a machine with nothing to show."""

    name = "network"
    target = ""
    deadline = 5.0

    def __init__(self, interval: float = 5.0, sysfs: Path = Path("/sys")) -> None:
        self.interval = interval
        self._sysfs = sysfs
        self._counts: dict[str, int] = {}
        self._over = False

    def collect(self) -> Readings:
        """Every port now; raises SourceError where a folder of devices cannot be listed."""
        collected = Collected()
        counts = {"RDMA": 0, "Ethernet": 0}
        left = _MOST_PORTS
        for kind, port in self._ports():
            if left == 0:
                self._say_once()
                break
            left -= 1
            counts[kind] += 1
            collected.include(_rdma(port) if kind == "RDMA" else _card(port))
        self._counts = counts
        return collected.readings()

    def close(self) -> None:
        """Nothing is held."""

    def describe(self) -> str:
        """How many ports of each kind there are."""
        return "network ports: " + (", ".join(f"{count} {kind}" for kind, count in self._counts.items()) or "not read")

    def _ports(self) -> Iterator[tuple[str, Path]]:
        for device in _listed(self._sysfs / "class" / "infiniband"):
            for port in _listed(device / "ports"):
                yield "RDMA", port
        for card in _listed(self._sysfs / "class" / "net"):
            # only hardware has a device: bridges, bonds and the pods' veth pairs, which come and go, have none
            if (card / "device").exists() and _number(card / "type") == _ETHERNET:
                yield "Ethernet", card

    def _say_once(self) -> None:
        if not self._over:
            self._over = True
            log.warning("network.too_many_ports", shown=_MOST_PORTS, effect="further ports are not read")


def _rdma(port: Path) -> Readings:
    layer = _text(port / "link_layer").lower()
    collected = Collected(port.parent.parent.name, port.name, "rdma", layer)
    state, physical = _state(port / "state"), _state(port / "phys_state")
    if state:
        collected.add("palegreen_network_port_info", 1, state, physical)
        collected.add("palegreen_network_port_up", state == "active")
    rate = _RATE.match(_text(port / "rate"))
    if rate and state == "active":  # a port that is down reports some default
        collected.add("palegreen_network_port_rate_bits_per_second", float(rate[1]) * 1e9)
    counters, hardware = port / "counters", port / "hw_counters"
    for metric, standard, own, unit in (
        ("palegreen_network_port_rx_bytes_total", "port_rcv_data", "rx_bytes", _WORD),
        ("palegreen_network_port_tx_bytes_total", "port_xmit_data", "tx_bytes", _WORD),
        ("palegreen_network_port_rx_packets_total", "port_rcv_packets", "rx_pkts", 1),
        ("palegreen_network_port_tx_packets_total", "port_xmit_packets", "tx_pkts", 1),
    ):
        value = _number(counters / standard)
        if value is not None:
            collected.add(metric, value * unit)
        elif (value := _number(hardware / own)) is not None:  # EFA has no standard counters
            collected.add(metric, value)
    _add(collected, "palegreen_network_port_tx_wait_ticks_total", counters / "port_xmit_wait")
    for folder, name in RDMA_ERRORS:
        _add(collected, "palegreen_network_port_errors_total", port / folder / name, name)
    for name in CONGESTION:
        _add(collected, "palegreen_network_port_congestion_events_total", hardware / name, name)
    return collected.readings()


def _card(card: Path) -> Readings:
    collected = Collected(card.name, "", "ethernet", "ethernet")
    state, carrier = _text(card / "operstate").lower(), _number(card / "carrier")
    if state:
        collected.add("palegreen_network_port_info", 1, state, "")
    if carrier is None and state in _DOWN:
        carrier = 0  # the kernel refuses to read the carrier of an interface that is switched off
    if carrier is not None:
        collected.add("palegreen_network_port_up", carrier == 1)
    speed = _number(card / "speed")  # Mbit/s; -1, or the same unsigned, where it is not known
    if speed is not None and 0 < speed < 2**32 - 1 and carrier == 1:
        collected.add("palegreen_network_port_rate_bits_per_second", speed * 1e6)
    _add(collected, "palegreen_network_port_carrier_changes_total", card / "carrier_changes")
    statistics = card / "statistics"
    for way in ("rx", "tx"):
        for what in ("bytes", "packets"):
            _add(collected, f"palegreen_network_port_{way}_{what}_total", statistics / f"{way}_{what}")
    for name in CARD_ERRORS:
        _add(collected, "palegreen_network_port_errors_total", statistics / name, name)
    return collected.readings()


def _add(collected: Collected, metric: str, path: Path, *labels: str) -> None:
    value = _number(path)
    if value is not None:
        collected.add(metric, value, *labels)


def _state(path: Path) -> str:
    """`active` of `4: ACTIVE`."""
    return _text(path).rpartition(":")[2].strip().lower()


def _number(path: Path) -> int | None:
    """A whole number that is not negative; a port without a performance agent says `N/A (no PMA)`."""
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _text(path: Path) -> str:
    """Content of an attribute, empty where the kernel does not give it to us."""
    try:
        return raw(path, _LONGEST).decode("ascii", "replace").strip()
    except OSError:  # drivers answer EINVAL, EIO or ENODEV for what they do not have now
        return ""


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as failure:
        raise SourceError(f"{folder} cannot be listed: {failure.strerror}") from None
