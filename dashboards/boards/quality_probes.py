"""Quality: what does not wait for users, canaries, retrieval and the comparison of replicas."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Panel

from palegreen.dashboards.board import Row
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    COUNT,
    GRAY,
    GREEN,
    PURPLE,
    RED,
    SECONDS,
    SHARE,
    steps,
    words,
)
from palegreen.dashboards.panels import Head, Query, series, timeline
from palegreen.dashboards.select import CLUSTER, RATE, REPLICA, quantile

_EACH = "endpoint, instance_id"
_NAME = "{{endpoint}} {{instance_id}}"
_REVISION = f'{CLUSTER}, model=~"$model", endpoint=~"$endpoint"'


def rows() -> list[Row]:
    """Canaries, retrieval, and replicas beside each other."""
    return [
        Row([_canaries(), _runs(), _sampled(), _canary_time()], title="Canaries", number=102),
        Row([_recall(), _queries(), _retrieval_time()], title="Retrieval", number=103),
        Row([_peers(), _distance(), _revisions()], title="Replicas beside each other", number=104),
    ]


def _canaries() -> Panel:
    return series(
        Head(
            8,
            "Canary scores",
            "How near the answers to fixed questions are to the recorded ones, of the worst replica: 1 is as recorded. "
            "All of them falling at one replica means other weights, another template or a damaged cache.",
            6,
        ),
        SHARE,
        Query(f"min by (canary) (palegreen_canary_score{{{REPLICA}}})", "{{canary}}"),
        top=1,
    )


def _runs() -> Panel:
    return series(
        Head(
            9,
            "Canary results",
            "Canaries that were put, by result. An error means that there was no answer to judge, so that nothing is "
            "known.",
            6,
        ),
        COUNT,
        Query(f"sum by (result) (increase(palegreen_canary_runs_total{{{REPLICA}}}{RATE}))", "{{result}}"),
        stacked=True,
    )


def _sampled() -> Panel:
    return series(
        Head(
            10,
            "Sampled canaries",
            "Evidence that answers at a temperature are distributed otherwise than when they were recorded: above 1 is "
            "an alarm.",
            6,
        ),
        COUNT,
        Query(f"max by ({_EACH}) (palegreen_canary_sampled_score_ratio{{{REPLICA}}})", _NAME),
        line=steps((limit("drift"), RED)),
        bottom=None,
    )


def _canary_time() -> Panel:
    return series(
        Head(
            11,
            "Canary latency",
            "Median time of a canary to its first and its last token. The question is always the same, so that only "
            "the replica and its load change it.",
            6,
        ),
        SECONDS,
        Query(quantile(0.5, "palegreen_canary_time_to_first_token_seconds", REPLICA, _EACH), f"first {_NAME}"),
        Query(quantile(0.5, "palegreen_canary_duration_seconds", REPLICA, _EACH), f"last {_NAME}"),
    )


def _recall() -> Panel:
    where = "index, k"
    return series(
        Head(
            12,
            "Recall",
            "Share of the true nearest neighbours that the index finds, with its interval. Worry when the upper end is "
            "below the line: then it is too low, however few the queries.",
            8,
        ),
        SHARE,
        Query(f"min by ({where}) (palegreen_retrieval_recall_ratio{{{REPLICA}}})", "{{index}} at {{k}}"),
        Query(
            f"min by ({where}) (palegreen_retrieval_recall_lower_ratio{{{REPLICA}}})", "{{index}} at {{k}}, at least"
        ),
        Query(f"min by ({where}) (palegreen_retrieval_recall_upper_ratio{{{REPLICA}}})", "{{index}} at {{k}}, at most"),
        line=steps((limit("recall"), GREEN), base=RED),
        top=1,
    )


def _queries() -> Panel:
    return series(
        Head(
            13,
            "Probed queries",
            "Queries of the probe by result. Empty means that the index returned nothing: answers are made up then, "
            "and no engine metric shows it.",
            8,
        ),
        COUNT,
        Query(
            f"sum by (index, result) (increase(palegreen_retrieval_queries_total{{{REPLICA}}}{RATE}))",
            "{{result}} {{index}}",
        ),
        stacked=True,
    )


def _retrieval_time() -> Panel:
    return series(
        Head(
            14,
            "Retrieval latency",
            "p95 of the time of a retrieval, of the probe and of users. The dots are single retrievals with a trace. "
            "Worry when that of the probe rises: it always asks alike.",
            8,
        ),
        SECONDS,
        Query(
            quantile(0.95, "palegreen_retrieval_duration_seconds", REPLICA, "index, source"),
            "{{source}} {{index}}",
            exemplar=True,
        ),
    )


def _peers() -> Panel:
    return timeline(
        Head(
            15,
            "Compared with its peers",
            "Whether each replica answers like the others of its model, whatever users ask. Differs: this one is at "
            "fault. Undecided: too few samples, other questions, or not for long enough.",
            8,
        ),
        Query(f"max by ({_EACH}) (palegreen:peer_verdict{{{REPLICA}}})", _NAME),
        mappings=words({"-1": ("differs", PURPLE), "0": ("undecided", GRAY), "1": ("agrees", GREEN)}),
    )


def _distance() -> Panel:
    apart = f'max by ({_EACH}) (palegreen:peer_distance{{channel="response", {REPLICA}}})'
    allowed = f'min by (endpoint) (palegreen:peer_threshold{{channel="response", {_REVISION}}})'
    return series(
        Head(
            16,
            "Distance from its peers",
            "How far the answers of each replica lie from those of the others, over what chance makes: above 1 it is "
            "not chance.",
            8,
        ),
        COUNT,
        Query(f"{apart} / on (endpoint) group_left () {allowed}", _NAME),
        line=steps((1, RED)),
    )


def _revisions() -> Panel:
    return timeline(
        Head(
            17,
            "Compared revisions",
            "Whether a revision answers and passes checks like the others of its model. A rollout reads the same "
            "series.",
            8,
        ),
        Query(f"max by (endpoint, revision) (palegreen:revision_verdict{{{_REVISION}}})", "{{endpoint}} {{revision}}"),
        mappings=words({"-1": ("fails", PURPLE), "0": ("undecided", GRAY), "1": ("passes", GREEN)}),
    )
