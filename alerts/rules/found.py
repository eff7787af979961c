"""From signals to causes: each cause's rule, then who it is about, then one verdict a replica."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palegreen.alerts.rules.text import filled
from palegreen.catalogue.causes import VERDICTS, Cause

Rule = dict[str, Any]
SCOPES = {
    "replica": "replica",
    "model": "model",
    "container": "replica",
    "gpu": "node",
    "node": "node",
    "cluster": "model",
}
"""What an alert says of itself: whom it is about, and so how it is grouped."""
RECENTLY = {"critical": "30m", "warning": "6h"}
"""The longest of the shorter windows by which budgets of each severity burn."""
_ON_NODE = '{node="",instance_id!=""}'
# A cause of a pod or a GPU is found on each replica that uses it; on itself where none is known to.
_ATTACHED = {
    "replica": "group by ($R) (\n{expr}\n)",
    "model": "group by ($M) (\n{expr}\n)",
    "container": (
        'group by ($R) (palegreen:replica{{pod!=""}} and on (namespace, pod) (\n{expr}\n))\n'
        'or group by (namespace, pod, node) ((\n{expr}\n) unless on (namespace, pod) palegreen:replica{{pod!=""}})'
    ),
    "gpu": (
        "group by ($R, node, uuid) (\n"
        "  palegreen:replica_gpu * on (uuid) group_left (node)\n"
        "    topk by (uuid) (1, group by (uuid, node) (\n{expr}\n))\n)\n"
        "or group by (uuid, node) ((\n{expr}\n) unless on (uuid) palegreen:replica_gpu)"
    ),
    "node": "group by (node, instance) (\n{expr}\n)",
    "cluster": "group by (model_size) (\n{expr}\n)",
}


def cause_rules(causes: Iterable[Cause], scale: float) -> list[Rule]:
    """`palegreen:cause_found`, by verdict; objectives have rules of their own."""
    return [
        {
            "record": "palegreen:cause_found",
            "labels": _labels(cause) | {"severity": cause.severity},
            "expr": filled(_ATTACHED[cause.scope].format(expr=_indented(cause.expr)), scale),
        }
        for cause in causes
        if cause.expr
    ]


def objective_rules(causes: Iterable[Cause], scale: float) -> list[Rule]:
    """A burning budget as a cause. Its owner is the platform while a cause of the platform's explains it.

    Or did so as far back as the shorter windows reach: a budget goes on burning for that long after the cause is gone.
    """
    known = list(causes)
    rules = []
    for cause in known:
        if cause.expr:
            continue
        slo = cause.name.removesuffix("_objective")
        explaining = "|".join(other.name for other in known if _explains(other, cause))
        platform = f'palegreen:cause_active{{owner="platform",cause=~"{explaining}",model!=""}}'
        for owner, joined in (("platform", "and"), ("model", "unless")):
            burning = "\nor ".join(
                f'palegreen:slo_burning{{slo="{slo}",severity="{severity}"}}\n'
                f"  {joined} on (model, namespace) max_over_time({platform}[{recently}])"
                for severity, recently in RECENTLY.items()
            )
            rules.append(
                {
                    "record": "palegreen:cause_active",
                    "labels": _labels(cause) | {"owner": owner},
                    "expr": filled(f"group by (severity, $M) (\n{burning}\n)", scale),
                }
            )
    return rules


def _explains(other: Cause, objective: Cause) -> bool:
    told = other.owner == "platform" and other.severity in ("critical", "warning")
    return told and (other.verdict == objective.verdict or objective.name in other.explains)


def verdict_rules() -> list[Rule]:
    """`palegreen:cause_active`, with the node where it is known, and `palegreen:verdict`."""
    active = (
        'palegreen:cause_found{node!=""}\n'
        f"or palegreen:cause_found{_ON_NODE} * on (instance_id) group_left (node) palegreen:replica_node\n"
        f"or (palegreen:cause_found{_ON_NODE} unless on (instance_id) palegreen:replica_node)\n"
        'or palegreen:cause_found{node="",instance_id=""}'
    )
    verdicts = [
        {
            "record": "palegreen:verdict",
            "labels": {"verdict": verdict},
            "expr": filled(
                "group by ($R) (palegreen:replica and on (instance_id) "
                f'palegreen:cause_active{{verdict="{verdict}",instance_id!=""}})\n'
                "or 0 * palegreen:replica",
                1,
            ),
        }
        for verdict in VERDICTS
    ]
    return [{"record": "palegreen:cause_active", "expr": active}, *verdicts]


def _labels(cause: Cause) -> dict[str, str]:
    return {
        "verdict": cause.verdict,
        "cause": cause.name,
        "owner": cause.owner,
        "scope": SCOPES[cause.scope],
    }


def _indented(expr: str) -> str:
    return "\n".join(f"  {line}" for line in expr.strip().splitlines())
