"""How many samples a core scores, from bytes of the tap to the store: prints Markdown.

    python benchmarks/scoring.py            # a few minutes
    python benchmarks/scoring.py --quick    # seconds; its numbers mean little

Each row is a process of its own, held on one core, with one thread for the embedder. It gets batches of envelopes, each
of a chat whose prompt and response have 300 characters, and decodes, redacts, embeds, checks, counts and stores them.
Making the chats is not counted. The rate is taken over CPU time, so that other work on the machine does not lower it;
the rate by the wall clock is beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from exchanges import Kind, exchanges

from palegreen.evaluators.envelope import Envelope
from palegreen.inprocess.frame import Decoder, encode

BATCH = 32  # as many records as the scorer asks for at once
MEMORY_BAR = 400 << 20


class Row(NamedTuple):
    """What is measured: an embedder, how responses come, and the bar in samples a second of a core, if there is one."""

    embedder: str
    kind: Kind
    samples: int
    bar: int | None = None


ROWS = (
    Row("minilm", "mixed", 1_920, 60),
    Row("static", "mixed", 19_200, 1_000),
    Row("static", "unstreamed", 9_600),
    Row("static", "streamed", 9_600),
    Row("none", "mixed", 19_200),
)


def scorer(embedder: str, folder: Path) -> Callable[[list[Envelope]], None]:
    """What scores a batch: with that embedder, one thread, and a store in `folder`."""
    from palegreen.evaluators.config import EvaluateConfig
    from palegreen.evaluators.pipeline import Pipeline

    return Pipeline(EvaluateConfig(embedder=embedder, store=str(folder / "samples.db"), scorer_threads=1)).score


def main() -> None:
    """Every row; exit status 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row is not None:
        print(json.dumps(_measured(ROWS[given.row], given.quick)))
        return
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {_machine()}\n")
    print(
        "| embedder | responses | samples/s a core | CPU a sample | by the wall clock | batch, median and slowest",
        end=" ",
    )
    print("| peak RSS | bars |\n|---|---|---:|---:|---:|---:|---:|---|")
    found = [_shown(row, _child(at, given.quick)) for at, row in enumerate(ROWS)]
    sys.exit(0 if all(found) else 1)


def _shown(row: Row, found: dict[str, Any]) -> bool:
    """Print a row of the table; whether its bars are held."""
    rate = found["samples"] / found["cpu"]
    bars = {f"<= {MEMORY_BAR >> 20} MiB": found["memory"] <= MEMORY_BAR}
    if row.bar is not None:
        bars[f">= {row.bar:,}/s"] = rate >= row.bar
    cells = (
        row.embedder,
        row.kind,
        f"{rate:,.0f}",
        _time(found["cpu"] / found["samples"]),
        f"{found['samples'] / found['wall']:,.0f}/s",
        f"{_time(found['median'])}, {_time(found['slowest'])}",
        f"{found['memory'] / (1 << 20):.0f} MiB",
        ", ".join(f"{bar}: {'held' if held else 'MISSED'}" for bar, held in bars.items()),
    )
    print(f"| {' | '.join(cells)} |", flush=True)
    return all(bars.values())


def _child(row: int, quick: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", str(row), *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the row {ROWS[row].embedder}, {ROWS[row].kind} was not measured, see above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(row: Row, quick: bool) -> dict[str, Any]:
    """Score in this process, on one core. CPU and wall seconds of scoring, peak memory of all."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    made = exchanges(row.kind, seed=1)
    samples = max(BATCH, row.samples // (10 if quick else 1) // BATCH * BATCH)
    cpu, walls = 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        score = scorer(row.embedder, Path(folder))
        score(list(islice(made, BATCH)))  # what is loaded and compiled once
        for _ in range(samples // BATCH):
            sent = b"".join(encode(envelope.meta, envelope.parts) for envelope in islice(made, BATCH))
            began, used = time.perf_counter(), time.process_time()
            score([Envelope(*frame) for frame in Decoder().feed(sent)])
            cpu += time.process_time() - used
            walls.append(time.perf_counter() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {
        "samples": samples,
        "cpu": cpu,
        "wall": sum(walls),
        "slowest": max(walls),
        "median": statistics.median(walls),
        "memory": memory,
    }


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.1f} ms"


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} CPUs ({model}), Linux {platform.release()}, CPython {platform.python_version()}"


if __name__ == "__main__":
    main()
