"""Objectives: which buckets are below a limit, and what a configuration declares, through promtool."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rules import Recording, by, evaluate

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.rules import render_rules
from palegreen.alerts.rules.bounds import LEAST, MOST, below


def _numbers(least: str, most: str) -> st.SearchStrategy[float]:
    return st.decimals(least, most, allow_nan=False, places=6).map(float)


def _spelled(number: float) -> set[str]:
    """As Python, Go (`g` and OpenMetrics), Java and plain decimals write it."""
    plain = format(Decimal(repr(number)), "f")
    spelled = {plain, plain.removesuffix(".0"), f"{plain}0" if "." in plain else f"{plain}.0"}
    if 0 < number < 1e-3:  # else nobody writes an exponent that is negative
        mantissa, exponent = f"{number:e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        spelled |= {f"{mantissa}e{exponent}", f"{mantissa if '.' in mantissa else mantissa + '.0'}E{int(exponent)}"}
    return spelled


@given(_numbers("0.001", "99999"), _numbers("0", "999999"))
def test_a_bound_is_below_a_limit_if_its_number_is(limit: float, bound: float) -> None:
    for text in _spelled(bound):
        assert bool(re.fullmatch(below(limit), text)) == (bound < limit), text


@given(_numbers("0.001", "99999"))
def test_a_limit_is_not_below_itself_and_its_neighbours_are_told_apart(limit: float) -> None:
    for bound in (limit, round(limit + 1e-6, 6), round(limit - 1e-6, 6)):
        for text in _spelled(bound):
            assert bool(re.fullmatch(below(limit), text)) == (bound < limit), text


@pytest.mark.parametrize("text", ["+Inf", "1e+06", "1e+16", "1.5e+06"])
def test_what_no_limit_reaches_is_not_below(text: str) -> None:
    assert not re.fullmatch(below(999999.0), text)


@pytest.mark.parametrize("limit", [0.0, -1.0, LEAST / 2, MOST, float("inf"), float("nan")])
def test_a_limit_that_cannot_be_written_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match=r"allowed: a limit from 0.001 up to 1e\+06"):
        below(limit)


LABELS = 'model="{}",endpoint="{}",instance_id="prod/{}",namespace="prod",pod="{}"'
BOUNDS = {
    "vllm": ["0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0", "20.0", "40.0", "2560.0"],
    "sglang": ["0.1", "1.0", "4.0", "6.0", "8.0", "10.0", "20.0", "400.0"],
    "tgi": [
        "0.00015000000000000001",
        "3.787675244106352",
        "8.52226929923929",
        "12.783403948858936",
        "19.175105923288406",
    ],
    "triton": ["0.1", "0.5", "2.0", "5.0"],
    "dynamo": ["0.0047", "0.27", "3.9", "9.5", "15", "62", "260", "480"],
    "tap": ["0.005", "1", "10", "1e+06"],
}
"""Some bounds of each engine's histogram of the time to the first token, as they are or may be spelled."""
SECONDS = (0.2, 0.2, 3.0, 9.0, 9.0, 11.0, 13.0, 25.0, 70.0, 3000.0)


def _histogram(recording: Recording, labels: str, bounds: list[str], seconds: Sequence[float], minutes: int) -> None:
    name = "palegreen_engine_time_to_first_token_seconds_bucket"
    for bound in [*bounds, "+Inf"]:
        each = sum(value <= float(bound) for value in seconds)
        recording.series(f'{name}{{{labels},le="{bound}"}}', [each * minute for minute in range(minutes)])
    recording.series(f"palegreen_engine_requests_running{{{labels}}}", [4.0] * minutes)


def test_requests_are_slow_by_the_next_bound_that_an_engine_has(tmp_path: Path) -> None:
    recording = Recording()
    for engine, bounds in BOUNDS.items():
        _histogram(recording, LABELS.format(engine, "chat", engine, engine), bounds, SECONDS, 10)
    [slow] = evaluate(tmp_path, render_rules(), recording, "1m", "1m", [("palegreen:slow_ratio:rate5m", "9m")])

    found = by(slow, "model")

    limit = 10.0
    for engine, bounds in BOUNDS.items():
        numbers = [float(bound) for bound in bounds]
        judged = min((number for number in numbers if number >= limit), default=max(numbers))
        assert found[engine] == pytest.approx(sum(value > judged for value in SECONDS) / len(SECONDS)), engine
    assert found["vllm"] == pytest.approx(0.5)


ODD = 'org/m "7b" \\ $tail'
ODD_WRITTEN = ODD.replace("\\", r"\\").replace('"', r"\"")
CONFIG = AlertsConfig.model_validate(
    {
        "models": [
            {"model": "llama", "objectives": {"latency": {"ratio": 0.99, "ttft_seconds": 2}}, "team": "search"},
            {"model": "llama", "endpoint": "batch", "team": "night",
             "objectives": {"latency": {"ratio": 0.9, "ttft_seconds": 60}, "availability": {"ratio": 0.99}}},
            {"model": ODD, "objectives": {"quality": {"ratio": 0.8}}},
            {"model": "qwen", "team": "search"},
        ],
        "receivers": {
            "platform": {"critical": [{"webhook": {"url": "http://h.example/"}}], "warning": []},
            "search": {},
            "night": {},
        },
    }
)  # fmt: skip


def test_what_is_declared_holds_and_the_most_precise_first(tmp_path: Path) -> None:
    recording, minutes = Recording(), 21
    for model, endpoint in (("llama", "chat"), ("llama", "batch"), ("qwen", "chat"), (ODD_WRITTEN, "chat")):
        labels = LABELS.format(model, endpoint, endpoint + model[:1], endpoint + model[:1])
        _histogram(recording, labels, BOUNDS["vllm"], (3.0, 3.0, 3.0, 1.0), minutes)
        finished = f"palegreen_engine_requests_finished_total{{{labels},finish_reason"
        recording.series(f'{finished}="stop"}}', [98.0 * minute for minute in range(minutes)])
        recording.series(f'{finished}="error"}}', [2.0 * minute for minute in range(minutes)])

    wanted, slow, left, alerts = evaluate(
        tmp_path, render_rules(CONFIG), recording, "1m", "1m",
        [
            ("palegreen:slo_objective_ratio", "20m"),
            ("palegreen:slow_ratio:rate5m", "20m"),
            ("palegreen:slo_budget_remaining_ratio", "20m"),
            ('ALERTS{alertname=~".*BudgetBurn",alertstate="firing"}', "20m"),
        ],
    )  # fmt: skip

    defaults = {
        ("latency", "qwen", "chat"): 0.95,
        ("availability", "qwen", "chat"): 0.995,
        ("quality", "qwen", "chat"): 0.9,
    }
    assert by(wanted, "slo", "model", "endpoint") == defaults | {
        ("latency", "llama", "chat"): 0.99,
        ("latency", "llama", "batch"): 0.9,
        ("availability", "llama", "batch"): 0.99,
        ("quality", ODD_WRITTEN, "chat"): 0.8,
    }
    assert by(slow, "model", "endpoint") == {("llama", "chat"): 0.75, ("llama", "batch"): 0, ("qwen", "chat"): 0}
    assert by(left, "slo", "model", "endpoint") == pytest.approx(
        {
            ("latency", "llama", "chat"): 1 - 0.75 / 0.01,
            ("latency", "llama", "batch"): 1,
            ("latency", "qwen", "chat"): 1,
            ("availability", "llama", "batch"): 1 - 0.02 / 0.01,
            ("availability", "qwen", "chat"): 1 - 0.02 / 0.005,
        }
    )
    assert by(alerts, "cause", "model", "endpoint", "severity", "team") == {
        ("latency_objective", "llama", "chat", "critical", "search"): 1
    }
