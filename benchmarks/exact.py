"""Hold utilisation over time against the samples it is taken from, for Palegreen and for an exporter that polls.

    python benchmarks/exact.py            about six minutes; prints Markdown
    python benchmarks/exact.py --quick    20 seconds of scrapes: does it work?

Eight simulated GPUs have loads whose time course is known. Three processes see the same driver's samples: Palegreen,
nvitop-exporter, and a reader that writes every sample to a file, which is the truth. Both exporters are scraped every
second; scrapes every 15 and 60 s are those of that stream. `benchmarks/node.py --setup` installs nvitop-exporter.
"""

from __future__ import annotations

import argparse
import bisect
import datetime
import itertools
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import (
    PEERS,
    PROMETHEUS,
    Client,
    Target,
    cpu,
    cpu_seconds,
    machine,
    node_daemon,
    nvitop_exporter,
    say,
    serving,
    started,
    steady_driver,
    versions,
)

from palegreen.demo.driver.build import build
from palegreen.demo.driver.gpu import Wave
from palegreen.demo.driver.scenario import ENVIRONMENT_VARIABLE, load

SERVERS = Path(__file__).with_name("servers.py")
INTERVALS = (1, 15, 60)  # seconds between two scrapes
SECONDS = 180
QUICK = 20
EARLIER = 30  # seconds for which the scenario has run when the first process looks
BAR = 1.0  # percent, and points in a single window
CPU_BAR = 2.0
STALL = "300 ms stall every 7 s"
HOW = ("by sample", "by clock")
UNIQUE = "sine, 45 s"  # a load whose samples repeat so seldom that a lag can be told from them

BUSY = "palegreen_gpu_busy_seconds_total"
SAMPLED = "palegreen_gpu_sampled_seconds_total"
UNSAMPLED = "palegreen_gpu_unsampled_seconds_total"
LOWEST = "palegreen_gpu_utilization_min_ratio"
POLLED = "gpu_utilization_Percentage"


def _square(period: float, high: float, share: float = 0.5, phase: float = 0.0) -> dict[str, Any]:
    """`high` percent for `share` of each period, else nothing."""
    half = {"base": high / 2, "amplitude": high / 2}
    return {**half, "shape": "square", "period": period, "duty": share, "phase": phase}


# Load and the driver's sample period in seconds; nvml.h documents 1/6 to 1 s. The phases keep edges off samples.
LOADS: dict[str, tuple[dict[str, Any], float]] = {
    "constant 62%": ({"base": 62}, 1 / 6),
    UNIQUE: ({"base": 50, "amplitude": 40, "period": 45}, 1 / 6),
    "on and off, 1.0 s": (_square(1.0, 100, phase=0.05), 1 / 6),
    "on and off, 0.9 s": (_square(0.9, 100, phase=0.05), 1 / 6),
    "on and off, 1.7 s": (_square(1.7, 90, phase=0.05), 0.25),
    STALL: (_square(7, 90, 6.7 / 7, phase=0.05), 1 / 6),
    "150 ms burst every 1.3 s": (_square(1.3, 100, 0.15 / 1.3, phase=0.005), 0.02),
    "on and off, 30 s": (_square(30, 100, phase=0.3), 1.0),
}


@dataclass(frozen=True, slots=True)
class Scrape:
    """When it was asked for, in epoch seconds, and the values by metric and GPU's UUID."""

    at: float
    values: dict[tuple[str, str], float]


class Truth:
    """The integral of one GPU's samples. A sample holds for the time since the one before it."""

    def __init__(self, samples: Sequence[tuple[float, float]]) -> None:
        self.stamps = [at for at, _ in samples]
        steps = ((b[0] - a[0]) * b[1] for a, b in itertools.pairwise(samples))
        self._sums = list(itertools.accumulate(steps, initial=0.0))

    def total(self, at: float) -> float:
        """Busy seconds from the first sample to a moment, which must lie between two samples."""
        after = bisect.bisect_left(self.stamps, at)
        if not 0 < after < len(self.stamps):
            raise ValueError(f"no samples around {at}")
        (left, right), (low, high) = self.stamps[after - 1 : after + 1], self._sums[after - 1 : after + 1]
        return low + (high - low) * (at - left) / (right - left)

    def mean(self, since: float, until: float) -> float:
        """Mean utilisation between two moments, 0 to 1."""
        return (self.total(until) - self.total(since)) / (until - since)


@dataclass(slots=True)
class Comparison:
    """One GPU: its truth, and what the scrapes of both exporters say about it."""

    load: str
    uuid: str
    truth: Truth
    palegreen: Sequence[Scrape]
    polled: Sequence[Scrape]

    def value(self, index: int, metric: str) -> float:
        """What Palegreen said."""
        return self.palegreen[index].values[metric, self.uuid]

    def gauge(self, index: int) -> float:
        """What the exporter that polls said, 0 to 1."""
        return self.polled[index].values[POLLED, self.uuid] / 100

    def reach(self) -> list[float]:
        """The last sample that each of Palegreen's scrapes counts, in epoch seconds.

        How far two scrapes are apart is in the counters of sampled and unsampled seconds. Where the first one stands
        is the one thing taken from the truth: the sample from which all scrapes together agree best with it.
        """
        covered = [self.value(n, SAMPLED) + self.value(n, UNSAMPLED) for n in range(len(self.palegreen))]
        busy = [self.value(n, BUSY) for n in range(len(self.palegreen))]
        first = self.palegreen[0].at

        def disagreement(anchor: float) -> float:
            totals = [self.truth.total(anchor + there - covered[0]) for there in covered]
            return sum(abs(b - busy[0] - (t - totals[0])) for b, t in zip(busy, totals, strict=True))

        candidates = [stamp for stamp in self.truth.stamps if first - 4 < stamp <= first]
        anchor = min(reversed(candidates), key=lambda stamp: round(disagreement(stamp), 6))
        return [anchor + there - covered[0] for there in covered]

    def delays(self) -> list[float]:
        """Seconds from the last sample that a scrape counts to the scrape."""
        return [scrape.at - reach for scrape, reach in zip(self.palegreen, self.reach(), strict=True)]

    def by_sample(self, a: int, b: int, reach: Sequence[float]) -> tuple[float, float] | None:
        """Busy over sampled seconds between two scrapes, and the truth between their last samples."""
        if (elapsed := self.value(b, SAMPLED) - self.value(a, SAMPLED)) == 0:
            return None
        return (self.value(b, BUSY) - self.value(a, BUSY)) / elapsed, self.truth.mean(reach[a], reach[b])

    def by_clock(self, a: int, b: int) -> tuple[float, float]:
        """Busy seconds per second between two scrapes, as rate() has it, and the truth between their moments."""
        since, until = self.palegreen[a].at, self.palegreen[b].at
        return (self.value(b, BUSY) - self.value(a, BUSY)) / (until - since), self.truth.mean(since, until)

    def by_gauge(self, a: int, b: int, every: int) -> tuple[float, float]:
        """The mean of the gauges scraped after `a` up to `b`, and the truth between the two scrapes."""
        read = [self.gauge(n) for n in range(a + every, b + 1, every)]
        return statistics.fmean(read), self.truth.mean(self.polled[a].at, self.polled[b].at)


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} s of scrapes; its numbers mean little")
    seconds = QUICK if parser.parse_args().quick else SECONDS
    if not (PEERS / "bin" / "python").exists():
        say("nvitop-exporter is not installed: python benchmarks/node.py --setup")
        return 1
    with tempfile.TemporaryDirectory(prefix="palegreen-bench-") as name:
        folder = Path(name)
        comparisons, waves, shares = _exactness(folder, seconds)
        lasting = 5 if seconds == QUICK else 30
        kept = _default_cpu(folder / "kept", lasting, {})
        polled = _default_cpu(folder / "polled", lasting, {"nvmlDeviceGetSamples": "NOT_SUPPORTED"})
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; {machine()}")
    print(f"{versions()}\n")
    intervals = [every for every in INTERVALS if every <= seconds]
    _report(comparisons, waves, intervals, seconds)
    print("\n| CPU, percent of one core | |\n|---|---:|")
    print(f"| Palegreen in this run, a scrape a second | {shares[0]:.2f}% |")
    print(f"| nvitop-exporter in this run, a scrape a second | {shares[1]:.2f}% |")
    for driver, (idle, scraped) in (("that keeps samples", kept), ("without, so every 100 ms", polled)):
        print(f"| Palegreen at its defaults, a driver {driver}; not scraped | {idle:.2f}% |")
        print(f"| the same, a scrape a second | {scraped:.2f}% |")
    print()
    for line in _bars(comparisons, intervals, seconds, max(shares[0], *kept, *polled)):
        print(f"- {line}")
    return 0


def _exactness(folder: Path, seconds: int) -> tuple[list[Comparison], dict[str, float], tuple[float, float]]:
    """Comparisons, the mean of each load's own formula over the run, and CPU of both in percent of a core."""
    library = build(folder / "driver")
    start = time.time() - EARLIER
    process = {"pid": os.getpid(), "memory_used": "30GiB", "gpu_utilization": 35}
    gpus = [{"gpu_utilization": wave, "sample_period": every} for wave, every in LOADS.values()]
    scenario = load({"start": start, "gpus": gpus, "each": {"processes": [process]}})
    scenario.write(folder / "scenario")
    uuids = [gpu.uuid for gpu in scenario.gpus]
    simulated = {ENVIRONMENT_VARIABLE: str(folder / "scenario")}
    found = {**simulated, "LD_LIBRARY_PATH": str(library.parent)}
    palegreen = Target("Palegreen", node_daemon(library), simulated)
    peer = Target("nvitop-exporter", nvitop_exporter, found)
    stream = folder / "samples"
    with ExitStack() as running:
        reader = started([sys.executable, str(SERVERS), "samples", str(stream)], found, folder / "reader.log")
        running.enter_context(reader)
        pids, clients = zip(*(running.enter_context(serving(t, uuids, folder)) for t in (palegreen, peer)), strict=True)
        time.sleep(5)
        say(f"scraping for {seconds} s ...")
        before = [cpu_seconds(pid) for pid in pids]
        ours, theirs = _scrapes(clients, seconds)
        shares = [100 * (cpu_seconds(p) - b) / (ours[-1].at - ours[0].at) for p, b in zip(pids, before, strict=True)]
        time.sleep(3)  # samples after the last scrape
        truths = _truths(stream, [every for _, every in LOADS.values()])
    comparisons = [
        Comparison(name, uuid, truth, ours, theirs) for name, uuid, truth in zip(LOADS, uuids, truths, strict=True)
    ]
    waves = {name: _mean(Wave(**wave), ours[0].at - start, ours[-1].at - start) for name, (wave, _) in LOADS.items()}
    return comparisons, waves, (shares[0], shares[1])


def _scrapes(clients: Sequence[Client], seconds: int) -> tuple[list[Scrape], ...]:
    """A scrape of each client a second, as steadily as Prometheus does it; one more than seconds."""
    scrapes: tuple[list[Scrape], ...] = tuple([] for _ in clients)
    began = time.monotonic()
    for second in range(seconds + 1):
        time.sleep(max(began + second - time.monotonic(), 0))
        for client, into in zip(clients, scrapes, strict=True):
            at = time.time()
            into.append(Scrape(at, _values(client.text())))
    return scrapes


def _values(text: str) -> dict[tuple[str, str], float]:
    wanted = rf'^({BUSY}|{SAMPLED}|{UNSAMPLED}|{LOWEST}|{POLLED})\{{[^}}]*uuid="([^"]+)"[^}}]*\}} (\S+)'
    return {(name, uuid): float(value) for name, uuid, value in re.findall(wanted, text, re.MULTILINE)}


def _truths(stream: Path, periods: Sequence[float]) -> list[Truth]:
    """What the reader wrote, by GPU; raises RuntimeError where it missed a sample."""
    samples: list[list[tuple[float, float]]] = [[] for _ in periods]
    for line in stream.read_text().splitlines():
        gpu, stamp, percent = line.split()
        samples[int(gpu)].append((int(stamp) / 1e6, int(percent) / 100))
    for seen, period in zip(samples, periods, strict=True):
        if any(abs(b[0] - a[0] - period) > 1e-5 for a, b in itertools.pairwise(seen)):
            raise RuntimeError("the reader of the truth missed samples: is the machine overloaded?")
    return [Truth(seen) for seen in samples]


def _mean(wave: Wave, since: float, until: float) -> float:
    """Mean of a load's formula, 0 to 1, in steps of a millisecond."""
    steps = int((until - since) * 1000)
    return statistics.fmean(wave.at(since + (n + 0.5) / 1000) for n in range(steps)) / 100


def _default_cpu(folder: Path, seconds: float, errors: dict[str, Any]) -> tuple[float, float]:
    """CPU of the daemon on a usual node, not scraped and scraped every second, in percent of a core."""
    say("CPU at the default settings ...")
    folder.mkdir()
    library, scenario = steady_driver(folder, pids=(os.getpid(), os.getppid()))
    scenario.errors = errors
    scenario.write(folder / "scenario")
    target = Target("Palegreen", node_daemon(library), {ENVIRONMENT_VARIABLE: str(folder / "scenario")})
    with serving(target, [gpu.uuid for gpu in scenario.gpus], folder) as (pid, client):
        time.sleep(5)

        def scrape() -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                client.scrape(PROMETHEUS)
                time.sleep(1)

        return cpu(pid, lambda: time.sleep(seconds)), cpu(pid, scrape)


def _report(comparisons: Sequence[Comparison], waves: dict[str, float], intervals: Sequence[int], seconds: int) -> None:
    print(f"Mean utilisation over {seconds} s. A counter's increase is the same however often it is scraped.\n")
    columns = " | ".join(f"nvitop-exporter, {every} s" for every in intervals)
    print(f"| Load | Sampled every | Formula | Truth | Palegreen by sample | by clock | {columns} |")
    print("|---|---:|---:|---:|---:|---:|" + "---:|" * len(intervals))
    for each in comparisons:
        errors = [f"{error:+.2f}%" for error in _run_errors(each, intervals, seconds)]
        truth = each.truth.mean(each.palegreen[0].at, each.palegreen[-1].at)
        period = LOADS[each.load][1]
        about = f"{each.load} | {period * 1000:.0f} ms | {100 * waves[each.load]:.2f}% | {100 * truth:.2f}%"
        print(f"| {about} | {' | '.join(errors)} |")
    print("\nEach window between two scrapes: error in points of utilisation, mean / largest.\n")
    print("| Load | Scraped every | Palegreen by sample | by clock | nvitop-exporter |")
    print("|---|---:|---:|---:|---:|")
    for each, every in itertools.product(comparisons, intervals):
        cells = (f"{statistics.fmean(e):.2f} / {max(e):.2f}" for e in _window_errors(each, every, seconds))
        print(f"| {each.load} | {every} s | {' | '.join(cells)} |")
    unique = next(each for each in comparisons if each.load == UNIQUE)
    delays = unique.delays()
    print(
        f"\nFrom the last sample that a scrape counts to the scrape: {min(delays):.2f} to {max(delays):.2f} s,"
        f" mean {statistics.fmean(delays):.2f} s ({UNIQUE}).\n"
    )
    print(f"| Scrapes that show the {STALL} | Palegreen, lowest of 60 s | nvitop-exporter |\n|---|---:|---:|")
    for every in intervals:
        ours, theirs, scrapes = _stalls(comparisons, every, seconds)
        print(f"| every {every} s | {ours} of {scrapes} | {theirs} of {scrapes} |")


def _run_errors(each: Comparison, intervals: Sequence[int], seconds: int) -> Iterator[float]:
    """Percent of the truth over the run: Palegreen in both ways of HOW, then the gauge at each interval."""
    pairs = [each.by_sample(0, seconds, each.reach()), each.by_clock(0, seconds)]
    for found in [*pairs, *(each.by_gauge(0, seconds - seconds % every, every) for every in intervals)]:
        said, truth = found or (0.0, 1.0)
        yield 100 * (said / truth - 1)


def _window_errors(each: Comparison, every: int, seconds: int) -> list[list[float]]:
    """Points by which each window is off: Palegreen in both ways of HOW, then the gauge.

    By sample, a window without a new sample has no value.
    """
    reach = each.reach()
    windows = list(itertools.pairwise(range(0, seconds + 1, every)))
    ways = [
        [found for a, b in windows if (found := each.by_sample(a, b, reach)) is not None],
        [each.by_clock(a, b) for a, b in windows],
        [each.by_gauge(a, b, every) for a, b in windows],
    ]
    return [[100 * abs(said - truth) for said, truth in pairs] for pairs in ways]


def _stalls(comparisons: Sequence[Comparison], every: int, seconds: int) -> tuple[int, int, int]:
    """Scrapes that show the stall: Palegreen's and nvitop-exporter's; and how many scrapes there were."""
    stalled = next(each for each in comparisons if each.load == STALL)
    scrapes = range(0, seconds + 1, every)
    ours = sum(stalled.value(n, LOWEST) <= 0.01 for n in scrapes)
    return ours, sum(stalled.gauge(n) <= 0.01 for n in scrapes), len(scrapes)


def _bars(comparisons: Sequence[Comparison], intervals: Sequence[int], seconds: int, share: float) -> Iterator[str]:
    runs = [[abs(error) for error in _run_errors(each, intervals, seconds)] for each in comparisons]
    for place, how in enumerate(HOW):
        worst = max(errors[place] for errors in runs)
        yield f"Palegreen, integral over the run {how}: worst load off by {worst:.2f}%, bar {BAR:g}: {_met(worst, BAR)}"
    for place, every in enumerate(intervals, len(HOW)):
        worst = max(errors[place] for errors in runs)
        yield f"nvitop-exporter, the same, scraped every {every} s: {worst:.2f}%, bar {BAR:g}: {_met(worst, BAR)}"
    for every in intervals:
        worst_of = [[max(errors) for errors in _window_errors(each, every, seconds)] for each in comparisons]
        for who, worst in zip(
            [*(f"Palegreen {how}" for how in HOW), "nvitop-exporter"],
            map(max, zip(*worst_of, strict=True)),
            strict=True,
        ):
            yield f"{who}, worst window of {every} s: {worst:.2f} points, bar {BAR:g}: {_met(worst, BAR)}"
    for every in intervals:
        if every > 1:
            ours, _, scrapes = _stalls(comparisons, every, seconds)
            verdict = "met" if ours == scrapes else "MISSED"
            yield f"Palegreen, {STALL} visible when scraped every {every} s: {ours} of {scrapes}: {verdict}"
    yield f"Palegreen, CPU at its highest: {share:.2f}% of a core, bar {CPU_BAR:g}: {_met(share, CPU_BAR)}"


def _met(value: float, bar: float) -> str:
    return "met" if value <= bar else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
