"""What the allocator probe costs the process it runs in, and the daemon that reads it: prints Markdown.

    python benchmarks/allocator.py

There is no GPU in it. The dictionaries have the form and size of PyTorch's, from a stand-in; what PyTorch itself takes
to make them is not measured, only stood in for by the JSON decoder making the same objects.
"""

from __future__ import annotations

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
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from support.serving import Writer  # noqa: E402

from palegreen.exporter.allocator.files import Files  # noqa: E402
from palegreen.exporter.allocator.source import AllocatorSource  # noqa: E402
from palegreen.inprocess import install  # noqa: E402
from palegreen.inprocess.torchstats import summaries  # noqa: E402

UUID = "11111111-2222-3333-4444-555555555555"
_TICKS = """\
import json
families = ("allocation", "segment", "active", "inactive_split", "allocated_bytes", "reserved_bytes", "active_bytes",
            "inactive_split_bytes", "requested_bytes")
kinds = {"current": 1 << 30, "peak": 1 << 34, "allocated": 1 << 40, "freed": 1 << 40}
text = json.dumps({name: {pool: kinds for pool in ("all", "large_pool", "small_pool")} for name in families}
                  | {"num_alloc_retries": 0, "num_ooms": 0, "oversize_allocations": kinds, "oversize_segments": kinds})
torch = install([CachingAllocator()], initialised=INITIALISED)
ticks = 0
def stats(index):
    global ticks
    ticks += 1
    return json.loads(text) | {"inactive_split_bytes": {"all": {"current": 0}}, "active": {"all": {"current": 9}}}
torch.cuda.memory_stats_as_nested_dict = stats
def polled():
    global ticks
    ticks += not INITIALISED
    return INITIALISED
torch.cuda.is_initialized = polled
probe.start(FOLDER, 0.05, 3600)
time.sleep(0.5)
cpu, before = time.process_time(), ticks
time.sleep(SECONDS)
say(json.dumps([time.process_time() - cpu, ticks - before]))
began, cpu = time.perf_counter(), time.process_time()
for _ in range(2000): json.loads(text)
say(json.dumps((time.process_time() - cpu) / 2000))
"""


def main() -> None:
    """Run everything, about a minute."""
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {_machine()}\n")
    made, tick = _ticks()
    _, look = _ticks(False)
    print("| in the serving process | CPU | share of a core |\n|---|---:|---:|")
    print(f"| a look before CUDA is in use, once a second | {_us(look)} | {tick_share(look)} |")
    print(f"| statistics, record, lock and file, once a second | {_us(tick)} | {tick_share(tick)} |")
    print(f"| of it the stand-in for PyTorch making the dictionary | {_us(made)} | {tick_share(made)} |")
    for count in (1_000, 10_000, 100_000):
        segments = _snapshot(count)
        text = json.dumps(segments)
        took = _median(lambda segments=segments: summaries(segments))
        build = _median(lambda text=text: json.loads(text))
        note = " (over the limit: not taken)" if count > 10_000 else ""
        print(f"| sums of a snapshot of {count:,} blocks, every 30 s{note} | {_ms(took)} | {took / 30:.4%} |")
        print(f"| stand-in for PyTorch making it | {_ms(build)} | {build / 30:.4%} |")
    print(f"| `.pth` line without the variable, once a process | {_us(_line())} | |")
    bare, with_it = _start(False), _start(True)
    print(f"| `.pth` line with the variable, in a process without PyTorch | {_ms(with_it - bare)} | |")
    print("\n| in the daemon | time | share of a core |\n|---|---:|---:|")
    for count in (1, 8, 64):
        took = _daemon(count)
        print(f"| a reading of {count} processes, every 5 s | {_ms(took)} | {took / 5:.3%} |")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} CPUs ({model}), Linux {platform.release()}, CPython {platform.python_version()}"


def _ticks(initialised: bool = True, seconds: float = 12.0) -> tuple[float, float]:
    """CPU seconds for making the dictionary, and for one tick of the real thread, waking up included."""
    from support.serving import Serving

    with tempfile.TemporaryDirectory() as folder:
        program = f"INITIALISED, FOLDER, SECONDS = {initialised!r}, {folder!r}, {seconds!r}\n{_TICKS}"
        with Serving(program) as process:
            cpu, ticks = json.loads(process.hear())
            return json.loads(process.hear()), cpu / ticks


def _snapshot(count: int) -> list[dict[str, Any]]:
    """Segments of ten blocks each, over four streams."""
    states = ("active_allocated", "inactive", "active_allocated", "active_pending_free", "inactive")
    segments = []
    for number in range(count // 10):
        address = 0x7F0000000000 + number * (20 << 20)
        blocks = [
            {"address": address + (i << 21), "size": 2 << 20, "requested_size": 2_000_000, "state": state, "frames": []}
            for i, state in enumerate(states * 2)
        ]
        segments.append({
            "device": 0, "address": address, "total_size": 20 << 20, "allocated_size": 8 << 20, "active_size": 12 << 20,
            "requested_size": 8_000_000, "stream": number % 4, "segment_type": "large", "segment_pool_id": (0, 0),
            "is_expandable": False, "frames": [], "blocks": blocks,
        })  # fmt: skip
    return segments


def _median(call: Callable[[], object], times: int = 15) -> float:
    """Seconds of CPU of this thread."""
    taken = []
    for _ in range(times):
        began = time.thread_time()
        call()
        taken.append(time.thread_time() - began)
    return statistics.median(taken)


def _line() -> float:
    code = compile(install.LINE, "pth", "exec")
    os.environ.pop("PALEGREEN_ALLOCATOR_DIR", None)
    return _median(lambda: exec(code, {}), 1000)


def _start(with_line: bool) -> float:
    """CPU seconds of a Python that starts and ends."""
    code = f"exec({install.LINE!r})" if with_line else "pass"
    taken = []
    for _ in range(25):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PALEGREEN_ALLOCATOR_DIR": "/tmp"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)


def _daemon(count: int) -> float:
    device = dict.fromkeys(("allocated", "active", "reserved", "requested", "inactive_split", "retries", "ooms"), 0)
    snapshot = summaries(_snapshot(100))[0]
    body = json.dumps({"backend": "native", "devices": [device | {"uuid": UUID, "snapshot": snapshot}]}).encode()
    with tempfile.TemporaryDirectory() as folder:
        writers = [Writer(Path(folder)) for _ in range(count)]
        try:
            for writer in writers:
                writer.write(body)
            source = AllocatorSource(Files(Path(folder)))
            assert f"{count} processes" in (source.collect() and source.describe())
            return _median(source.collect, 50)
        finally:
            for writer in writers:
                with writer:
                    pass


def tick_share(seconds: float) -> str:
    """As a share of a core at once a second."""
    return f"{seconds:.4%}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms"


if __name__ == "__main__":
    main()
