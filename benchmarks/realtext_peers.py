"""alibi-detect and Evidently on the response vectors that `realtext.py` wrote; run by it, in their own environment."""

from __future__ import annotations

import os
import statistics
import sys
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402 - after the warnings are off

CLEAN = 100
REFERENCE = 1_000  # of alibi's kernel, whose cost is quadratic
WINDOW = 100  # samples that Evidently compares


def delays(detector, arrays, name: str, repeats: int) -> tuple[list[int], int]:
    """Samples from the fault to the first alarm; and the streams in which there was none."""
    found, missed = [], 0
    clean, fault = arrays["clean"], arrays[f"fault.{name}"]
    draw = np.random.default_rng(1)
    for _ in range(repeats):
        before = clean[draw.permutation(len(clean))[:CLEAN]]
        after = fault[draw.permutation(len(fault))]
        detector.reset_state()
        for row in before:
            detector.predict(row)
        for at, row in enumerate(after, 1):
            if detector.predict(row)["data"]["is_drift"]:
                found.append(at)
                break
        else:
            missed += 1
    return found, missed


def alibi(arrays, names: list[str], run_length: int, repeats: int) -> None:
    """MMDDriftOnline at two windows. Alarms before the fault are not held against it."""
    import logging

    logging.disable(logging.CRITICAL)
    from alibi_detect.cd import MMDDriftOnline

    draw = np.random.default_rng(0)
    reference = arrays["reference"][draw.permutation(len(arrays["reference"]))[:REFERENCE]].astype(np.float32)
    print("| fault | alibi-detect W=25: found | median delay | W=100: found | median delay |\n|---|---|---|---|---|")
    detectors = [
        MMDDriftOnline(reference, run_length, window, backend="pytorch", n_bootstraps=2_500, verbose=False)
        for window in (25, 100)
    ]
    for name in names:
        cells = []
        for detector in detectors:
            found, missed = delays(detector, arrays, name, repeats)
            median = f"{statistics.median(found):.0f}" if found else ""
            cells.append(f"{len(found)} of {len(found) + missed} | {median}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def evidently(arrays, names: list[str], repeats: int) -> None:
    """Windows of samples against the reference, by its embedding drift methods."""
    import pandas as pd
    from evidently.legacy.calculations.data_drift import get_one_column_drift  # noqa: F401
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import distance, mmd, model

    methods = {"model": model(bootstrap=True), "mmd": mmd(bootstrap=True), "distance": distance(bootstrap=True)}
    draw = np.random.default_rng(2)

    def flagged(rows, method) -> int:
        times = 0
        for _ in range(repeats):
            reference = arrays["reference"][draw.permutation(len(arrays["reference"]))[:REFERENCE]]
            window = rows[draw.permutation(len(rows))[:WINDOW]]
            times += bool(method(pd.DataFrame(window), pd.DataFrame(reference))[1])
        return times

    print(f"\nEvidently: windows of {WINDOW} samples that it calls drifted, of {repeats}.\n")
    print(f"| fault | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    for name in ["clean", *names]:
        rows = arrays["clean"] if name == "clean" else arrays[f"fault.{name}"]
        print(f"| {name} | {' | '.join(str(flagged(rows, method)) for method in methods.values())} |", flush=True)


def main() -> None:
    """Both, as Markdown."""
    with np.load(sys.argv[1]) as file:
        arrays = dict(file)
    names = [name.removeprefix("fault.") for name in arrays if name.startswith("fault.")]
    alibi(arrays, names, int(sys.argv[2]), int(sys.argv[3]))
    evidently(arrays, names, max(5, int(sys.argv[3]) // 4))


if __name__ == "__main__":
    main()
