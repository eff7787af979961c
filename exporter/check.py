"""Preflight: does this node have what the daemon needs? One finding a line, each ok or with what to do."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar, cast

import pynvml as nvml

from palegreen.exporter.attribution.owners import Owners
from palegreen.exporter.attribution.stalls import Stalled
from palegreen.exporter.attribution.survey import survey
from palegreen.exporter.config import EngineConfig, NodeConfig
from palegreen.exporter.dcgm.client import DcgmError, DcgmExporter, Reading
from palegreen.exporter.dcgm.judge import PROFILING
from palegreen.exporter.engines.mapping import Mapper
from palegreen.exporter.kubelet.client import KubeletError
from palegreen.exporter.kubelet.source import SOCKET, KubeletSource, present
from palegreen.exporter.node import engine_source, mappings
from palegreen.exporter.nvml.binding import DriverError, Library
from palegreen.exporter.source import SourceError
from palegreen.runtime.web import ListenError, WebServer, parse_address
from palegreen.runtime.yamlfile import ConfigError

T = TypeVar("T")

_PATIENCE = 5.0  # seconds for a driver call; without persistence mode the first takes about two
_STUCK = "look at the kernel log (dmesg | grep -i -e nvrm -e xid); a stuck driver needs a reset of the GPU or a reboot"
_KERNEL_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is as it should be, what was seen, what to do."""

    check: str
    ok: bool
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def findings(config: NodeConfig, kernel_driver: Path = _KERNEL_DRIVER) -> Iterator[Finding]:
    """Every finding, as it is found: a driver that hangs must not hide what was found before."""
    yield Finding("python", True, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _listening(config)
    if config.nvml:
        yield from _driver(config, kernel_driver)
    else:
        yield Finding("driver", True, "not read: nvml is off")
    if config.kubelet:
        yield _kubelet(config.kubelet_socket)
    if config.nvml and config.attribution:
        yield from _attribution(config)
    if config.dcgm is not None:
        yield from _dcgm(config.dcgm)
    if config.engines:
        for engine in config.engines:
            yield _engine(config, engine)
    else:
        yield Finding("engines", False, "no engine is configured", "give --engine http://HOST:PORT, once per server")


def _listening(config: NodeConfig) -> Finding:
    try:
        host, port = parse_address(config.listen_address)
        server = WebServer(lambda *_: _nobody(), host, port, config.web_config_file)
    except ListenError as refused:
        fix = "stop what listens there (maybe the daemon already runs) or choose another --listen-address"
        return Finding("listen", False, str(refused), fix)
    except ConfigError as refused:
        return Finding("web config", False, str(refused), "mend the file given with --web.config.file")
    server.close()
    scheme = "https" if server.tls else "http"
    return Finding("listen", True, f"{scheme} on {config.listen_address} is free")


async def _nobody() -> None:
    """The server of the check is never asked."""


def _driver(config: NodeConfig, kernel_driver: Path) -> Iterator[Finding]:
    library = Library(config.nvml_library)
    try:
        _within(_PATIENCE, library.start)
    except TimeoutError:
        yield Finding("driver", False, f"the driver does not answer within {_PATIENCE:g} s", _STUCK)
        return
    except DriverError as refused:
        yield Finding("driver", False, str(refused), _driver_fix(refused, kernel_driver))
        return
    simulated = ", simulated" if library.simulated else ""
    yield Finding("driver", True, f"driver {library.driver_version}, CUDA {library.cuda_version}{simulated}")
    kernel = _kernel_version(kernel_driver)
    if kernel and not library.simulated:
        same = kernel == library.driver_version
        fix = "" if same else "reload the kernel module or reboot: library and kernel driver were upgraded apart"
        yield Finding("driver match", same, f"library {library.driver_version}, kernel driver {kernel}", fix)
    try:
        count = _within(_PATIENCE, library.count)
        names = [_gpu(index) for index in range(count)]
    except (DriverError, TimeoutError) as refused:
        yield Finding("gpus", False, str(refused) or "the driver does not answer", _STUCK)
        return
    dead = [index for index, name in enumerate(names) if name is None]
    if count == 0:
        yield Finding("gpus", False, "the driver lists no GPU", "give the pod a GPU or the NVIDIA runtime class")
    elif dead:
        which = ", ".join(map(str, dead))
        yield Finding("gpus", False, f"{count} GPUs; {which} not answering", "reset them or drain the node")
    else:
        kinds = ", ".join(sorted({name for name in names if name}))
        yield Finding("gpus", True, f"{count} GPUs: {kinds}")


def _kubelet(path: Path) -> Finding:
    if path == SOCKET and not present(path):
        return Finding("kubelet", True, f"no {path.parent}: not a node of Kubernetes, or not mounted into this pod")
    source = KubeletSource(path, patience=_PATIENCE)
    try:
        source.collect()
    except KubeletError as refused:
        return Finding("kubelet", False, refused.detail, refused.fix)
    finally:
        source.close()
    return Finding("kubelet", True, source.describe())


def _driver_fix(refused: DriverError, kernel_driver: Path) -> str:
    if refused.mismatch:
        kernel = _kernel_version(kernel_driver)
        loaded = f" (loaded: {kernel})" if kernel else ""
        return f"reload the kernel module or reboot the node{loaded}; until then every GPU program fails to start"
    if kernel_driver.exists():
        return "mount the driver's libraries (NVIDIA container runtime), or give --nvml-library PATH"
    return "install the NVIDIA driver, or give --no-nvml on a node without GPUs"


def _kernel_version(path: Path) -> str:
    """Version from the driver's own file, e.g. `NVRM version: NVIDIA UNIX ... Module  550.54.15  Tue ...`."""
    try:
        words = path.read_text(encoding="utf-8").splitlines()[0].split()
    except (OSError, IndexError):
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "")


def _gpu(index: int) -> str | None:
    try:
        return _within(_PATIENCE, lambda: str(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(index))))
    except (nvml.NVMLError, TimeoutError):
        return None


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What the call returns or raises; TimeoutError when it hangs, and the thread in it is left behind."""
    outcome: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except Exception as failure:  # noqa: BLE001 - it is raised where it is waited for
            outcome.put((None, failure))

    Thread(target=run, daemon=True).start()
    try:
        result, failure = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if failure is not None:
        raise failure
    return cast(T, result)


def _attribution(config: NodeConfig) -> Iterator[Finding]:
    """Whether the owners of GPU processes can be told: their processes, names and cgroups are to be seen."""
    proc, logs, cgroups = (config.host_root / folder for folder in ("proc", "var/log", "sys/fs/cgroup"))
    owners = Owners(proc, logs)
    try:
        seen = survey(proc, owners, Stalled(cgroups))
    except OSError as failure:
        fix = f"mount the host's /proc at {proc}, or give --host-root"
        yield Finding("processes", False, f"{proc}: {failure.strerror}", fix)
        return
    detail = f"{seen.processes} processes in {proc}"
    if seen.own_namespace:
        fix = "set hostPID: true (Docker: --pid=host), else GPU processes are not to be seen; or give --no-attribution"
        yield Finding("processes", False, f"{detail}, which shows one pid namespace and not the node", fix)
    elif seen.hidden or seen.unreadable:
        which = "those of other users are hidden" if seen.hidden else f"{seen.unreadable} not readable"
        fix = "mount /proc without hidepid, or give this user its group (mount option gid=)"
        yield Finding("processes", False, f"{detail}, {which}", fix)
    else:
        yield Finding("processes", True, f"{detail}, all readable")
    if seen.nameless:
        why = f" ({owners.trouble})" if owners.trouble else ""
        fix = f"mount the host's /var/log/containers and /var/log/pods, read-only, below {logs}"
        yield Finding("pod names", False, f"{seen.nameless} of {seen.pods} pods have no name{why}", fix)
    else:
        yield Finding("pod names", True, f"{seen.pods} pods, all named" if seen.pods else "no pods on this node")
    if seen.unseen:
        fix = f"mount the host's /sys/fs/cgroup, read-only, at {cgroups}; without it pressure and throttling are absent"
        yield Finding("cgroups", False, f"{seen.unseen} of {seen.containers} containers are not in {cgroups}", fix)
    else:
        detail = f"{seen.containers} containers, all in {cgroups}" if seen.containers else "no containers on this node"
        yield Finding("cgroups", True, detail)


def _dcgm(url: str) -> Iterator[Finding]:
    try:
        reading = DcgmExporter(url).read()
    except DcgmError as refused:
        fix = "give the address of this node's dcgm-exporter (port 9400), and see in its log whether it collects"
        yield Finding("dcgm", False, str(refused), fix)
        return
    count = len({gpu.uuid for gpu in reading.gpus})
    named = f", names of DCGM {reading.naming}" if reading.naming else ""
    fix = "mend what makes the exporter write these rows" if reading.refused else ""
    broken = "".join(f"; {uuid} refused: {cause}" for uuid, cause in reading.refused.items())
    yield Finding("dcgm", not reading.refused, f"{url}: {count} GPUs{named}{broken}", fix)
    yield _profiling(reading)


def _profiling(reading: Reading) -> Finding:
    """Whether each GPU, or its MIG instances, has every profiling field that is on the page."""
    parted = {gpu.uuid for gpu in reading.gpus if gpu.gpu_instance}
    judged = [gpu for gpu in reading.gpus if gpu.gpu_instance or gpu.uuid not in parted]
    given = [key for key in PROFILING if any(getattr(gpu, key) is not None for gpu in judged)]
    if not given:
        fix = (
            "before Hopper nothing else tells SM, tensor and memory activity: name the DCGM_FI_PROF_* fields in the "
            "exporter's counters file, give it SYS_ADMIN, and end other profilers (dcgmi profile --resume)"
        )
        return Finding("dcgm profiling", False, "no profiling field has a number", fix)
    blank = [
        f"{key} of GPU {'/'.join(filter(None, (gpu.gpu, gpu.gpu_instance)))}"
        for gpu in judged
        for key in PROFILING
        if getattr(gpu, key) is None and (key in given or key in gpu.blank)
    ]
    if blank:
        fix = "end what else profiles there (dcgmi profile --resume), then restart dcgm-exporter"
        return Finding("dcgm profiling", False, f"no number for {', '.join(blank)}", fix)
    missing = [key for key in PROFILING if key not in given]
    without = f"; not collected: {', '.join(missing)}" if missing else ""
    return Finding("dcgm profiling", True, f"{', '.join(given)}{without}")


def _engine(config: NodeConfig, engine: EngineConfig) -> Finding:
    name = f"engine {engine.url}"
    try:
        known = mappings(config.engine_mappings)
        source = engine_source(config, engine, Mapper(known), known)
        source.collect()
    except ConfigError as refused:
        return Finding(name, False, str(refused), "mend the configuration")
    except SourceError as refused:
        return Finding(name, False, str(refused), _engine_fix(str(refused)))
    return Finding(name, True, source.describe().partition("(")[2].rstrip(")"))


def _engine_fix(cause: str) -> str:
    if "refused" in cause or "not known" in cause:
        return "is the server running, and is the address right as seen from here?"
    if "HTTP 501" in cause:
        return "llama.cpp: start the server with --metrics"
    if "HTTP 404" in cause:
        return "switch its metrics on (SGLang: --enable-metrics), or give the full path of its metrics page"
    if "HTTP 401" in cause or "HTTP 403" in cause:
        return "give the engine a bearer_token_file in the configuration"
    return "open the address and see what it serves"
