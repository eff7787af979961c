"""Model: how long users wait."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Panel

from palegreen.dashboards.board import Row
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    COUNT,
    RED,
    SECONDS,
    steps,
)
from palegreen.dashboards.panels import Head, Query, buckets, series
from palegreen.dashboards.select import REPLICA, per_second, quantile, ratio

_SERVICE = "endpoint, engine"
_ENGINE = f'engine="$engine", {REPLICA}'


def rows() -> list[Row]:
    """What users feel, and the histograms of each kind of engine."""
    return [
        Row([_between_tokens(), _queue_wait(), _duration(), _tail()], title="What users feel", number=101),
        Row(
            [
                _heat(7, "First token", "palegreen_engine_time_to_first_token_seconds", "its first token"),
                _heat(8, "Between tokens", "palegreen_engine_inter_token_latency_seconds", "the next token"),
                _heat(9, "Queue", "palegreen_engine_queue_duration_seconds", "being scheduled"),
                _heat(10, "Whole request", "palegreen_engine_request_duration_seconds", "the end of the answer"),
            ],
            title="Latency of $engine",
            number=102,
            repeat="engine",
        ),
    ]


def quantiles(number: int, title: str, about: str, metric: str, width: int, levels: tuple[float, ...]) -> Panel:
    """Latency of each endpoint and kind of engine, a line for each quantile."""
    return series(
        Head(number, title, about, width),
        SECONDS,
        *(
            Query(quantile(level, metric, REPLICA, _SERVICE), f"p{round(level * 100)} {{{{endpoint}}}} {{{{engine}}}}")
            for level in levels
        ),
    )


def _between_tokens() -> Panel:
    return quantiles(
        3,
        "Between two tokens",
        "What a reader sees as the speed of writing. Above 0.2 s it is slower than people read. It rises with the "
        "batch, with throttled clocks and with long prefills of others.",
        "palegreen_engine_inter_token_latency_seconds",
        6,
        (0.5, 0.95),
    )


def _queue_wait() -> Panel:
    return quantiles(
        4,
        "Wait before the start",
        "Time a request waited before it was first scheduled. Worry when it is a large part of the time to first "
        "token: then capacity is missing, or the KV cache is full, and not speed.",
        "palegreen_engine_queue_duration_seconds",
        6,
        (0.5, 0.95),
    )


def _duration() -> Panel:
    return quantiles(
        5,
        "Whole request",
        "From arrival to the last token. It grows with the length of answers too: compare with the panel of lengths.",
        "palegreen_engine_request_duration_seconds",
        6,
        (0.5, 0.95),
    )


def _tail() -> Panel:
    metric = "palegreen_engine_time_to_first_token_seconds"
    tail, middle = (quantile(level, metric, REPLICA, _SERVICE) for level in (0.95, 0.5))
    return series(
        Head(
            6,
            "Tail over median",
            "p95 of the time to first token over its median: how inconsistent it is. Above the line the same question "
            "takes two seconds now and twenty the next time, often because one replica of several is slow.",
            6,
        ),
        COUNT,
        Query(ratio(tail, middle), "{{endpoint}} {{engine}}"),
        line=steps((limit("tail_over_median"), RED)),
    )


def _heat(number: int, title: str, metric: str, until: str) -> Panel:
    return buckets(
        Head(
            number,
            f"{title}, $engine",
            f"How many requests or tokens a second waited how long for {until}, in the buckets of this kind of engine. "
            "Two bands mean two kinds of requests, or a replica unlike the others.",
            6,
        ),
        SECONDS,
        Query(per_second(f"{metric}_bucket", _ENGINE, "le"), "{{le}}"),
    )
