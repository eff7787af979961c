"""Overview: is it us, which replica, since when, and who owns it."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import CustomVariable
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, VariableOption

from palegreen.dashboards import events, links, looks, variables
from palegreen.dashboards.board import Row, board
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import BLUE, COUNT, GREEN, ORANGE, RED, SHARE, SINCE, TOKENS_PER_SECOND, YELLOW, steps
from palegreen.dashboards.panels import Head, Query, series, stats, timeline
from palegreen.dashboards.select import CAUSE, MODEL, REPLICA, gravity, per_second, quantile
from palegreen.dashboards.tables import Column, rows

UID = "palegreen-overview"
_ACTIVE = f"palegreen:cause_active{{{CAUSE}}}"
_CAUSE = "verdict, cause, owner, model, endpoint, instance_id, node, uuid"
_COLORS = {name: color for name, (_, color) in looks.VERDICTS.items()}
_WHERE = "model, endpoint, instance_id"
_SUSTAINED, _FAST = 1, 14.4  # burn rates: the budget lasts 30 days; 2 days, for which somebody is woken


def dashboard() -> Dashboard:
    """The board."""
    return board(
        UID,
        "Palegreen / Overview",
        "Which replica is in trouble, why, since when, and whose it is.",
        [*variables.replicas(), _shown()],
        [events.firing(), events.deployments(), events.baselines()],
        [
            Row([_in_trouble(), _verdicts()], height=9),
            Row([_causes()], height=9),
            Row([_objectives(), _budget(), _burn()], height=9, title="Service levels", number=101),
            Row([_models(), _since()], height=9, title="Models", number=102),
            Row([_saturation(), _waiting(), _tokens()], title="Load", number=103),
            Row([_alerts(), _changes(), _dates()], title="Alerts and changes", number=104),
        ],
    )


def _shown() -> variables.Variable:
    every = VariableOption(selected=True, text="all", value=">= 0")
    return CustomVariable("shown").label("Show replicas").values("all : >= 0,in trouble : > 0").current(every)


def _in_trouble() -> Panel:
    verdicts = f"palegreen:verdict{{{REPLICA}}}"
    return stats(
        Head(
            1,
            "Replicas in trouble",
            "How many replicas are slow, weird, expensive or blind now, of how many that are known. Worry at any "
            "number but 0: the table below says why. A replica that is blind may be well; nobody can tell.",
            5,
        ),
        COUNT,
        Query(f"sum by (verdict) ({verdicts})", "{{verdict}}"),
        Query(f"count(palegreen:replica{{{REPLICA}}})", "known"),
        colors=steps((1, ORANGE)),
        by_name={"known": steps(base=BLUE)},
    )


def _verdicts() -> Panel:
    parts = " or ".join(
        f'{bit} * palegreen:verdict{{verdict="{name}", {REPLICA}}}' for name, (bit, _) in looks.VERDICTS.items()
    )
    chosen = f"max by ({_WHERE}) (max_over_time(palegreen:verdict{{{REPLICA}}}[$__range] @ end())) $shown"
    return timeline(
        Head(
            2,
            "Verdict of each replica",
            "Each replica over time: well, or what is wrong with it. One replica in colour among green ones has a "
            "fault of its own; all of them at once share a cause. A gap means that nothing was known of it. In a large "
            "fleet choose 'in trouble' above.",
            19,
        ),
        Query(f"sum by ({_WHERE}) ({parts}) and on ({_WHERE}) ({chosen})", "{{model}} {{endpoint}} {{instance_id}}"),
        mappings=looks.verdicts(),
    )


def _causes() -> Panel:
    began = f"last_over_time(timestamp({_ACTIVE} unless {_ACTIVE} offset 1m)[$__range:1m])"
    longer = f"min_over_time(timestamp({_ACTIVE})[$__range:1m])"
    return rows(
        Head(
            3,
            "Active causes",
            "What is wrong now, where, since when and whose it is: the platform team's or the model's. Of several "
            "causes on one replica the gravest is on top. What began before the time shown counts from its start.",
            24,
        ),
        [
            Column("verdict", "verdict", mappings=looks.colored(_COLORS), fill=True, width=90),
            Column("cause", "cause"),
            Column("B", "severity", mappings=looks.severities(), fill=True, width=90),
            Column("owner", "owner", mappings=looks.colored(looks.OWNERS), fill=True, width=90),
            Column("A", "since", unit=SINCE, width=140),
            Column("model", "model", link=links.to("palegreen-model", model="model")),
            Column("endpoint", "endpoint"),
            Column("instance_id", "replica", link=links.to("palegreen-model", instance_id="replica")),
            Column("node", "node", link=links.to("palegreen-gpu", node="node")),
            Column("uuid", "GPU", link=links.to("palegreen-gpu", uuid="GPU")),
        ],
        Query(f"min by ({_CAUSE}) (1000 * (({began} or {longer} or timestamp({_ACTIVE})) and {_ACTIVE}))"),
        Query(gravity(CAUSE, _CAUSE)),
        sort=("severity", False),
    )


def _objectives() -> Panel:
    objective = f"palegreen:slo_objective_ratio{{{MODEL}}}"
    where = "model, endpoint, slo"
    return rows(
        Head(
            4,
            "Objectives",
            "For each model with traffic: the objective, how much of the error budget of 30 days is left, and how fast "
            "it is spent. At a burn rate of 1 it lasts 30 days. Worry below a tenth, or at a high burn rate.",
            12,
        ),
        [
            Column("model", "model", link=links.to("palegreen-model", model="model")),
            Column("endpoint", "endpoint"),
            Column("slo", "objective of"),
            Column("A", "goal", unit=SHARE, decimals=2, width=70),
            Column(
                "B",
                "budget left",
                unit=SHARE,
                decimals=0,
                steps=steps((0.1, ORANGE), (0.25, GREEN), base=RED),
                width=95,
            ),
            Column("C", "burn, 1 h", unit=COUNT, decimals=1, steps=_burning(), width=80),
            Column("D", "burn, 6 h", unit=COUNT, decimals=1, steps=_burning(), width=80),
        ],
        Query(f"max by ({where}) ({objective} and palegreen:slo_budget_remaining_ratio{{{MODEL}}})"),
        Query(f"min by ({where}) (palegreen:slo_budget_remaining_ratio{{{MODEL}}})"),
        Query(f"max by ({where}) (palegreen:slo_burn_rate:rate1h{{{MODEL}}})"),
        Query(f"max by ({where}) (palegreen:slo_error_ratio:rate6h{{{MODEL}}} / (1 - {objective}))"),
        sort=("budget left", False),
    )


def _burning() -> looks.Steps:
    return steps((_SUSTAINED, YELLOW), (_FAST, RED))


def _budget() -> Panel:
    return series(
        Head(
            5,
            "Error budget left",
            "Share of the error budget of 30 days that is left: 1 is untouched, below 0 the objective is missed (what "
            "is below -100% is cut off). Worry when it falls steeply.",
            6,
        ),
        SHARE,
        Query(
            f"min by (model, endpoint, slo) (palegreen:slo_budget_remaining_ratio{{{MODEL}}})",
            "{{slo}} {{model}} {{endpoint}}",
        ),
        top=1,
        bottom=-1,
    )


def _burn() -> Panel:
    return series(
        Head(
            6,
            "Burn rate, 1 h",
            "How fast the error budget is spent: at 1 it lasts its 30 days, at the red line the whole of it is gone in "
            "two days, and somebody is woken.",
            6,
        ),
        COUNT,
        Query(
            f"max by (model, endpoint, slo) (palegreen:slo_burn_rate:rate1h{{{MODEL}}})",
            "{{slo}} {{model}} {{endpoint}}",
        ),
        line=_burning(),
    )


def _models() -> Panel:
    where = "model, endpoint"
    each = f"max by ({where}, instance_id) (palegreen:verdict{{{REPLICA}}})"
    first = quantile(0.95, "palegreen_engine_time_to_first_token_seconds", REPLICA, f"{where}, engine")
    return rows(
        Head(
            7,
            "Models",
            "One row for each model and endpoint: how many replicas it has and how many of them are in trouble, what "
            "it does, and how well. Failing is the share of sampled responses that fail a check; drift above 1 is an "
            "alarm.",
            16,
        ),
        [
            Column("model", "model", link=links.to("palegreen-model", model="model")),
            Column("endpoint", "endpoint", link=links.to("palegreen-model", endpoint="endpoint")),
            Column("A", "replicas", unit=COUNT, width=80),
            Column("B", "in trouble", unit=COUNT, steps=steps((1, ORANGE)), width=85),
            Column("C", "tokens/s", unit=COUNT, decimals=1),
            Column("D", "p95 first token", unit="s"),
            Column("E", "failing, 1 h", unit=SHARE, decimals=1),
            Column("F", "drift", unit=COUNT, decimals=2, steps=steps((limit("drift"), RED)), width=70),
        ],
        Query(f"count by ({where}) (palegreen:replica{{{REPLICA}}})"),
        Query(f"sum by ({where}) ({each})"),
        Query(per_second("palegreen_engine_generation_tokens_total", REPLICA, where)),
        Query(f"max by ({where}) ({first})"),
        Query(f'max by ({where}) (palegreen:slo_error_ratio:rate1h{{slo="quality", {MODEL}}})'),
        Query(f'max by ({where}) (palegreen_drift_score_ratio{{channel="response", {REPLICA}}})'),
        sort=("in trouble", True),
    )


def _since() -> Panel:
    parts = " or ".join(
        f'{bit} * max by (cause, owner) (palegreen:cause_active{{verdict="{name}", {CAUSE}}})'
        for name, (bit, _) in looks.VERDICTS.items()
    )
    return timeline(
        Head(
            8,
            "Causes over time",
            "When each cause held anywhere in what is chosen, in the colour of its verdict. Causes that begin together "
            "belong together: the one that began first is likely to have brought about the others.",
            8,
        ),
        Query(parts, "{{cause}} ({{owner}})"),
        mappings=looks.verdicts(),
    )


def _saturation() -> Panel:
    return series(
        Head(
            9,
            "Saturation",
            "How near the fullest replica of each model is to what it can take: queue, KV cache and running requests. "
            "At 1 further requests wait.",
            8,
        ),
        SHARE,
        Query(f"max by (model, endpoint) (palegreen:saturation{{{REPLICA}}})", "{{model}} {{endpoint}}"),
        top=1,
    )


def _waiting() -> Panel:
    return series(
        Head(
            10,
            "Requests waiting",
            "Requests that engines have accepted and not begun. A queue that grows while GPUs are calm is no lack of "
            "GPUs: look at the KV cache and the limits of the engine.",
            8,
        ),
        COUNT,
        Query(
            f"sum by (model, endpoint) (palegreen_engine_requests_waiting{{{REPLICA}}})",
            "{{model}} {{endpoint}}",
        ),
    )


def _tokens() -> Panel:
    return series(
        Head(
            11,
            "Tokens generated",
            "Tokens a second of each model. A fall without a fall of requests means that the engines are slower, or "
            "that answers are shorter.",
            8,
        ),
        TOKENS_PER_SECOND,
        Query(
            per_second("palegreen_engine_generation_tokens_total", REPLICA, "model, endpoint"),
            "{{model}} {{endpoint}}",
        ),
    )


def _alerts() -> Panel:
    return series(
        Head(
            12,
            "Firing alerts",
            "Alerts that fire, by severity and owner. Critical ones wake somebody, warnings become tickets, the others "
            "are only shown.",
            7,
        ),
        COUNT,
        Query(
            f'count by (severity, owner) (ALERTS{{alertname=~"Palegreen.*", alertstate="firing", severity!="none", '
            f"{CAUSE}}})",
            "{{severity}} {{owner}}",
        ),
        stacked=True,
        decimals=0,
    )


def _changes() -> Panel:
    return series(
        Head(
            13,
            "Changes noticed",
            "Changes of what tells of a deployment: fingerprint, system prompt, served model, pod template. One that "
            "nobody announced is a silent change; see what else began then.",
            7,
        ),
        COUNT,
        Query(
            f"sum by (marker, model) (increase(palegreen_marker_changes_total{{{REPLICA}}}[$__rate_interval]))",
            "{{marker}} {{model}}",
        ),
        stacked=True,
    )


def _dates() -> Panel:
    return rows(
        Head(
            14,
            "Last deployment and baseline",
            "When each replica was last deployed, as far as evaluators know, and when its baseline was made. A "
            "baseline older than the deployment describes another model.",
            10,
        ),
        [
            Column("model", "model"),
            Column("instance_id", "replica", link=links.to("palegreen-quality", instance_id="replica")),
            Column("A", "deployed", unit=SINCE),
            Column("B", "baseline made", unit=SINCE),
        ],
        Query(f"1000 * max by ({_WHERE}) (palegreen_deploy_timestamp_seconds{{{REPLICA}}})"),
        Query(f"1000 * max by ({_WHERE}) (palegreen_baseline_created_timestamp_seconds{{{REPLICA}}})"),
        sort=("deployed", True),
    )
