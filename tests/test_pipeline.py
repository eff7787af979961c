"""What the scorer does to records, without the process around it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.waiting import until

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.pipeline import Pipeline


def test_what_is_too_old_is_forgotten_when_nothing_comes_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palegreen.evaluators.pipeline._TIDY_EVERY", 0.0)
    store = tmp_path / "samples.db"
    pipeline = Pipeline(EvaluateConfig(file=tmp_path, embedder="none", store=str(store), store_max_age=1.0))

    def stored() -> bool:
        return "palegreen_store_samples 1.0\n" in pipeline.readings().lines["palegreen_store_samples"]

    pipeline.score([Envelope({"tap": "file", "kind": "jsonl"}, [b'{"response": "An answer."}'])])
    assert stored()
    until(lambda: pipeline.score([]) or not stored(), 20)
    pipeline.close()
