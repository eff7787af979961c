"""Compile the simulated driver: the C files here, and NOT_SUPPORTED for every other function of NVML.

NVIDIA's header is not ours to copy: it is read from the installed nvidia-nvml-dev wheel.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

from palegreen.demo.driver.scenario import vocabulary

SONAME: Final = "libnvidia-ml.so.1"
SYMBOL: Final = "palegreen_simulated_driver"
"""An int that the library exports, by which a program knows that there is no GPU behind it."""

OLD_DRIVER: Final = frozenset(
    {
        "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetC2cModeInfoV",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetGpuFabricInfoV",
        "nvmlDeviceGetGpuInstanceProfileInfoV",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetJpgUtilization",
        "nvmlDeviceGetMPSComputeRunningProcesses",
        "nvmlDeviceGetMPSComputeRunningProcesses_v2",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        "nvmlDeviceGetMarginTemperature",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetNumFans",
        "nvmlDeviceGetOfaUtilization",
        "nvmlDeviceGetProcessesUtilizationInfo",
        "nvmlDeviceGetRemappedRows_v2",
        "nvmlDeviceGetRunningProcessDetailList",
        "nvmlDeviceGetSramEccErrorStatus",
        "nvmlDeviceGetSupportedClocksEventReasons",
        "nvmlDeviceGetTemperatureV",
        "nvmlGpmMetricsGet",
        "nvmlGpmMigSampleGet",
        "nvmlGpmQueryDeviceSupport",
        "nvmlGpmSampleAlloc",
        "nvmlGpmSampleFree",
        "nvmlGpmSampleGet",
        "nvmlSystemEventSetCreate",
        "nvmlSystemEventSetFree",
        "nvmlSystemEventSetWait",
        "nvmlSystemRegisterEvents",
    }
)
"""Functions that a driver of the R450 branch lacks."""

_HERE: Final = Path(__file__).parent
_NOT_SUPPORTED: Final = 3
_FLAGS: Final = [
    "-std=gnu11",
    "-O2",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-DNVML_NO_UNVERSIONED_FUNC_DEFS",
]


class BuildError(RuntimeError):
    """The library cannot be built; the message is one line that says what to install."""


def build(out_dir: Path, *, without: Collection[str] = ()) -> Path:
    """Build the library in a folder, without the functions that an older driver lacks; return its path.

    Costs nothing where the same inputs were built before, and may run in several processes at once.
    """
    header = _header()
    sources = sorted(_HERE.glob("*.c"))
    generated = {
        "stubs.c": _stubs(header.read_text()),
        "vocabulary.h": _vocabulary(),
        "exports.map": _exports(without),
    }
    inputs = [header, *sources, *sorted(_HERE.glob("*.h"))]
    digest = hashlib.sha256(
        b"\0".join([*(path.read_bytes() for path in inputs), *(text.encode() for text in generated.values())])
        + " ".join(_FLAGS).encode()
    ).hexdigest()
    library = out_dir / SONAME
    if library.exists() and digest.encode() in library.read_bytes():
        return library
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".build-") as name:
        scratch = Path(name)
        for file, text in generated.items():
            (scratch / file).write_text(text)
        _compile(
            *_FLAGS,
            f'-DDIGEST="{digest}"',
            f"-I{_HERE}",
            f"-I{scratch}",
            f"-isystem{header.parent}",
            f"-Wl,-soname,{SONAME}",
            f"-Wl,--version-script={scratch / 'exports.map'}",
            *(str(source) for source in sources),
            str(scratch / "stubs.c"),
            "-lm",
            "-lpthread",
            f"-o{scratch / SONAME}",
        )
        os.replace(scratch / SONAME, library)  # noqa: PTH105
    return library


def _header() -> Path:
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"].startswith("nvidia-nvml-dev"):
            for file in distribution.files or ():
                if file.name == "nvml.h":
                    return Path(str(distribution.locate_file(file)))
    raise BuildError("nvml.h not found: pip install nvidia-nvml-dev")


def _stubs(header: str) -> str:
    """Weak, so that what the C files define takes their place; without prototypes, so without the header."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.DOTALL)
    names = sorted(set(re.findall(r"\bDECLDIR\s+(?:char\s*\*\s*)?(nvml\w+)\s*\(", code)))
    return "".join(f"__attribute__((weak)) int {name}(void) {{ return {_NOT_SUPPORTED}; }}\n" for name in names)


def _vocabulary() -> str:
    signals, texts = vocabulary()
    lists = {"SIGNALS": signals, "TEXTS": texts}
    return "".join(f"#define {name}(X) {' '.join(f'X({word})' for word in words)}\n" for name, words in lists.items())


def _exports(without: Collection[str]) -> str:
    hidden = "".join(f" {name};" for name in sorted(without))
    return f"{{ global: nvml*; {SYMBOL}; local:{hidden} *; }};\n"


def _compile(*arguments: str) -> None:
    command = _compiler()
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"{command[0]} failed: {complaints[0] if complaints else done.returncode}")
    if done.stderr:
        print(done.stderr, file=sys.stderr)


def _compiler() -> list[str]:
    for name in ("cc", "gcc"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise BuildError("no C compiler: install gcc, or pip install ziglang")
