"""Causes and alerts as the rules make them, for tests of routes and messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Known:
    """A cause, as far as routes need it."""

    name: str
    owner: str = "platform"
    severity: str = "critical"
    scope: str = "replica"
    explains: tuple[str, ...] = ()


# One of each kind, after the catalogue's.
CAUSES = (
    Known("latency_objective", owner="model", severity="objective", scope="model", explains=("tail_latency",)),
    Known("quality_objective", owner="model", severity="objective", scope="model"),
    Known("kv_thrash", explains=("queue_backlog", "tail_latency", "latency_objective")),
    Known("queue_backlog", severity="warning", explains=("tail_latency", "wedged")),
    Known("tail_latency", severity="warning"),
    Known("wedged"),
    Known("response_drift", owner="model", explains=("failing_check", "prompt_drift")),
    Known("failing_check", owner="model", severity="warning", explains=("quality_objective",)),
    Known("prompt_drift", owner="model", severity="info", explains=("response_drift",)),
    Known("no_canary", owner="model", severity="warning", scope="model"),
    Known("gpu_lost", scope="gpu", explains=("wedged", "gpu_slow", "latency_objective")),
    Known("gpu_slow", severity="warning", scope="gpu", explains=("tail_latency",)),
)
_VERDICTS = {
    "response_drift": "weird", "failing_check": "weird", "prompt_drift": "weird", "quality_objective": "weird",
    "no_canary": "blind", "gpu_lost": "blind",
}  # fmt: skip
_MODEL = {"cluster": "", "namespace": "prod", "model": "llama-3", "endpoint": "chat"}


def replica(number: int = 0, **labels: str) -> dict[str, str]:
    """What an alert says of where it is."""
    return {**_MODEL, "scope": "replica", "pod": f"llm-{number}", "instance_id": f"prod/llm-{number}", **labels}


def model(**labels: str) -> dict[str, str]:
    """Likewise, of a model."""
    return {**_MODEL, "scope": "model", **labels}


def node(name: str = "gpu-7", **labels: str) -> dict[str, str]:
    """Likewise, of a node or one of its GPUs."""
    return {"scope": "node", "node": name, **labels}


def alertname(cause: str) -> str:
    """The alert of a cause."""
    symptom = cause.removesuffix("_objective")
    return f"Palegreen{symptom.title()}BudgetBurn" if symptom != cause else _camel(cause)


def _camel(cause: str) -> str:
    return "Palegreen" + "".join(word.capitalize() for word in cause.split("_"))


def labels(cause: str, where: dict[str, str], **others: str) -> dict[str, str]:
    """Labels of an alert, as a rule and the configuration give them; empty ones are left out."""
    known = {known.name: known for known in CAUSES}.get(cause, Known(cause, scope="model"))
    given = {
        "alertname": alertname(cause),
        "cause": cause,
        "owner": known.owner,
        "severity": known.severity,
        "verdict": _VERDICTS.get(cause, "slow"),
        **where,
        **others,
    }
    return {name: value for name, value in given.items() if value}


def alert(
    cause: str, where: dict[str, str], *, over: bool = False, annotations: dict[str, str] | None = None, **others: str
) -> dict[str, Any]:
    """An alert as Prometheus posts it: firing since now for an hour, or `over` since a second ago.

    Alertmanager does not wait for others in the group of an alert that began longer ago than it would have waited.
    """
    now = datetime.now(UTC)
    return {
        "labels": labels(cause, where, **others),
        "annotations": annotations or {"summary": cause},
        "startsAt": (now - timedelta(minutes=1) if over else now).isoformat(),
        "endsAt": (now + (-timedelta(seconds=1) if over else timedelta(hours=1))).isoformat(),
    }
