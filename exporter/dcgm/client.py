"""A typed client of NVIDIA's dcgm-exporter: its page as one record per GPU or MIG instance, in base units.

Usable on its own:

    reading = DcgmExporter("http://localhost:9400").read()
    for gpu in reading.gpus:
        print(gpu.uuid, gpu.power_watts, gpu.sm_active_ratio)

Names before and since DCGM 4.6 give the same record. TYPE lines are not believed: they repeat what the exporter's
counters file claims, and that calls the NVLink rate a counter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from palegreen.catalogue.dcgm import WHOLE, Field, Fields, Native, fields
from palegreen.exporter.engines.fetch import Fetched, Fetcher, FetchError
from palegreen.exporter.engines.page import Page, PageError, PageParser, Row, decoded

_UUID = re.compile(r'[{,]\s*(?:UUID|gpu_uuid|uuid)="([^"\\]+)"')
_WORD = re.compile(r"[^\s{]+")
_NUMBER = re.compile(r".*\}\s*(\S+)(?:\s+-?\d+)?\s*$")  # of a line, before a timestamp
_MOST_GPUS = 256  # of one page, which is one node's


class DcgmError(Exception):
    """There is nothing to read at the address, or nothing to believe; the message is one line."""


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """Who uses the GPU by the exporter's own labels; with time-slicing each of several pods is named."""

    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU, or one MIG instance (`gpu_instance` is its id), as DCGM saw it at its last collection.

    Numbers are in base units: bytes, seconds, watts, joules, hertz, degrees Celsius, ratios from 0 to 1. None is
    absent: not collected, not supported, or blank; `blank` holds the names of those that were given without a number.
    A number that DCGM has of the whole GPU only is None on MIG instances.
    """

    uuid: str
    gpu: str
    gpu_instance: str = ""
    mig_profile: str = ""
    pci_bus_id: str = ""
    model: str = ""
    hostname: str = ""
    driver_version: str = ""
    workloads: tuple[Workload, ...] = ()
    blank: frozenset[str] = frozenset()

    memory_total_bytes: float | None = None
    memory_used_bytes: float | None = None
    memory_free_bytes: float | None = None
    memory_reserved_bytes: float | None = None

    utilization_ratio: float | None = None
    """Share of the time in which any kernel was resident; says nothing of how full the GPU was."""
    memory_controller_utilization_ratio: float | None = None
    """Share of the time in which memory was read or written; DCGM calls it MEM_COPY_UTIL. Not how full memory is."""
    encoder_utilization_ratio: float | None = None
    decoder_utilization_ratio: float | None = None

    graphics_engine_active_ratio: float | None = None
    sm_active_ratio: float | None = None
    sm_occupancy_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_active_ratio: float | None = None

    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    """Counter since the driver was loaded."""
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    video_clock_hertz: float | None = None

    correctable_remapped_rows: float | None = None
    uncorrectable_remapped_rows: float | None = None
    row_remap_pending: float | None = None
    row_remap_failure: float | None = None
    corrected_ecc_errors: float | None = None
    uncorrected_ecc_errors: float | None = None
    pcie_replays: float | None = None
    last_xid: float | None = None
    """Code of the last XID, 0 without any. It never clears and repeats do not show: do not count with it."""

    pcie_tx_bytes_per_second: float | None = None
    pcie_rx_bytes_per_second: float | None = None
    nvlink_tx_bytes_per_second: float | None = None
    nvlink_rx_bytes_per_second: float | None = None
    nvlink_bandwidth_bytes_per_second: float | None = None
    """Both directions and all links together."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One page. `refused` are GPUs whose rows cannot be believed, by UUID, with the reason in one line.

    `naming` says which names the page has, by the version of DCGM that brought the newest: "before 4.6", "4.6", "4.7",
    "mixed" (new names beside old ones that they replace), or empty where no name tells.
    """

    gpus: tuple[GpuSample, ...]
    refused: dict[str, str]
    naming: str


class DcgmExporter:
    """The exporter at `url`; without a path its page is /metrics. `deadline` in seconds, `limit` in bytes."""

    def __init__(self, url: str, deadline: float = 5.0, limit: int = 8 << 20, known: Fields | None = None) -> None:
        self.url = url
        self.deadline = deadline
        self._fetcher = Fetcher(url, deadline, limit)
        parts = urlsplit(url)
        path = parts.path if parts.path not in ("", "/") else "/metrics"
        self._path = path + (f"?{parts.query}" if parts.query else "")
        self._fields = known or fields()
        self._natives = self._fields.natives
        self._spelled = tuple(name.removesuffix(WHOLE) for name in self._natives if name.endswith(WHOLE))
        self._header = "".join(f"# TYPE {name} untyped\n" for name in self._natives)
        self._parsers: dict[str, PageParser] = {}

    def read(self) -> Reading:
        """Fetch and parse the page; raises DcgmError when all of it must be refused."""
        try:
            lines = _lines(self._fetcher.get(self._path))
        except (FetchError, PageError) as failure:
            raise DcgmError(f"{self.url}: {failure}") from None
        by_gpu = self._by_gpu(lines)
        if not by_gpu:
            raise DcgmError(f"{self.url}: no GPU of DCGM's among {len(lines)} lines; is this a dcgm-exporter?")
        if len(by_gpu) > _MOST_GPUS:
            raise DcgmError(f"{self.url}: over {_MOST_GPUS} GPUs; give the dcgm-exporter of this node")
        self._parsers = {
            uuid: self._parsers.get(uuid) or PageParser(self._natives.__contains__, lambda _name: True)
            for uuid in by_gpu
        }
        exported = any(f'exported_{label}="' in line for label in self._fields.workload for line in lines)
        gpus: list[GpuSample] = []
        refused: dict[str, str] = {}
        names: set[str] = set()
        for uuid, listed in by_gpu.items():
            try:
                page = self._parsers[uuid].parse(self._header + "\n".join(listed) + "\n")
            except PageError as failure:
                refused[uuid] = str(failure).partition(": ")[2] or str(failure)  # the number of its line means nothing
                continue
            names |= page.rows.keys()
            gpus += self._samples(uuid, page, exported)
        if not gpus:
            uuid, cause = next(iter(refused.items()))
            raise DcgmError(f"{self.url}: no GPU's rows can be believed; of {uuid}: {cause}")
        return Reading(tuple(gpus), refused, self._naming(names))

    def _by_gpu(self, lines: Sequence[str]) -> dict[str, list[str]]:
        """Lines of known fields by the UUID they carry: one GPU's rows that are broken must not cost the others.

        What carries none is of a switch, a CPU or the exporter itself; `nvlink` rows are of single links.
        """
        found: dict[str, list[str]] = {}
        for line in lines:
            word = _WORD.match(line)
            if word is None or word[0] not in self._natives or 'nvlink="' in line:
                continue
            uuid = _UUID.search(line)
            if uuid is not None:
                found.setdefault(uuid[1], []).append(self._spelled_out(word[0], line))
        return found

    def _spelled_out(self, name: str, line: str) -> str:
        """The line so that nothing is lost in parsing: that NaN was there, and a unit that only the spelling tells."""
        number = _NUMBER.match(line)
        if number is None:
            return line
        if number[1].lower() == "nan":
            return f"{line[: number.start(1)]}+Inf"
        if name in self._spelled and number[1].isdigit():
            return name + WHOLE + line[len(name) :]
        return line

    def _samples(self, uuid: str, page: Page, exported: bool) -> Iterator[GpuSample]:
        """The GPU first, then its MIG instances."""
        drafts: dict[str, _Draft] = {}
        for name, native in self._natives.items():
            known = self._fields.fields[native.field]
            for row in page.rows.get(name, ()):
                instance = self._told(row, "gpu_instance")
                owner = instance if known.scope == "instance" else ""
                for each in {instance, owner}:
                    if each not in drafts:
                        drafts[each] = self._draft(uuid, each, row)
                drafts[instance].workloads |= _workloads(row, self._fields.workload, exported)
                drafts[owner].take(native.field, self._number(known, native, row))
        for instance in sorted(drafts):
            yield drafts[instance].sample()

    def _draft(self, uuid: str, instance: str, row: Row) -> _Draft:
        about = {key: self._told(row, key) for key in self._fields.labels}
        about |= {"uuid": uuid, "gpu_instance": instance}
        if not instance:
            about["mig_profile"] = ""
        return _Draft(about)

    def _told(self, row: Row, key: str) -> str:
        return next((value for label in self._fields.labels[key] if (value := row.labels.get(label, ""))), "")

    def _number(self, known: Field, native: Native, row: Row) -> float | None:
        """The number in base units, None where it is blank or cannot be."""
        number = row.value
        if not isinstance(number, float) or not isfinite(number) or number in self._fields.blanks:
            return None
        if (number < 0 and not known.below_zero) or (number == 0 and known.zero == "absent"):
            return None
        value = native.in_base_units(number)
        return None if known.ratio and value > 1 else value

    def _naming(self, names: set[str]) -> str:
        """By what tells: the first names of fields that were renamed, and all later ones."""
        told = [self._natives[name] for name in names]
        newest = max((native.since for native in told), default="")
        old = any(not native.since and self._fields.fields[native.field].renamed for native in told)
        return "mixed" if old and newest else newest or ("before 4.6" if old else "")


@dataclass(slots=True)
class _Draft:
    """What is known so far of one GPU or MIG instance; of a field that has several rows the first number counts."""

    about: dict[str, str]
    numbers: dict[str, float] = field(default_factory=dict)
    blank: set[str] = field(default_factory=set)
    workloads: set[Workload] = field(default_factory=set)

    def take(self, name: str, number: float | None) -> None:
        if number is None:
            self.blank.add(name)
        else:
            self.numbers.setdefault(name, number)

    def sample(self) -> GpuSample:
        given: dict[str, Any] = self.about | self.numbers
        blank = frozenset(self.blank - self.numbers.keys())
        return GpuSample(**given, workloads=tuple(sorted(self.workloads)), blank=blank)


def _lines(fetched: Fetched) -> list[str]:
    """Lines of a metrics page, each with its end. Raises PageError for what is no such page, or not all of it."""
    if fetched.html:
        raise PageError("an HTML page, not metrics")
    text = decoded(fetched.body)
    if not text.strip():
        raise PageError("empty page: dcgm-exporter has no GPU, or could not collect")
    if not text.endswith("\n"):
        raise PageError("cut short: the last line does not end with a line feed")
    return text.split("\n")[:-1]


def _workloads(row: Row, labels: Sequence[str], exported: bool) -> set[Workload]:
    prefix = "exported_" if exported else ""
    namespace, pod, container = (row.labels.get(prefix + label, "") for label in labels)
    return {Workload(namespace, pod, container)} if pod else set()
