"""Objectives: errors and events of each model, error ratios over windows, what is left of the budget, burn rates.

Windows are made of the errors and events of five minutes, so that long ones cost little and weigh by traffic. A ratio
counts as exceeded when its lower bound (Wilson 1927) is: a few bad events are no evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palegreen.alerts.config import AlertsConfig, Model, Objectives
from palegreen.alerts.rules.bounds import below
from palegreen.alerts.rules.text import filled, scaled, seconds

Rule = dict[str, Any]
INTERVAL = "1m"  # of the rules' evaluation
_KNOWN = 1 / 8  # of a long window that must have been seen: three days of which an hour is known are an hour
SLOS = ("latency", "availability", "quality")
SHORT = ("30m", "1h", "2h", "6h")
LONG = ("1d", "3d", "30d")
# severity, budget multiple, long and short window (Google SRE workbook, chapter 5).
BURNS = (
    ("critical", 28.8, "30m", "5m"),  # as much of the budget in half the time; where it would be more than slo_most
    ("critical", 14.4, "1h", "5m"),
    ("critical", 6, "6h", "30m"),
    ("warning", 3, "1d", "2h"),
    ("warning", 1, "3d", "6h"),
)
DEFAULT = Objectives.model_validate(
    {
        "latency": {"ratio": 0.95, "ttft_seconds": 10, "inter_token_seconds": 0.4, "queue_seconds": 10},
        "availability": {"ratio": 0.995},
        "quality": {"ratio": 0.9},
    }
)
"""What holds for a model that declares nothing: lax, for it was not asked."""

_SIGNALS = {
    "ttft_seconds": "palegreen_engine_time_to_first_token_seconds",
    "inter_token_seconds": "palegreen_engine_inter_token_latency_seconds",
    "queue_seconds": "palegreen_engine_queue_duration_seconds",
}
# Where engines have no histograms, what the tap saw.
_INSTEAD = {"ttft_seconds": "palegreen_response_time_to_first_token_seconds"}
_FINISHED = "rate(palegreen_engine_requests_finished_total[5m])"
_REJECTED = "rate(palegreen_engine_requests_rejected_total[5m])"
_ASKED = 'route!~"/(metrics|ping|version|v1/models|(health|live|ready|server_|get_).*)"'
# Errors and events of a replica as its engine, its HTTP server and the proxy before it saw them: whoever saw most.
_AVAILABLE = f"""
max by ($R) (
  label_replace(
    sum by ($R) (
      rate(palegreen_engine_requests_finished_total{{finish_reason="error"}}[5m]) or {_REJECTED} or 0 * {_FINISHED}
    ),
    "seen", "engine", "", ""
  )
  or label_replace(
    sum by ($R) (rate(palegreen_engine_http_responses_total{{code_class="5xx",{_ASKED}}}[5m])), "seen", "http", "", ""
  )
  or label_replace(palegreen:proxy_errors:rate5m, "seen", "proxy", "", "")
)
"""
_SERVED = f"""
max by ($R) (
  label_replace(sum by ($R) ({_FINISHED} or {_REJECTED}), "seen", "engine", "", "")
  or label_replace(
    sum by ($R) (rate(palegreen_engine_http_responses_total{{{_ASKED}}}[5m])), "seen", "http", "", ""
  )
  or label_replace(palegreen:proxy_requests:rate5m, "seen", "proxy", "", "")
)
"""
_READY = 'palegreen_engine_state{state="ready"} == 1'
# Errors of a replica that loads or drains are the balancer's to avoid, as long as another one of the model is ready.
# Looked for as far back as rates see its errors, and a little further.
_EXCUSED = f"""
max by ($R) (max_over_time(palegreen_engine_state{{state=~"starting|loading|draining|sleeping"}}[6m])) == 1
  and on ($M) (count by ($M) ({_READY}) > 0)
  unless on (instance_id) (
    ({_READY}) unless on ($M) (count by ($M) ({_READY}) > 1)
  )
"""
_PROXY = """
sum by ($R) (
  topk by (instance_id) (1, palegreen:replica) * on (instance_id) group_right (model, endpoint, namespace, pod)
    sum by (instance_id) (rate(palegreen_proxy_requests_total{%s}[5m]))
)
"""


def event_rules(config: AlertsConfig) -> list[Rule]:
    """Events and errors a second over five minutes, by model, and the shorter windows."""
    scale = config.time_scale
    excused = "unless on (instance_id) palegreen:replica_excused"
    failed = _PROXY % 'code=~"5xx|none",ended!="client_abort"'
    rules = [
        _rule("palegreen:replica_excused", _EXCUSED, scale),
        _rule("palegreen:proxy_requests:rate5m", _PROXY % 'ended!="client_abort"', scale),
        _rule("palegreen:proxy_errors:rate5m", f"{failed}or 0 * palegreen:proxy_requests:rate5m", scale),
        _rule("palegreen:availability_errors:rate5m", _AVAILABLE, scale),
        _rule("palegreen:availability_events:rate5m", _SERVED, scale),
    ]
    rules += [
        _slo("palegreen:slo_errors:rate5m", "availability",
             f"sum by ($M) (palegreen:availability_errors:rate5m {excused})", scale),
        _slo("palegreen:slo_total:rate5m", "availability",
             f"sum by ($M) (palegreen:availability_events:rate5m {excused})", scale),
        _slo("palegreen:slo_errors:rate5m", "quality",
             'sum by ($M) (rate(palegreen_quality_samples_total{sampled="rate",result="fail"}[5m]))\n'
             'or 0 * sum by ($M) (rate(palegreen_quality_samples_total{sampled="rate",result="pass"}[5m]))', scale),
        _slo("palegreen:slo_total:rate5m", "quality",
             'sum by ($M) (rate(palegreen_quality_samples_total{sampled="rate",result=~"pass|fail"}[5m]))', scale),
        *_latency(config),
    ]  # fmt: skip
    for slo in SLOS:
        wanted = [
            f"{objective.ratio!r} * {which}"
            for which, objectives in _declared(config)
            if (objective := getattr(objectives, slo)) is not None
        ]
        rules.append(_slo("palegreen:slo_objective_ratio", slo, "\nor ".join(wanted), scale))
    rules.append(
        _rule(
            "palegreen:slo_error_ratio:rate5m", "palegreen:slo_errors:rate5m / (palegreen:slo_total:rate5m > 0)", scale
        )
    )
    return rules + [rule for window in SHORT for rule in _window(window, config)] + _burning(config)


def budget_rules(config: AlertsConfig) -> list[Rule]:
    """The long windows and what is left of the budget: evaluated less often."""
    return [
        *(rule for window in LONG for rule in _window(window, config)),
        _rule(
            "palegreen:slo_budget_remaining_ratio",
            "1 - palegreen:slo_error_ratio:rate30d / (1 - palegreen:slo_objective_ratio)",
            config.time_scale,
        ),
    ]


def model_rules(config: AlertsConfig) -> list[Rule]:
    """`palegreen:model_declared`: which models have an objective and a team of their own."""
    own = [f"palegreen:model{_selector(model)}" for model in config.models if model.objectives != Objectives()]
    teams: dict[str, list[str]] = {}
    taken: list[Model] = []
    for model in _by_precision(model for model in config.models if model.team):
        teams.setdefault(model.team, []).append(_without(model, taken))
        taken.append(model)
    rules = [_declaration({"what": "team", "team": team}, models) for team, models in teams.items()]
    return [*rules, _declaration({"what": "objectives"}, own)] if own else rules


def _declaration(labels: dict[str, str], models: list[str]) -> Rule:
    return {"record": "palegreen:model_declared", "labels": labels, "expr": "\nor ".join(models)}


def _declared(config: AlertsConfig) -> list[tuple[str, Objectives]]:
    """Which models have which objectives: those that are declared, the most precise first, and all others."""
    found: list[tuple[str, Objectives]] = []
    taken: list[Model] = []
    for model in _by_precision(model for model in config.models if model.objectives != Objectives()):
        found.append((_without(model, taken), model.objectives))
        taken.append(model)
    others = '(palegreen:model unless on ($M) palegreen:model_declared{what="objectives"})'
    return [*found, (others if found else "palegreen:model", DEFAULT)]


def _by_precision(models: Iterable[Model]) -> list[Model]:
    """What names an endpoint or a namespace goes before what names neither."""
    return sorted(models, key=lambda model: (not model.endpoint) + (not model.namespace))


def _without(model: Model, taken: Iterable[Model]) -> str:
    """The models that are meant, less those that a declaration before has taken."""
    overlapping = [f" unless palegreen:model{_selector(other)}" for other in taken if other.model == model.model]
    text = f"palegreen:model{_selector(model)}{''.join(overlapping)}"
    return f"({text})" if overlapping else text


def _selector(model: Model) -> str:
    wanted = {"model": model.model, "endpoint": model.endpoint, "namespace": model.namespace}
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in wanted.items() if value) + "}"


def _quoted(value: str) -> str:
    """As PromQL takes it between double quotes; `$` would be taken for a name of ours."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("$", r"\x24")


def _latency(config: AlertsConfig) -> list[Rule]:
    """The worst of the times that an objective names, as errors among requests."""
    slow: list[str] = []
    for which, objectives in _declared(config):
        objective = objectives.latency
        if objective is None:
            continue
        for name, metric in _SIGNALS.items():
            limit = getattr(objective, name)
            if limit is not None:
                late = _late(metric, _INSTEAD.get(name), limit)
                slow.append(f'label_replace(({late}) and on ($M) {which}, "time", "{name}", "", "")')
    return [
        _rule("palegreen:slow_ratio:rate5m", "max by ($M) (\n  " + "\n  or ".join(slow) + "\n)", config.time_scale),
        _slo("palegreen:slo_total:rate5m", "latency", _TOTAL, config.time_scale),
        _slo("palegreen:slo_errors:rate5m", "latency",
             'palegreen:slow_ratio:rate5m * on ($M) palegreen:slo_total:rate5m{slo="latency"}', config.time_scale),
    ]  # fmt: skip


_TOTAL = "\nor ".join(
    f'sum by ($M) (rate({name}_bucket{{le="+Inf"}}[5m]))'
    for name in (
        "palegreen_engine_time_to_first_token_seconds",
        "palegreen_engine_request_duration_seconds",
        "palegreen_engine_queue_duration_seconds",
        "palegreen_engine_inter_token_latency_seconds",
        "palegreen_response_time_to_first_token_seconds",
    )
)


def _late(metric: str, instead: str | None, limit: float) -> str:
    """Share of a histogram, by model, that is certainly beyond `limit`.

    That is what lies beyond the first of an engine's own bounds that is no less than `limit`; or, where all are less,
    beyond its last.
    """

    def ratio(name: str) -> str:
        less = below(limit)
        total = f'rate({name}_bucket{{le="+Inf"}}[5m])'
        within = (
            f'(min without (le) (rate({name}_bucket{{le!~"{less}|[+]Inf"}}[5m]))'
            f' or max without (le) (rate({name}_bucket{{le=~"{less}"}}[5m])))'
        )
        return f"sum by ($M) ({total} - ignoring (le) {within}) / (sum by ($M) ({total}) > 0)"

    return ratio(metric) if instead is None else f"({ratio(metric)}) or ({ratio(instead)})"


def _window(window: str, config: AlertsConfig) -> list[Rule]:
    """The error ratio of a window and, where burn rates are judged by it, its events once enough of it is known."""
    errors, total = (f"sum_over_time(palegreen:slo_{what}:rate5m[{window}])" for what in ("errors", "total"))
    rules = [_rule(f"palegreen:slo_error_ratio:rate{window}", f"{errors}\n  / ({total} > 0)", config.time_scale)]
    if any(window == long for _, _, long, _ in BURNS):
        every = seconds(scaled(INTERVAL, config.time_scale))
        known = _KNOWN * seconds(scaled(window, config.time_scale)) / every
        counted = f"count_over_time(palegreen:slo_total:rate5m[{window}]) > {known:g}"
        rules.append(
            _rule(f"palegreen:slo_events:sum{window}", f"{total} * {every}\n  and {counted}", config.time_scale)
        )
    return rules


def _burning(config: AlertsConfig) -> list[Rule]:
    """`palegreen:slo_burning`: 1 where both windows of a burn rate are exceeded."""
    scale = config.time_scale
    rules = [
        _rule(
            "palegreen:slo_burn_rate:rate1h",
            "palegreen:slo_error_ratio:rate1h / (1 - palegreen:slo_objective_ratio)",
            scale,
        )
    ]
    for severity in ("critical", "warning"):
        pairs = [_exceeded(factor, long, short) for which, factor, long, short in BURNS if which == severity]
        rules.append(
            _rule("palegreen:slo_burning", "group by (slo, $M) (\n" + "\nor ".join(pairs) + "\n)", scale)
            | {"labels": {"severity": severity}}
        )
    return rules


def _exceeded(factor: float, long: str, short: str) -> str:
    limit = f"clamp_max({factor:g} * (1 - palegreen:slo_objective_ratio), $slo_most)"
    ratio, events, z = f"palegreen:slo_error_ratio:rate{long}", f"palegreen:slo_events:sum{long}", "$slo_confidence"
    spread = f"sqrt(clamp_min({ratio} * (1 - {ratio}), 0) / {events} + {z} ^ 2 / (4 * {events} ^ 2))"
    lower = f"({ratio} + {z} ^ 2 / (2 * {events}) - {z} * {spread}) / (1 + {z} ^ 2 / {events})"
    return (
        f"({lower} > {limit})\n  and (palegreen:slo_error_ratio:rate{short} > {limit})\n"
        f"  and ({events} > $slo_least_events)"
    )


def _slo(record: str, slo: str, expr: str, scale: float) -> Rule:
    return {**_rule(record, expr, scale), "labels": {"slo": slo}}


def _rule(record: str, expr: str, scale: float) -> Rule:
    return {"record": record, "expr": filled(expr, scale)}
