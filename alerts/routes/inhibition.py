"""Which alerts say no more than another that fires: one incident, one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Protocol

from palegreen.alerts.routes.tree import Matcher

# What an alert is about, by its scope; the last label is one that an alert of that scope must have. Labels that are
# empty on both sides are equal to Alertmanager, so without it any two alerts that lack one would be about the same.
IDENTITY = {
    "replica": ("cluster", "namespace", "instance_id"),
    "model": ("cluster", "namespace", "endpoint", "model"),
    "node": ("cluster", "node"),
}
_ALL = ("cluster", "namespace", "model", "endpoint", "instance_id", "pod", "node", "uuid")
_NOT_CRITICAL = Matcher("severity", "warning|info", "=~")


class Cause(Protocol):
    """What must be known of a cause (`catalogue.causes`)."""

    @property
    def name(self) -> str:
        """The label cause."""

    @property
    def owner(self) -> str:
        """`platform` or `model`."""

    @property
    def severity(self) -> str:
        """`critical`, `warning` or `info`."""

    @property
    def scope(self) -> str:
        """`replica`, `model` or `node`."""

    @property
    def explains(self) -> Sequence[str]:
        """Other causes that it brings about."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """A service-level objective that is missed: the cause of an alert, too, and explained by others."""

    name: str
    owner: str = "platform"
    severity: str = "critical"
    scope: str = "model"
    explains: tuple[str, ...] = ()


SYMPTOMS = tuple(Symptom(f"{slo}_objective") for slo in ("latency", "availability", "quality"))


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While an alert fires that matches `source`, nobody is told of those that match `target` and agree in `equal`."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...]


def inhibitions(causes: Iterable[Cause]) -> tuple[Inhibition, ...]:
    """All of them.

    Raises ValueError: a cause explains one that there is not, has a scope that is not known, or silences itself in a
    circle of causes, so that nobody would be told of any.
    """
    known: dict[str, Cause] = {cause.name: cause for cause in (*SYMPTOMS, *causes)}
    for cause in known.values():
        if cause.scope not in IDENTITY:
            raise ValueError(f"cause {cause.name}: scope is {cause.scope!r}; allowed: {', '.join(IDENTITY)}")
        for name in cause.explains:
            if name not in known:
                raise ValueError(f"cause {cause.name}: explains {name}, which is no cause; allowed: {', '.join(known)}")
    _refuse_circles(known)
    return (
        *_critical_over_lesser(),
        *_platform_over_model(),
        *(rule for cause in known.values() for rule in _explained(cause, known)),
    )


def _critical_over_lesser() -> Iterator[Inhibition]:
    """An alert that is critical silences its own lesser form."""
    for scope, identity in IDENTITY.items():
        source = (Matcher("severity", "critical"), Matcher("scope", scope), _present(identity[-1]))
        yield Inhibition(source, (_NOT_CRITICAL, Matcher("scope", scope)), ("alertname", *_ALL))


def _platform_over_model() -> Iterator[Inhibition]:
    """A replica that the platform must mend is not its model's owner's to look at."""
    identity = IDENTITY["replica"]
    source = (Matcher("owner", "platform"), Matcher("scope", "replica"), _present(identity[-1]))
    model = Matcher("owner", "model")
    yield Inhibition((*source, Matcher("severity", "critical")), (model,), identity)
    yield Inhibition((*source, Matcher("severity", "warning")), (model, _NOT_CRITICAL), (*identity, "verdict"))


def _explained(cause: Cause, known: dict[str, Cause]) -> Iterator[Inhibition]:
    """What a cause brings about: of the same replica, model or node, whichever both tell."""
    if cause.severity not in ("critical", "warning"):
        return  # nobody is told of it
    lesser = () if cause.severity == "critical" else (_NOT_CRITICAL,)
    for scope in IDENTITY:
        names = [name for name in cause.explains if known[name].scope == scope]
        if not names or {cause.scope, scope} == {"node", "model"}:
            continue  # no label tells which models a node serves
        identity = IDENTITY[_wider(cause.scope, scope)]
        source = (Matcher("cause", cause.name), Matcher("severity", cause.severity), _present(identity[-1]))
        target = (Matcher("cause", "|".join(names), "=~"), Matcher("scope", scope), *lesser)
        if cause.scope != "node":
            yield Inhibition(source, target, identity)
            continue
        # Of one GPU: what is about that GPU, or about a replica whose GPUs are not told. Of the node: all on it.
        absent, present = Matcher("uuid", ""), _present("uuid")
        yield Inhibition((*source, present), (*target, present), (*identity, "uuid"))
        yield Inhibition((*source, present), (*target, absent), identity)
        yield Inhibition((*source, absent), target, identity)


def _wider(one: str, other: str) -> str:
    """The scope whose labels alerts of both scopes have."""
    if one == other:
        return one
    return "node" if "node" in (one, other) else "model"


def _present(label: str) -> Matcher:
    return Matcher(label, "", "!=")


def _refuse_circles(known: dict[str, Cause]) -> None:
    graph = {cause.name: {name for name in known if _silences(cause, known[name])} for cause in known.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        raise ValueError(f"causes silence each other in a circle: {', '.join(circle.args[1])}") from None


def _silences(one: Cause, other: Cause) -> bool:
    """Whether nobody would be told of `other` while `one` holds, for the same replica, model or node."""
    if one.name == other.name or one.severity not in ("critical", "warning"):
        return False
    if one.severity == "warning" and other.severity == "critical":
        return False
    over = one.owner == "platform" and other.owner == "model" and one.scope == other.scope == "replica"
    return over or other.name in one.explains
