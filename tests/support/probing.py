"""Rounds of a recall probe, and what it shows after them."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import orjson

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.retrieval import RetrievalProbe, probes
from palegreen.runtime.exposition import Collected
from support.engine import samples, value


def config(retrieval: dict[str, Any], **fields: Any) -> EvaluateConfig:
    """An evaluator's configuration with one probed index."""
    given = {"file": "samples.jsonl", "endpoint": "chat", "model": "llama", **fields}
    return EvaluateConfig.model_validate({**given, "retrieval": [{"index": "docs", **retrieval}]})


def probe(retrieval: dict[str, Any], **fields: Any) -> RetrievalProbe:
    """The probe of one index."""
    return probes(config(retrieval, **fields))[0]


def rounds(asked: RetrievalProbe, count: int = 1) -> None:
    """So many rounds, without the pauses between them."""
    for _ in range(count):
        asked.run(Event())


def shown(asked: RetrievalProbe, name: str, **labels: str) -> float | None:
    """One value of what it shows, None if it is absent."""
    collected = Collected()
    asked.show(collected)
    return value(samples(collected.readings()), f"palegreen_retrieval_{name}", index="docs", **labels)


def results(asked: RetrievalProbe) -> dict[str, float]:
    """How many queries came to which result."""
    collected = Collected()
    asked.show(collected)
    name = "palegreen_retrieval_queries_total"
    return {s.labels["result"]: s.value for s in samples(collected.readings()) if s.name == name and s.value}


def lines(path: Path, *records: Any) -> Path:
    """A file of JSON lines."""
    path.write_bytes(b"\n".join(orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY) for record in records))
    return path
