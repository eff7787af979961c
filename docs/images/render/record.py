"""What a real Prometheus answers to every panel, from the fleet of the tests: `python record.py OUT [SECONDS]`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from support.boards import boards, filled, panels
from support.fleet import Fleet

CHOSEN = {
    "palegreen-model": {"instance_id": "samples/(vllm|sglang)"},
    "palegreen-quality": {"model": "assistant|small.*"},
}


def main(out: Path, seconds: float) -> None:
    """Run the fleet for so many seconds and write down what it shows of them."""
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), Path(folder) / "drivers") as fleet:
        time.sleep(seconds)
        chosen = {"__rate_interval": "15s", "__range": f"{int(seconds)}s", "engine": "vllm"}
        recorded = {}
        for uid, board in boards().items():
            found, now = {}, time.time()
            for panel in panels(board):
                found[panel["id"]] = {
                    target["refId"]: fleet.over_time(expression, seconds - 15, 1, now)
                    if target.get("range")
                    else fleet.query(expression)
                    for target in panel["targets"]
                    for expression in [filled(target["expr"], board, chosen | CHOSEN.get(uid, {}))]
                }
            recorded[uid] = {"board": board, "results": found, "from": 1000 * (now - seconds + 15), "to": 1000 * now}
        out.write_text(json.dumps(recorded), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 150.0)
