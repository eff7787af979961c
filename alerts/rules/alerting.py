"""One alert per cause: who is told, when, and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.rules.found import SCOPES
from palegreen.alerts.rules.text import filled, scaled, seconds
from palegreen.catalogue.causes import Cause, Number

Rule = dict[str, Any]
WATCHDOG = "PalegreenWatchdog"
_KEEP = "5m"  # an alert that comes and goes stays one alert
_RECENT = "1h"  # a deployment this long ago is worth a word
# What `$instance` and the like of a query select by: labels of the alert.
_SELECT = {
    "instance": ("instance_id",),
    "pod": ("namespace", "pod"),
    "uuid": ("uuid",),
    "node": ("node", "instance"),
    "daemon": ("node", "instance"),
    "model": ("model", "namespace"),
    "objective": ("model", "endpoint", "namespace"),
    "size": ("model_size",),
}
_FORMS = {
    "percent": "{{ . | first | value | humanizePercentage }}",
    "number": '{{ . | first | value | printf "%.4g" }}',
    "duration": "{{ . | first | value | humanizeDuration }}",
}
_CHANGES = ("model_changed", "prompt_changed")  # a marker that moves counts as a deployment: it is their news itself
_WHERE = {
    "replica": (
        "{{ with $labels.model }}{{ . }}{{ with $labels.endpoint }} ({{ . }}){{ end }} on {{ end }}"
        "{{ with $labels.instance_id }}{{ . }}{{ else }}"
        "{{ with $labels.pod }}{{ $labels.namespace }}/{{ . }}{{ else }}"
        "{{ with $labels.node }}{{ . }}{{ else }}a process{{ end }}{{ end }}{{ end }}"
    ),
    "model": (
        "{{ with $labels.model }}{{ . }}{{ else }}{{ with $labels.model_size }}{{ . }} in {{ end }}the cluster{{ end }}"
        "{{ with $labels.endpoint }} ({{ . }}){{ end }}"
    ),
    "node": (
        "{{ with $labels.node }}{{ . }}{{ else }}{{ with $labels.instance }}{{ . }}{{ else }}a node{{ end }}{{ end }}"
        "{{ with $labels.uuid }}, {{ . }}{{ end }}{{ with $labels.model }}, serving {{ . }}{{ end }}"
        "{{ with $labels.instance_id }} on {{ . }}{{ end }}"
    ),
}
_BOARDS = {
    "slow": "palegreen-model",
    "weird": "palegreen-quality",
    "expensive": "palegreen-gpu",
    "blind": "palegreen-self",
}
_VARIABLES = ("namespace", "model", "endpoint", "instance_id", "node", "uuid")


def alert_rules(causes: Iterable[Cause], config: AlertsConfig) -> list[Rule]:
    """The alerts that are not switched off, and the watchdog."""
    found = [rule for cause in causes if cause.alert not in config.disabled for rule in _alerts(cause, config)]
    return [*found, _watchdog(config)]


def _alerts(cause: Cause, config: AlertsConfig) -> list[Rule]:
    if cause.severity != "objective":
        return [_alert(cause, cause.severity, config)]
    return [_alert(cause, severity, config) for severity in ("critical", "warning")]


def _alert(cause: Cause, severity: str, config: AlertsConfig) -> Rule:
    scope = SCOPES[cause.scope]
    labels = {"severity": severity, "verdict": cause.verdict, "cause": cause.name, "scope": scope}
    if cause.severity != "objective":  # the owner of an objective is the series': who has the cause
        labels["owner"] = cause.owner
    rule: Rule = {"alert": cause.alert, "expr": _expression(cause, severity, config)}
    if seconds(cause.wait):
        rule["for"] = scaled(cause.wait, config.time_scale)
    rule["keep_firing_for"] = scaled(_KEEP, config.time_scale)
    return rule | {
        "labels": labels,
        "annotations": {
            "summary": f"{_WHERE[scope]}: {cause.summary}",
            "description": f"{_why(cause, config)} Next: {cause.next}{_changes(cause, config)}",
            "runbook_url": config.runbook(cause.alert),
            "dashboard_url": _dashboard(cause, config),
        },
    }


def _expression(cause: Cause, severity: str, config: AlertsConfig) -> str:
    """The cause, with the team that has declared the model."""
    active = f'palegreen:cause_active{{cause="{cause.name}",severity="{severity}"}}'
    if cause.owner != "model" or not any(model.team for model in config.models):
        return active
    team = 'palegreen:model_declared{what="team"}'
    on = "on (model, endpoint, namespace)"
    return f"{active} * {on} group_left (team) {team}\nor ({active} unless {on} {team})"


def _why(cause: Cause, config: AlertsConfig) -> str:
    def number(found: re.Match[str]) -> str:
        return _asked(cause.numbers[found[1]], config)

    why = re.sub(r"\{(\w+)\}", number, cause.why)
    if cause.severity == "objective":
        which = 'palegreen:cause_active{model=%q,namespace=%q,severity=~"critical|warning",cause!~".*_objective"}'
        asked = _query(which, ("model", "namespace"))
        each = "{{ .Labels.cause }} on {{ .Labels.instance_id }};"
        why += f" Active causes:{{{{ range {asked} }}}} {each}{{{{ else }}}} none.{{{{ end }}}}"
    return why


def _asked(number: Number, config: AlertsConfig) -> str:
    """A query in the text of an alert, and how its result is written; without a result it is unknown."""
    labels: list[str] = []

    def select(found: re.Match[str]) -> str:
        names = _SELECT[found[1]]
        labels.extend(names)
        return ",".join(f"{name}=%q" for name in names)

    text = re.sub(r"\$(instance|pod|uuid|node|daemon|model|objective|size)\b", select, number.query)
    form, _, label = number.form.partition(" ")
    written = f"{{{{ (. | first).Labels.{label} }}}}" if form == "label" else _FORMS[form]
    return (
        f"{{{{ with {_query(filled(text, config.time_scale), labels)} }}}}{written}{{{{ else }}}}unknown{{{{ end }}}}"
    )


def _query(promql: str, labels: Iterable[str]) -> str:
    quoted = '"' + promql.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
    arguments = " ".join(f"$labels.{name}" for name in labels)
    return f"query (printf {quoted} {arguments})" if arguments else f"query {quoted}"


def _changes(cause: Cause, config: AlertsConfig) -> str:
    """What was rolled out or promoted shortly before, on this replica or, of a model, on any."""
    scope = SCOPES[cause.scope]
    if scope == "node" or cause.name in _CHANGES:
        return ""
    labels = ("instance_id",) if scope == "replica" else ("model", "namespace")
    where = ",".join(f"{name}=%q" for name in labels)
    recent = seconds(scaled(_RECENT, config.time_scale))
    texts = []
    for metric, told in (
        ("palegreen_deploy_timestamp_seconds", "A deployment was declared"),
        ("palegreen_baseline_created_timestamp_seconds", "The baseline was made"),
    ):
        asked = _query(f"min(time() - {metric}{{{where}}}) < {recent}", labels)
        texts.append(f"{{{{ range {asked} }}}} {told} {{{{ .Value | humanizeDuration }}}} before.{{{{ end }}}}")
    return "".join(texts)


def _dashboard(cause: Cause, config: AlertsConfig) -> str:
    of_node = cause.scope in ("gpu", "container") or (cause.scope, cause.verdict) == ("node", "slow")
    board = "palegreen-gpu" if of_node else _BOARDS[cause.verdict]
    variables = "".join(
        f"{{{{ with $labels.{name} }}}}&var-{name}={{{{ . | urlquery }}}}{{{{ end }}}}" for name in _VARIABLES
    )
    return f"{config.dashboard_url.rstrip('/')}/d/{board}?from=now-3h&to=now{variables}"


def _watchdog(config: AlertsConfig) -> Rule:
    return {
        "alert": WATCHDOG,
        "expr": "vector(1)",
        "labels": {"severity": "none", "owner": "platform", "verdict": "", "cause": "watchdog", "scope": "cluster"},
        "annotations": {
            "summary": "Alerts are evaluated and delivered",
            "description": "Always fires. Who no longer hears it knows that Prometheus or Alertmanager is gone.",
            "runbook_url": config.runbook(WATCHDOG),
            "dashboard_url": f"{config.dashboard_url.rstrip('/')}/d/palegreen-self",
        },
    }
