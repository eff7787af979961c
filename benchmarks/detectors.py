"""Is the declared run length held, and how soon is a shift found, beside alibi-detect and Evidently? Prints Markdown.

    python benchmarks/detectors.py --setup            # once: the other tools, in .cache/benchmarks
    python benchmarks/detectors.py                    # some hours
    python benchmarks/detectors.py --without-peers    # ours only
    python benchmarks/detectors.py --only run-length --refits 6 --cases 1000:150 3000:500

Run lengths are of the whole chain: synthetic embeddings of prompts and responses, a baseline fitted on so many samples,
its threshold, then fresh streams through its features. Every refit has a truth of its own; intervals are over refits.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from numpy.typing import NDArray
from scoring import _machine as machine
from worlds import SHIFTS, TOPICS, World

from palegreen.evaluators.baseline.features import MEASURES, Features, Projected, Rows
from palegreen.evaluators.baseline.learn import learn
from palegreen.evaluators.baseline.split import thirds
from palegreen.evaluators.detectors.bounds import limits
from palegreen.evaluators.detectors.calibrate import calibrate
from palegreen.evaluators.detectors.edetector import EDetector
from palegreen.evaluators.detectors.mewma import Averages, Calibration, Mewma

PEERS = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks" / "detectors"
PACKAGES = ["alibi-detect==0.13.0", "evidently==0.7.23", "torch==2.13.0"]
ONLINE = ("mmd-25", "mmd-100", "lsdd-100")
CASES = ((1_000, 150), (1_000, 500), (1_000, 2_000), (3_000, 150), (3_000, 500), (3_000, 2_000), (10_000, 500))
POOL = 60_000  # many, for averages to see no sample twice
CUT = 8  # streams end at so many run lengths
MIXES = ("independent", "other mix", "diurnal")


class Fitted(NamedTuple):
    """A baseline of a world, and its detector of responses."""

    features: Features
    calibration: Calibration
    seconds: float


def fitted(world: World, samples: int, run_lengths: Sequence[float], seed: int) -> Iterator[Fitted]:
    """Through the whole chain, from fresh samples; one for each run length."""
    draw = np.random.default_rng((seed, 1))
    rows = rows_of(*world.draw(draw, world.topics(draw, samples)))
    parts = thirds([0.0] * samples, [""] * samples, seed)
    features = Features(learn(rows, parts, seed))
    seen = features.many(rows.take(parts.calibration))
    inside = seen.cluster >= 0
    vectors, clusters = seen.response[inside], seen.cluster[inside]
    for run_length in run_lengths:
        began = time.process_time()
        found = calibrate(vectors, len(parts.whitening), run_length, seed=seed, clusters=clusters)
        yield Fitted(features, found, time.process_time() - began)


def rows_of(prompts: NDArray[np.float32], responses: NDArray[np.float32]) -> Rows:
    """As the baseline takes them, without contexts and measures."""
    some = np.ones(len(prompts), np.bool_)
    unknown = np.full((len(prompts), len(MEASURES)), np.nan, np.float32)
    return Rows(responses, prompts, np.zeros_like(prompts), unknown, some, ~some)


def pool(features: Features, world: World, seed: int) -> Projected:
    """Fresh samples in which nothing is wrong, as many of each topic."""
    draw = np.random.default_rng((seed, 2))
    return features.many(rows_of(*world.draw(draw, np.repeat(np.arange(TOPICS), POOL // TOPICS))))


def first_alarms(fit: Fitted, seen: Projected, world: World, streams: int, seed: int) -> NDArray[Any]:
    """Samples to the first alarm, (mixes, streams), of streams drawn from a pool."""
    draw = np.random.default_rng((seed, 6))
    each = POOL // TOPICS
    known, dimensions = fit.calibration.conditional, fit.calibration.plan.dimensions
    averages = Averages(fit.calibration.plan, known.doubt.astype(np.float32), len(MIXES) * streams)
    cluster = np.clip(seen.cluster, 0, len(known.centre) - 1)
    vectors = (seen.response[:, :dimensions] - known.centre[cluster]) / known.scale[cluster]
    rows = np.concatenate([vectors, known.doubt.reshape(len(known.doubt), -1)[cluster]], axis=1).astype(np.float32)
    first = np.full(len(MIXES) * streams, int(CUT * fit.calibration.run_length))
    for at in range(first[0]):
        mixes = (world.own, world.other, world.by_day(at))
        topic = np.concatenate([draw.choice(TOPICS, size=streams, p=mix) for mix in mixes])
        q = averages.push(rows[topic * each + draw.integers(each, size=len(topic))])
        over = ((q - fit.calibration.mean) / fit.calibration.q).max(axis=(1, 2)) > fit.calibration.threshold
        first[over] = np.minimum(first[over], at + 1)
        if at % 64 == 0 and first.max() <= at:
            break
    return first.reshape(len(MIXES), streams)


def interval(values: list[float]) -> str:
    """A mean and its 95% interval, of independent values."""
    error = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    return f"{np.mean(values):.2f} ({np.mean(values) - error:.2f} to {np.mean(values) + error:.2f})"


def run_lengths(cases: Sequence[tuple[int, float]], seeds: range, streams: int) -> None:
    """A table of run lengths over the declared one. Run lengths of one size share their baselines."""
    print("\n### Run length over the declared one\n")
    print(f"| samples in all | declared | {' | '.join(MIXES)} | rates, dimensions | calibration, CPU s |")
    print("|---:|---:|---|---|---|---|---:|")
    for samples in sorted({samples for samples, _ in cases}):
        asked = [run_length for size, run_length in cases if size == samples]
        found, seconds = np.zeros((len(asked), len(seeds), len(MIXES))), np.zeros(len(asked))
        for refit, seed in enumerate(seeds):
            world = World(seed)
            for at, fit in enumerate(fitted(world, samples, asked, seed)):
                if at == 0:
                    seen = pool(fit.features, world, seed)
                found[at, refit] = first_alarms(fit, seen, world, streams, seed).mean(axis=1) / asked[at]
                seconds[at] += fit.seconds / len(seeds)
            print(f"{samples} samples: {refit + 1} of {len(seeds)} refits", file=sys.stderr, flush=True)
        plan = fit.calibration.plan
        for run_length, shares, took in zip(asked, found, seconds, strict=True):
            cells = [interval(each.tolist()) for each in shares.T]
            size = f"{len(plan.rates)}, {plan.dimensions}"
            print(f"| {samples:,} | {run_length:,} | {' | '.join(cells)} | {size} | {took:.1f} |", flush=True)


def evidence(refits: int, streams: int) -> None:
    """A table of run lengths of e-detectors whose rates stay at the baseline's."""
    print("\n### E-detectors: run length over the declared one, at least (cut at 8)\n")
    print("| samples in all | declared | independent | other mix |\n|---:|---:|---|---|")
    for samples, run_length in ((1_000, 200), (3_000, 1_000)):
        found: dict[str, list[float]] = {"independent": [], "other mix": []}
        for refit in range(refits):
            draw = np.random.default_rng((refit, 3))
            world, rates = World(refit), draw.choice([0.005, 0.02, 0.1, 0.3], size=TOPICS)
            topics = world.topics(draw, samples * 2 // 3)
            known = limits((draw.random(len(topics)) < rates[topics]).astype(float), topics, TOPICS, checks=20)
            for mix, weights in (("independent", world.own), ("other mix", world.other)):
                first = []
                for _ in range(streams):
                    detector, length = EDetector(known, run_length), CUT * run_length
                    asked = draw.choice(TOPICS, size=length, p=weights)
                    failed = (draw.random(length) < rates[asked]).astype(float)
                    pairs = enumerate(zip(failed.tolist(), asked.tolist(), strict=True), 1)
                    first.append(next((at for at, pair in pairs if detector.update(*pair) > 1), length))
                found[mix].append(float(np.mean(first)) / run_length)
        print(f"| {samples:,} | {run_length:,} | {' | '.join(map(interval, found.values()))} |", flush=True)


def delays(streams: int, peers: bool) -> None:
    """Tables of delays at equal measured run length, and of what Evidently flags."""
    world, run_length, n, length = World(1_000), 500, 1_000, 3_000
    draw = np.random.default_rng(4)
    reference = world.draw(draw, world.topics(draw, n))
    made = {"null": [world.draw(draw, world.topics(draw, length)) for _ in range(streams)]}
    for name, shift in SHIFTS.items():
        made[name] = [world.draw(draw, world.topics(draw, 1_000), shift) for _ in range(streams)]
    parts = thirds([0.0] * n, [""] * n, 0)
    rows = rows_of(*reference)
    features = Features(learn(rows, parts, 0))
    seen = features.many(rows.take(parts.calibration))
    inside = seen.cluster >= 0
    calibration = calibrate(
        seen.response[inside], len(parts.whitening), run_length, seed=0, clusters=seen.cluster[inside]
    )
    ratios = {}
    for name, each in made.items():
        ratios[name] = np.stack([_ratios(Mewma(calibration), features, *stream) for stream in each])
    ours = {name: _delays(found, 1.0) for name, found in ratios.items()}
    table = {"Palegreen": ours}
    if peers:
        with tempfile.TemporaryDirectory(prefix="palegreen-bench-") as folder:
            file = Path(folder) / "streams.npz"
            responses = {name: np.stack([stream[1] for stream in each]) for name, each in made.items()}
            np.savez(file, reference=reference[1], run_length=np.array(run_length), **responses)
            for kind in ONLINE:
                found = _peer(kind, file)
                table[f"alibi-detect {kind}"] = found
                level = _level(ratios["null"], float(np.mean(found["null"])))
                table[f"Palegreen at the run length of {kind}"] = {
                    name: _delays(each, level) for name, each in ratios.items()
                }
    print("\n### Mean delay in samples (declared run length 500, 1,000 samples)\n")
    print(f"| | run length got | {' | '.join(SHIFTS)} | us a sample |\n|---|---:|{'---:|' * len(SHIFTS)}---:|")
    for name, row in table.items():
        cells = [f"{np.mean(row[shift]):.0f}" for shift in SHIFTS]
        cost = f"{row['microseconds']:.0f}" if "microseconds" in row else ""
        print(f"| {name} | {np.mean(row['null']):.0f} | {' | '.join(cells)} | {cost} |", flush=True)
    if not peers:
        return
    for kind in ONLINE:
        theirs, same = table[f"alibi-detect {kind}"], table[f"Palegreen at the run length of {kind}"]
        shares = [float(np.mean(same[shift]) / np.mean(theirs[shift])) for shift in SHIFTS]
        print(f"\nOver {kind}: geometric mean {np.exp(np.mean(np.log(shares))):.2f}, worst {max(shares):.2f}.")
    with tempfile.TemporaryDirectory(prefix="palegreen-bench-") as folder:
        file = Path(folder) / "streams.npz"
        np.savez(file, reference=reference[1], **responses)
        flagged = _peer("evidently", file)
    print("\n### Evidently: share of windows of 200 flagged\n")
    methods = sorted({name.partition("/")[0] for name in flagged})
    shown = ["null", *SHIFTS]
    print(f"| method | {' | '.join(shown)} |\n|---|{'---:|' * len(shown)}")
    for method in methods:
        shares = [format(flagged[f"{method}/{name}"], ".0%") for name in shown]
        print(f"| {method} | {' | '.join(shares)} |")


def _ratios(detector: Mewma, features: Features, prompts: Any, responses: Any) -> NDArray[Any]:
    seen = features.many(rows_of(prompts, responses))
    return np.array([detector.update(*each) for each in zip(seen.response, seen.cluster.tolist(), strict=True)])


def _delays(ratios: NDArray[Any], level: float) -> list[int]:
    """First alarms of streams, (streams, samples), which are cut at their end."""
    over = ratios > level
    return np.where(over.any(axis=1), over.argmax(axis=1) + 1, ratios.shape[1]).tolist()


def _level(ratios: NDArray[Any], run_length: float) -> float:
    """Where the same streams have that run length."""
    levels = np.linspace(0.2, 3, 1_401)
    return float(levels[np.argmax([np.mean(_delays(ratios, level)) >= run_length for level in levels])])


def _peer(kind: str, file: Path) -> dict[str, Any]:
    command = [PEERS / "bin" / "python", Path(__file__).with_name("detector_peers.py"), kind, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind}: {done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed() -> None:
    """Time and size of one sample at the largest: 128 dimensions, 17 clusters, four rates."""
    draw = np.random.default_rng(5)
    detector = Mewma(calibrate(draw.normal(size=(3_000, 128)), 3_000, 500, seed=0, clusters=np.arange(3_000) % 17))
    vectors, took = draw.normal(size=(20_000, 128)).astype(np.float32), []
    for begin in range(0, len(vectors), 1_000):
        began = time.process_time()
        for at in range(begin, begin + 1_000):
            detector.update(vectors[at], at % 17)
        took.append((time.process_time() - began) * 1e3)
    size = sum(array.nbytes for array in detector.state().values())
    print(f"\nupdate: {np.median(took):.1f} us a sample (CPU, median over thousands); state: {size:,} bytes")


def set_up() -> None:
    """The peers' environment."""
    subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    subprocess.run([PEERS / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)


def case(text: str) -> tuple[int, int]:
    """Samples and run length."""
    samples, run_length = map(int, text.split(":"))
    return samples, run_length


def main() -> None:
    """All that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="install the other tools first (needs a package index)")
    parser.add_argument("--refits", type=int, default=60)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1_000, help="of the first refit; constants were chosen on 0-129")
    parser.add_argument("--cases", type=case, nargs="+", default=CASES, metavar="SAMPLES:RUN_LENGTH")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--only", choices=("run-length", "evidence", "delay", "speed"))
    given = parser.parse_args()
    if given.setup:
        set_up()
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; {machine()}; {given.refits} refits x {given.streams}")
    seeds = range(given.seed, given.seed + given.refits)
    parts = {
        "run-length": lambda: run_lengths(given.cases, seeds, given.streams),
        "evidence": lambda: evidence(given.refits, given.streams),
        "delay": lambda: delays(given.streams, peers=not given.without_peers),
        "speed": speed,
    }
    for name, part in parts.items():
        if given.only in (None, name):
            part()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
