"""Quality: whether a model still answers as it did, by samples, canaries, retrieval and peers."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from palegreen.dashboards import events, variables
from palegreen.dashboards.board import Row, board
from palegreen.dashboards.boards import quality_probes
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    BLUE,
    COUNT,
    GREEN,
    ORANGE,
    PER_SECOND,
    PURPLE,
    RED,
    SECONDS,
    SHARE,
    SINCE,
    steps,
    words,
)
from palegreen.dashboards.panels import Head, Query, series, timeline
from palegreen.dashboards.select import CLUSTER, MODEL, RATE, REPLICA, per_second, quantile
from palegreen.dashboards.tables import Column, rows

UID = "palegreen-quality"
_EACH = "endpoint, instance_id"
_NAME = "{{endpoint}} {{instance_id}}"
_SAMPLES = "palegreen_quality_samples_total"
_REVISION = f'{CLUSTER}, model=~"$model", endpoint=~"$endpoint"'


def dashboard() -> Dashboard:
    """The board."""
    return board(
        UID,
        "Palegreen / Quality",
        "Checks, drift, canaries, retrieval and comparison of replicas.",
        variables.replicas(),
        [events.firing(), events.deployments(), events.baselines()],
        [
            Row([_failing(), _drift(), _alarms()]),
            Row([_checks(), _surely(), _evidence(), _scores()], title="Checks", number=101),
            *quality_probes.rows(),
            Row([_baselines(), _counts(), _watched()], title="What it rests on", number=105),
            Row([_users(), _judge(), _latency(), _steps()], title="What users and judges say", number=106),
        ],
        since="now-24h",
    )


def _failing() -> Panel:
    passed, all_of_them = (
        f'sum by ({_EACH}) (rate({_SAMPLES}{{sampled="rate", result=~"{result}", {REPLICA}}}{RATE}))'
        for result in ("pass", "pass|fail")
    )
    return series(
        Head(
            1,
            "Failing responses",
            "Share of sampled responses that fail a check, of each replica. Worry when one replica leaves the others, "
            "or all rise at a deployment. Few samples make it jump: see how many there are, below.",
            8,
        ),
        SHARE,
        Query(f"1 - {passed} / ({all_of_them} > 0)", _NAME),
        Query(
            f'max by (endpoint) (palegreen:slo_error_ratio:rate1h{{slo="quality", {MODEL}}})',
            "one hour, {{endpoint}}",
        ),
        line=steps((limit("check_fail"), ORANGE)),
        top=1,
    )


def _drift() -> Panel:
    return series(
        Head(
            2,
            "Drift",
            "How far responses, prompts and checks have moved from the baseline, over the alarm's threshold: above 1 "
            "is an alarm. Response: answers to like questions have changed. Prompt: users ask other things; that "
            "informs and pages nobody.",
            8,
        ),
        COUNT,
        Query(f"max by (channel, {_EACH}) (palegreen_drift_score_ratio{{{REPLICA}}})", "{{channel}} " + _NAME),
        line=steps((limit("drift"), RED)),
    )


def _alarms() -> Panel:
    return timeline(
        Head(
            3,
            "Drift alarms",
            "When each channel was in alarm. An alarm ends once the statistic has been low for a while, or when "
            "another baseline is promoted.",
            8,
        ),
        Query(f"max by (channel, {_EACH}) (palegreen_drift_alarm{{{REPLICA}}})", "{{channel}} " + _NAME),
        mappings=words({"0": ("well", GREEN), "1": ("alarm", PURPLE)}),
    )


def _checks() -> Panel:
    return series(
        Head(
            4,
            "Failing checks",
            "Share of outcomes of each check that failed in 30 minutes, of the worst replica. It names what is wrong: "
            "json, language, refusal, a template that leaks, an empty context.",
            6,
        ),
        SHARE,
        Query(f"max by (check) (palegreen:check_fail_ratio{{{REPLICA}}})", "{{check}}"),
        line=steps((limit("check_fail"), ORANGE)),
    )


def _surely() -> Panel:
    return series(
        Head(
            5,
            "Failing checks, at least",
            "The lower bound of that share, which takes into account how few samples there are. Alerts look at this "
            "one: three bad samples of five are no proof.",
            6,
        ),
        SHARE,
        Query(f"max by (check) (palegreen:check_fail_lower_ratio{{{REPLICA}}})", "{{check}}"),
        line=steps((limit("check_fail"), ORANGE)),
    )


def _evidence() -> Panel:
    return series(
        Head(
            6,
            "Evidence against each check",
            "What each check adds to the channel check of drift: how much evidence there is that it fails more often, "
            "or scores lower, than in the baseline. Above 1 it would alarm alone.",
            6,
        ),
        COUNT,
        Query(f"max by (check) (palegreen_drift_check_evidence_ratio{{{REPLICA}}})", "{{check}}"),
        line=steps((limit("drift"), RED)),
        bottom=None,
    )


def _scores() -> Panel:
    return series(
        Head(
            7,
            "Scores, lowest tenth",
            "The score below which a tenth of sampled responses lie, 0 worst to 1 best, by check. The dots are single "
            "responses with a trace.",
            6,
        ),
        SHARE,
        Query(quantile(0.1, "palegreen_quality_score", REPLICA, "check"), "{{check}}", exemplar=True),
        top=1,
    )


def _baselines() -> Panel:
    return rows(
        Head(
            18,
            "Baselines",
            "What each replica is compared with: when it was made, of how many samples, whether it is stale (old, "
            "before a deployment, or of another embedder), and whether newer ones wait to be promoted.",
            12,
        ),
        [
            Column("instance_id", "replica"),
            Column("A", "made", unit=SINCE),
            Column("B", "samples", unit=COUNT),
            Column("C", "stale", mappings=words({"0": ("no", GREEN), "1": ("yes", ORANGE)})),
            Column("D", "candidates", unit=COUNT, steps=steps((1, BLUE))),
        ],
        Query(f"1000 * max by (instance_id) (palegreen_baseline_created_timestamp_seconds{{{REPLICA}}})"),
        Query(f"max by (instance_id) (palegreen_baseline_samples{{{REPLICA}}})"),
        Query(f"max by (instance_id) (palegreen_baseline_stale{{{REPLICA}}})"),
        Query(f"max by (instance_id) (palegreen_baseline_candidates{{{REPLICA}}})"),
        sort=("stale", True),
    )


def _counts() -> Panel:
    return series(
        Head(
            19,
            "Sampled responses",
            "Responses that were scored, by result. Too few of them and nothing on this board can be judged; unscored "
            "ones had no text that any check applies to.",
            6,
        ),
        PER_SECOND,
        Query(per_second(_SAMPLES, f'sampled="rate", {REPLICA}', "result"), "{{result}}"),
        stacked=True,
    )


def _watched() -> Panel:
    return series(
        Head(
            20,
            "What drift sees",
            "What became of sampled responses in the drift detectors. Many outside the baseline mean that users ask "
            "what it has never seen: it is time for another baseline.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_drift_watched_samples_total", REPLICA, "result"), "{{result}}"),
        stacked=True,
    )


def _users() -> Panel:
    return series(
        Head(
            21,
            "Signals of users",
            "Thumbs, questions asked again, streams that users broke off. Repeated questions rise when answers get "
            "worse.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_feedback_total", REPLICA, "kind"), "{{kind}}"),
    )


def _judge() -> Panel:
    return series(
        Head(
            22,
            "Median score of the judge",
            "What a model that is asked says of sampled answers, 0 worst to 1 best. An opinion: it pages nobody. Empty "
            "without a judge.",
            6,
        ),
        SHARE,
        Query(quantile(0.5, "palegreen_judge_score", REPLICA, "trigger"), "{{trigger}}"),
        top=1,
    )


def _latency() -> Panel:
    return series(
        Head(
            23,
            "Latency as users see it",
            "p95 of the time to the first token and to the end of sampled responses, as the tap saw them. Far above "
            "what the engine says, the time is lost between the two.",
            6,
        ),
        SECONDS,
        Query(
            quantile(0.95, "palegreen_response_time_to_first_token_seconds", REPLICA, "endpoint"), "first {{endpoint}}"
        ),
        Query(quantile(0.95, "palegreen_response_duration_seconds", REPLICA, "endpoint"), "end {{endpoint}}"),
    )


def _steps() -> Panel:
    return series(
        Head(
            24,
            "Steps of a chain",
            "p95 of the time of each kind of step: model, retrieval, tool. From traces.",
            6,
        ),
        SECONDS,
        Query(
            quantile(0.95, "palegreen_chain_step_duration_seconds", REPLICA, "step, name"),
            "{{step}} {{name}}",
            exemplar=True,
        ),
    )
