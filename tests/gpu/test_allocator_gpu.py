"""The allocator probe with a real GPU and PyTorch's real caching allocator: `make test-gpu`.

With --update-goldens what the allocator gave is kept in tests/captures/allocator-gpu/.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.serving import Serving
from support.waiting import until

from palegreen.exporter.allocator.files import Files
from palegreen.exporter.allocator.record import Device

CAPTURES = Path(__file__).parent.parent / "captures" / "allocator-gpu"
_LOOK = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
_PROGRAM = """\
import json, torch
say(probe.start({folder!r}, 0.1, 0.2))
sys.stdin.readline()
def dictionaries():
    return json.dumps({{"memory_stats": torch.cuda.memory_stats(), "memory_snapshot": torch.cuda.memory_snapshot()}})
def tensor(size): return torch.empty(size, dtype=torch.uint8, device="cuda")
say(torch.cuda.is_initialized())
kept = [tensor(20 * MIB) for _ in range(10)]
say(dictionaries()); sys.stdin.readline()
pieces = [tensor(2 * MIB + 1) for _ in range(200)]
del pieces[::2]
say(dictionaries()); sys.stdin.readline()
del pieces
torch.cuda.empty_cache()
say(dictionaries()); sys.stdin.readline()
"""


def _gpu() -> str:
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("PyTorch is not installed in this environment")
    if not done.stdout.strip():
        pytest.skip("PyTorch finds no GPU here")
    return done.stdout.strip()


@pytest.mark.gpu
def test_a_real_allocator_fragmented_on_purpose_shows_it_and_shows_its_release(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = _gpu()
    kept: dict[str, Any] = {"gpu": name}

    def device(process: Serving, phase: str) -> Device:
        raw = json.loads(process.hear())
        reserved = raw["memory_stats"]["reserved_bytes.all.current"]

        def settled() -> Device | None:
            believed = [found for found in Files(tmp_path).read()[0] if found.pid == process.pid]
            found = believed[0].record.devices[0] if believed else None
            return found if found and found.snapshot and found.snapshot.reserved == reserved else None

        found = until(settled, 30)
        assert found.snapshot is not None
        ratios = {kind: getattr(found.snapshot, kind) for kind in ("split", "external", "rounding")}
        print(json.dumps({"gpu": name, "phase": phase, **ratios}))  # noqa: T201 - what the run is for
        kept[phase] = raw | {"told": ratios}
        process.tell()
        return found

    with Serving(_PROGRAM.format(folder=str(tmp_path))) as process:
        assert process.hear() == "True"
        process.tell()
        assert process.hear() == "False", "the probe initialised CUDA"
        whole, pieces, released = (device(process, phase) for phase in ("whole", "fragmented", "released"))
        process.end()
    assert whole.snapshot is not None
    assert pieces.snapshot is not None
    assert released.snapshot is not None
    assert len(pieces.uuid) == 36
    for kind, at_least in (("split", 0.2), ("external", 0.8), ("rounding", 1e-6)):
        before, during, after = (getattr(one.snapshot, kind) or 0 for one in (whole, pieces, released))
        assert during > before + at_least / 2
        assert after < during
    if request.config.getoption("--update-goldens"):
        shutil.rmtree(CAPTURES, ignore_errors=True)
        CAPTURES.mkdir()
        (CAPTURES / "fragmented.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
