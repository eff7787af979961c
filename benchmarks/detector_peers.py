"""What the other tools make of the same streams: run by `detectors.py` in the peers' environment; prints JSON lines.

python detector_peers.py DETECTOR FILE    DETECTOR: mmd-25, mmd-100, lsdd-100, evidently
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np


def main() -> None:
    """Measure one."""
    kind, file = sys.argv[1:]
    streams = dict(np.load(file))
    print(json.dumps(evidently(streams) if kind == "evidently" else online(kind, streams)))


def online(kind: str, streams: dict[str, Any]) -> dict[str, Any]:
    """First alarms by stream of alibi-detect's online detectors."""
    from alibi_detect.cd import LSDDDriftOnline, MMDDriftOnline

    name, window = kind.split("-")
    make = {"mmd": MMDDriftOnline, "lsdd": LSDDDriftOnline}[name]
    began = time.process_time()
    detector = make(
        streams.pop("reference"),
        ert=float(streams.pop("run_length")),
        window_size=int(window),
        backend="pytorch",
        n_bootstraps=1_000,
        verbose=False,
    )
    calibrated = time.process_time() - began
    found: dict[str, Any] = {"calibrated": calibrated}
    samples, began = 0, time.process_time()
    for shift, each in streams.items():
        first = []
        for stream in each:
            detector.reset_state()
            at = next((at for at, x in enumerate(stream, 1) if detector.predict(x)["data"]["is_drift"]), len(stream))
            first.append(at)
            samples += at
        found[shift] = first
    found["microseconds"] = (time.process_time() - began) / samples * 1e6
    return found


def evidently(streams: dict[str, Any]) -> dict[str, Any]:
    """Share of windows that it flags, by method and shift."""
    import pandas as pd
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import distance, mmd, model

    methods = {
        "mmd, bootstrap": mmd(bootstrap=True),
        "mmd": mmd(),
        "model, bootstrap": model(bootstrap=True),
        "model": model(),
        "distance": distance(),
    }
    reference = pd.DataFrame(streams["reference"])
    found: dict[str, Any] = {}
    for name, flags in methods.items():
        for shift, each in streams.items():
            if shift in ("reference", "run_length"):
                continue
            # It adds a column to what it is given.
            flagged = [bool(flags(pd.DataFrame(stream[:200]), reference.copy())[1]) for stream in each]
            found[f"{name}/{shift}"] = float(np.mean(flagged))
    return found


if __name__ == "__main__":
    main()
