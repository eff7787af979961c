"""What happened, drawn into every graph: alerts, deployments, other baselines."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery

from palegreen.dashboards.select import CAUSE, CLUSTER, REPLICA
from palegreen.dashboards.variables import DATASOURCE


def firing(node: bool = False) -> AnnotationQuery:
    """Alerts that fire; on boards of nodes those of all models."""
    chosen = f'{CLUSTER}, node=~"$node|"' if node else CAUSE
    expression = f'ALERTS{{alertname=~"Palegreen.*", alertstate="firing", severity=~"critical|warning", {chosen}}}'
    return (
        _query("Alerts", "red", expression)
        .title_format("{{alertname}}")
        .text_format("{{cause}}: {{model}} {{endpoint}} {{instance_id}} {{node}}, owner {{owner}}")
        .tag_keys("severity,verdict,owner")
        .step("60s")
    )


def deployments() -> AnnotationQuery:
    """Deployments that were declared to an evaluator, or noticed by it."""
    return _dated("Deployments", "blue", "palegreen_deploy_timestamp_seconds")


def baselines() -> AnnotationQuery:
    """Times at which baselines in force were made."""
    return _dated("Baselines", "purple", "palegreen_baseline_created_timestamp_seconds")


def _dated(name: str, color: str, metric: str) -> AnnotationQuery:
    return (
        _query(name, color, f"{metric}{{{REPLICA}}} * 1000")
        .use_value_for_time(True)
        .title_format(name.removesuffix("s"))
        .text_format("{{model}} {{endpoint}} {{instance_id}}")
        .tag_keys("model,endpoint")
        .step("60s")
    )


def _query(name: str, color: str, expression: str) -> AnnotationQuery:
    return AnnotationQuery().name(name).datasource(DATASOURCE).enable(True).icon_color(color).expr(expression)
