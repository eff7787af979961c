"""Canaries against a real llama.cpp server: as recorded it passes, and what changes the model is found."""

from __future__ import annotations

import random
from pathlib import Path
from threading import Event

import pytest

from palegreen.demo import engine
from palegreen.demo.engine import LlamaServer
from palegreen.evaluators.baseline.progress import silent
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.canary import Canary
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import Replica
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.progress import Progress
from palegreen.evaluators.probes.record import Plan, record
from palegreen.evaluators.probes.reference import load
from palegreen.runtime.exposition import Collected

pytestmark = pytest.mark.skipif(engine.available() is not None, reason=engine.available() or "")

QUESTIONS = """\
prompts:
  - {name: sun, user: "Is the sun a star?", max_tokens: 4}
  - {name: capital, user: "What is the capital of France?", max_tokens: 4}
"""


def results(probe: Canary) -> dict[str, float]:
    collected = Collected()
    probe.show(collected)
    lines = collected.readings().lines["palegreen_canary_runs_total"].splitlines()
    found = dict.fromkeys(("pass", "fail", "error"), 0.0)
    for line in lines:
        found[line.split('result="')[1].split('"')[0]] += float(line.rsplit(" ", 1)[1])
    return found


def test_a_server_passes_as_it_was_recorded_and_fails_with_another_chat_template(tmp_path: Path) -> None:
    (tmp_path / "questions.yaml").write_text(QUESTIONS)
    out = tmp_path / "reference.json"

    def canary(url: str) -> Canary:
        settings = CanaryConfig(url=url, sampled_share=0, timeout=120)
        config = EvaluateConfig(sink_address="127.0.0.1:0", canary=settings)
        chat = Chat(Replica.of(config, settings))
        probe = Canary(config, settings, load(out), chat, lambda _: None, rng=random.Random(0))
        for _ in range(2):
            probe.run(Event())
        return probe

    with LlamaServer().start(slots=1, threads=1) as server:
        chat = Chat(Replica(server.url))
        plan = Plan(2, 0, "")
        record(chat, str(tmp_path / "questions.yaml"), out, plan, force=False, created=0.0, bar=silent)
        assert chat.has_logprobs
        assert results(canary(server.url)) == {"pass": 2, "fail": 0, "error": 0}
        settings = CanaryConfig(url=server.url, progress_timeout=120)
        config = EvaluateConfig(sink_address="127.0.0.1:0", canary=settings)
        progress = Progress(config, settings, Chat(Replica(server.url), detailed=False), "")
        progress.run(Event())
        assert progress.state == "progress"
    with LlamaServer().start(slots=1, threads=1, extra=("--chat-template", "llama2")) as server:
        assert results(canary(server.url)) == {"pass": 0, "fail": 2, "error": 0}
