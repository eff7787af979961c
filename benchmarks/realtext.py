"""How soon real faults of a real model are found, and how seldom a clean one alarms: prints Markdown.

    python benchmarks/realtext.py                  # with the peers, whose environment it makes once
    python benchmarks/realtext.py --without-peers  # minutes

The answers are those of tests/captures/drift, by the packaged small model. A baseline is fitted to the reference. Each
stream begins with clean answers that the baseline has not seen and goes on with those of one fault, both in an order
of their own; the delay is the number of samples from the first wrong one to the first page, or to the first alarm that
informs. Everything is asked for the same run length to a false alarm.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import platform
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from palegreen.evaluators.baseline import command, manifest
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.detectors.latch import Turn
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.watch import Watch
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.parts import VectorsOf, vectors_of
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.scored import Scored
from palegreen.evaluators.wire import jsonl
from palegreen.runtime.log import configure

HERE = Path(__file__).resolve().parent
CAPTURES = HERE.parent / "tests" / "captures" / "drift"
PEER_PYTHON = HERE.parent / ".cache" / "benchmarks" / "detectors" / "bin" / "python"
CLEAN = 100  # samples before the fault


@dataclass(slots=True)
class Recorded:
    """Samples of one file, scored and embedded."""

    scored: list[Scored]
    vectors: list[VectorsOf]

    def __len__(self) -> int:
        return len(self.scored)


@dataclass(slots=True)
class Found:
    """Delays of the streams in which the first page came after the fault; in `early` ones it came before, in `missed`
    ones never."""

    delays: list[int] = field(default_factory=list)
    early: int = 0
    missed: int = 0
    by: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    """Streams in which the prompt channel informed."""

    def row(self) -> str:
        """Cells of a table: share found, median and 90th percentile of the delay, streams that had paged before."""
        of = len(self.delays) + self.missed
        if not self.delays:
            return f"0 of {of} | | {self.early}"
        high = statistics.quantiles(self.delays, n=10)[-1] if len(self.delays) > 1 else self.delays[0]
        return f"{len(self.delays)} of {of} | {statistics.median(self.delays):.0f} | {high:.0f} | {self.early}"


class Ours:
    """A baseline of the reference, and what it takes to replay samples beside it."""

    def __init__(self, folder: Path, run_length: int) -> None:
        source = folder / "reference.jsonl"
        source.write_bytes(gzip.decompress((CAPTURES / "reference.jsonl.gz").read_bytes()))
        made = command.fit(
            source,
            folder / "baselines",
            false_alarm_every=str(run_length),
            replicas=None,
            embedder_name="minilm",
            seed=0,
            config=None,
            on="local",
            created=0.0,
            bar=_silent,
        )
        self.manifest = manifest.load(made.folder)
        self.model = Model.load(made.folder, self.manifest)
        self._embedder = embedder("minilm", 1)
        self._checks = build({})

    def recorded(self, name: str) -> Recorded:
        """A capture, embedded and checked."""
        assert self._embedder is not None
        text = gzip.decompress((CAPTURES / f"{name}.jsonl.gz").read_bytes()).decode()
        samples: list[Sample] = []
        for number, line in enumerate(text.splitlines(), 1):
            samples.append(jsonl.of_record(json.loads(line), f"{name}:{number}"))
        vectors: list[VectorsOf] = []
        for at in range(0, len(samples), 64):
            vectors += vectors_of(self._embedder, samples[at : at + 64])
        views = (View(sample, each, self.manifest.quantiles) for sample, each in zip(samples, vectors, strict=True))
        return Recorded([Scored(view.sample, self._checks.run(view)) for view in views], vectors)

    def pages(self, recorded: Recorded, order: Sequence[int]) -> list[tuple[int, str, str]]:
        """Alarms of a stream: the place, the channel, the checks that carry it."""
        watch = Watch(self.model)
        events = watch.observe([recorded.scored[at] for at in order], [recorded.vectors[at] for at in order])
        return [
            (event.number, event.alarm.channel, ", ".join(event.alarm.checks[:2]))
            for event in events
            if event.turn is Turn.RAISED
        ]


def _silent(_label: str, _total: int):  # type: ignore[no-untyped-def]
    from contextlib import nullcontext

    return nullcontext(lambda _: None)


def joined(one: Recorded, other: Recorded) -> Recorded:
    """The samples of both."""
    return Recorded([*one.scored, *other.scored], [*one.vectors, *other.vectors])


def streams(clean: int, fault: int, repeats: int, seed: int) -> list[np.ndarray]:
    """Orders: CLEAN of the clean ones, then all of the fault's, numbered behind the clean ones."""
    draw = np.random.default_rng(seed)
    return [np.concatenate([draw.permutation(clean)[:CLEAN], clean + draw.permutation(fault)]) for _ in range(repeats)]


def faults() -> list[str]:
    """What was recorded besides what is sound."""
    names = sorted(path.name.removesuffix(".jsonl.gz") for path in CAPTURES.glob("*.jsonl.gz"))
    return [name for name in names if name not in ("reference", "clean", "prompt-mix")]


def ours(mine: Ours, clean: Recorded, repeats: int) -> dict[str, Found]:
    """Each fault, and the prompt mix, which is none."""
    results = {}
    for name in [*faults(), "prompt-mix"]:
        both = joined(clean, mine.recorded(name))
        found = results[name] = Found()
        for order in streams(len(clean), len(both) - len(clean), repeats, 1):
            pages = [(at, channel, checks) for at, channel, checks in mine.pages(both, order)]
            found.prompts += any(channel == "prompt" and at >= CLEAN for at, channel, _ in pages)
            pages = [page for page in pages if page[1] != "prompt"]
            if pages and pages[0][0] < CLEAN:
                found.early += 1  # a false page, which stays up: of the fault this stream says nothing
            elif pages:
                at, channel, checks = pages[0]
                found.delays.append(at - CLEAN + 1)
                found.by[channel if channel == "response" else f"check ({checks})"] += 1
            else:
                found.missed += 1
    return results


def clean_run_length(mine: Ours, clean: Recorded, repeats: int) -> tuple[int, int]:
    """Pages, and samples, of clean streams: each all clean samples in an order of its own."""
    draw, pages, samples = np.random.default_rng(2), 0, 0
    for _ in range(repeats):
        order = draw.permutation(len(clean))
        pages += sum(channel != "prompt" for _, channel, _ in mine.pages(clean, order))
        samples += len(order)
    return pages, samples


def peers(
    reference: Recorded, clean: Recorded, others: dict[str, Recorded], folder: Path, run_length: int, repeats: int
) -> None:
    """The same streams' response vectors through alibi-detect and Evidently, in their own environment."""

    def rows(recorded: Recorded) -> np.ndarray:
        return np.stack([each["response"] for each in recorded.vectors if "response" in each])

    arrays = {f"fault.{name}": rows(each) for name, each in others.items()}
    np.savez(folder / "vectors.npz", reference=rows(reference), clean=rows(clean), **arrays)
    done = subprocess.run(
        [str(PEER_PYTHON), str(HERE / "realtext_peers.py"), str(folder / "vectors.npz"), str(run_length), str(repeats)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout or f"the peers did not run: {done.stderr.strip().splitlines()[-1:]}")


def main() -> None:
    """All tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="streams a fault [default: 40]")
    parser.add_argument("--run-length", type=int, default=500, help="samples to a false page [default: 500]")
    parser.add_argument("--without-peers", action="store_true")
    given = parser.parse_args()
    configure("error")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mine = Ours(folder, given.run_length)
        clean = mine.recorded("clean")
        print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; Python {platform.python_version()}\n")
        print(
            f"Baseline of {mine.manifest.samples} samples, run length {given.run_length}; {given.repeats} streams a "
            f"fault, {CLEAN} clean samples before each.\n"
        )
        print("| fault | found | median delay | 90% | paged before | by | informed |\n|---|---|---|---|---|---|---|")
        for fault, found in ours(mine, clean, given.repeats).items():
            by = "; ".join(f"{channel} {times}" for channel, times in found.by.most_common(2))
            print(f"| {fault} | {found.row()} | {by} | {found.prompts} of {given.repeats} |", flush=True)
        pages, samples = clean_run_length(mine, clean, given.repeats)
        print(
            f"\nClean continuation: {pages} pages in {samples} samples, {samples / given.run_length:.1f} were declared "
            f"({len(clean)} different samples in {given.repeats} orders).\n"
        )
        if not given.without_peers:
            others = {fault: mine.recorded(fault) for fault in [*faults(), "prompt-mix"]}
            peers(mine.recorded("reference"), clean, others, folder, given.run_length, given.repeats)


if __name__ == "__main__":
    main()
