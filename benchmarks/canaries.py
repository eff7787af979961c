"""What canaries find of changes to a real engine: llama.cpp as recorded, and with other templates, caches and scaling.

python benchmarks/canaries.py
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from threading import Event

from palegreen.demo.engine import LlamaServer
from palegreen.evaluators.baseline.progress import silent
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.canary import Canary
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import Replica
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.lazily import Lazily
from palegreen.evaluators.probes.record import Plan, record
from palegreen.evaluators.probes.reference import load
from palegreen.runtime.exposition import Collected

QUESTIONS = """\
prompts:
  - {name: sun, user: "Is the sun a star?", max_tokens: 8}
  - {name: capital, user: "What is the capital of France? Answer in one sentence.", max_tokens: 8}
  - {name: count, user: "Count from one to ten in words.", max_tokens: 8}
  - {name: pirate, system: "You are a pirate.", user: "Where are you going today?", max_tokens: 8}
  - {name: german, user: "Translate into German: The cat sleeps on the chair.", max_tokens: 8}
"""
COUNT = 5
CHANGES: dict[str, tuple[int, tuple[str, ...]]] = {  # slots and flags
    "started again": (1, ()),
    "two slots": (2, ()),
    "KV cache in 8 bits": (1, ("-ctk", "q8_0")),
    "KV cache in 4 bits": (1, ("-ctk", "q4_0")),
    "RoPE scaled by 0.5": (1, ("--rope-freq-scale", "0.5")),
    "template of Llama 2": (1, ("--chat-template", "llama2")),
    "template of Gemma": (1, ("--chat-template", "gemma")),
}
COMPONENTS = ("exact", "edit", "embedding", "first_token", "logprob")


def judged(url: str, reference: Path, embed: Lazily) -> tuple[int, dict[str, list[float]]]:
    """Failures of one round of all questions, and the values of each component."""
    canary = CanaryConfig(url=url, sampled_share=0, timeout=300)
    config = EvaluateConfig(sink_address="127.0.0.1:0", canary=canary)
    probe = Canary(
        config, canary, load(reference), Chat(Replica.of(config, canary)), embed.vector, rng=random.Random(0)
    )
    for _ in range(COUNT):
        probe.run(Event())
    collected = Collected()
    probe.show(collected)
    lines = collected.readings().lines
    runs = [line.rsplit(" ", 1) for line in lines["palegreen_canary_runs_total"].splitlines()]
    scores = [line.rsplit(" ", 1) for line in lines.get("palegreen_canary_component_score", "").splitlines()]
    values = {
        each: [float(value) for series, value in scores if f'component="{each}"' in series] for each in COMPONENTS
    }
    return int(sum(float(value) for series, value in runs if 'result="fail"' in series)), values


def main() -> None:
    """Record, change, ask again; the mean of each component over the answers that have it."""
    embed = Lazily("minilm", 1)
    with tempfile.TemporaryDirectory() as folder:
        questions, reference = Path(folder) / "questions.yaml", Path(folder) / "reference.json"
        questions.write_text(QUESTIONS)
        with LlamaServer().start(slots=1) as server:
            plan = Plan(3, 0, "")
            record(Chat(Replica(server.url)), str(questions), reference, plan, force=True, created=0.0, bar=silent)
        print("| change | failed | " + " | ".join(COMPONENTS) + " |")
        print("|---|" + "--:|" * (1 + len(COMPONENTS)))
        for name, (slots, flags) in CHANGES.items():
            with LlamaServer().start(slots=slots, extra=flags) as server:
                failed, values = judged(server.url, reference, embed)
            means = (f"{sum(found) / len(found):.3f}" if found else "" for found in values.values())
            print(f"| {name} | {failed} of {COUNT} | " + " | ".join(means) + " |", flush=True)


if __name__ == "__main__":
    main()
