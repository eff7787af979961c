"""dcgm-exporter as a source: it fills what NVML does not give, GPU by GPU and family by family."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import structlog

from palegreen.catalogue.dcgm import fields
from palegreen.exporter.dcgm.client import DcgmError, DcgmExporter, GpuSample, Reading
from palegreen.exporter.dcgm.judge import PROFILING, Frozen, Shares, Silent
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()

_GAP = 3  # intervals over which a ratio may hold
_INFO = "palegreen_gpu_info"
_MIG_INFO = "palegreen_gpu_mig_info"
_OWN = "palegreen_dcgm_"

Family = tuple[str, str, str]  # UUID, index of the GPU, metric


class DcgmSource:
    """The dcgm-exporter of the node, read every `interval` seconds.

    `provides(metric, uuid)` says whether NVML publishes the metric for the GPU now; `mig_device(uuid, gpu_instance)`
    gives the UUID of the MIG device, empty where it is not known. `clock` counts seconds.
    """

    name = "dcgm"
    target = ""

    def __init__(
        self,
        exporter: DcgmExporter,
        interval: float,
        provides: Callable[[str, str], bool],
        mig_device: Callable[[str, str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = interval
        self.deadline = exporter.deadline + 2
        self._exporter = exporter
        self._provides = provides
        self._mig_device = mig_device
        self._clock = clock
        self._shares = Shares(interval * _GAP)
        self._frozen = Frozen()
        self._silent = Silent()
        self._met: set[str] = set()
        self._refused: dict[str, str] = {}
        self._found = "nothing read yet"

    def collect(self) -> Readings:
        """Read the page once; raises SourceError where there is nothing to believe."""
        try:
            reading = self._exporter.read()
        except DcgmError as failure:
            self._found = "not read"
            raise SourceError(str(failure)) from None
        self._found = f"{len({gpu.uuid for gpu in reading.gpus})} GPUs"
        self._log_refused(reading.refused)
        return self._published(reading, self._clock()).readings(fills_gaps=True)

    def close(self) -> None:
        """Nothing is held between readings."""

    def describe(self) -> str:
        """The address, and how many GPUs it tells of."""
        return f"{self._exporter.url} ({self._found})"

    def _published(self, reading: Reading, now: float) -> Collected:
        whole = Collected()
        whole.add("palegreen_dcgm_exporter_info", 1, reading.naming)
        whole.add("palegreen_dcgm_gpus_refused", len(reading.refused))
        frozen, silent = self._frozen.judged(now, reading.gpus), self._silent.judged(reading.gpus)
        for gpu in reading.gpus:
            if gpu.uuid in frozen and not gpu.gpu_instance:
                whole.add("palegreen_dcgm_frozen", frozen[gpu.uuid], gpu.uuid, gpu.gpu)
        believed = [gpu for gpu in reading.gpus if not frozen.get(gpu.uuid, False) and not self._lost(gpu.uuid)]
        taken: dict[Family, bool] = {}
        for gpu in believed:
            numbers = self._numbers(gpu, PROFILING if gpu.uuid in silent else ())
            part = Collected(gpu.uuid, gpu.gpu, self._mig(gpu))
            for metric, number, labels, key in numbers:
                if not metric.startswith(_OWN):
                    family = (gpu.uuid, gpu.gpu, metric)
                    if family not in taken:
                        taken[family] = not self._provides(metric, gpu.uuid)
                    if not taken[family]:
                        continue
                if key in PROFILING:
                    number = self._shares.add((gpu.uuid, gpu.gpu_instance, key), number, now)
                part.add(metric, number, *labels)
            whole.include(part.readings())
        for family, from_dcgm in taken.items():
            whole.add("palegreen_gpu_family_source", 1, *family, "dcgm" if from_dcgm else "nvml")
        self._blanks(whole, believed, silent)
        self._shares.forget(now)
        return whole

    def _numbers(self, gpu: GpuSample, without: tuple[str, ...]) -> Iterator[tuple[str, float, tuple[str, ...], str]]:
        """Metric, number, its own labels, and the field it comes from."""
        if gpu.gpu_instance:
            yield _MIG_INFO, 1, (gpu.mig_profile, gpu.gpu_instance, ""), ""
        else:
            yield _INFO, 1, (gpu.model, gpu.pci_bus_id, gpu.driver_version, "", "", ""), ""
        for key, field in fields().fields.items():
            number: float | None = getattr(gpu, key)
            if field.metric and number is not None and key not in without:
                yield field.metric, number, field.labels, key

    def _blanks(self, whole: Collected, gpus: list[GpuSample], silent: set[str]) -> None:
        """Of profiling fields that are on the page at all, which have no number where there should be one."""
        on_page = [key for key in PROFILING if any(getattr(gpu, key) is not None or key in gpu.blank for gpu in gpus)]
        parted = {gpu.uuid for gpu in gpus if gpu.gpu_instance}
        for gpu in gpus:
            if gpu.uuid in parted and not gpu.gpu_instance:
                continue  # its instances have the numbers
            for key in on_page:
                blank = getattr(gpu, key) is None or gpu.uuid in silent
                whole.add("palegreen_dcgm_field_blank", blank, gpu.uuid, gpu.gpu, self._mig(gpu), key)

    def _mig(self, gpu: GpuSample) -> str:
        """The label mig: DCGM knows GPU instances by their number within the GPU, never by a UUID."""
        if not gpu.gpu_instance:
            return ""
        return self._mig_device(gpu.uuid, gpu.gpu_instance) or f"{gpu.uuid}/{gpu.gpu_instance}"

    def _lost(self, uuid: str) -> bool:
        """Whether NVML had the GPU and has it no more: then the page repeats old numbers, or hangs next."""
        if self._provides(_INFO, uuid):
            self._met.add(uuid)
            return False
        return uuid in self._met

    def _log_refused(self, refused: dict[str, str]) -> None:
        for uuid, cause in refused.items():
            if uuid not in self._refused:
                log.warning("dcgm.gpu_refused", uuid=uuid, cause=cause, effect="nothing of it is shown")
        self._refused = refused
