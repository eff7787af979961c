"""Which alerts say no more than another that fires: one incident, one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Protocol

from palegreen.alerts.routes.tree import OURS, Matcher

# What an alert of each scope can say of where it is. `endpoint` is not among it: engines and evaluators may name it
# differently. Labels that are empty on both sides are equal to Alertmanager: each must be there in the source.
_REPLICA, _MODEL, _GPU, _NODE = ("namespace", "instance_id"), ("namespace", "model"), ("uuid",), ("node",)
_SAYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "gpu": (_GPU, _REPLICA, _MODEL, _NODE),
    "replica": (_REPLICA, _MODEL, _NODE),
    "container": (_REPLICA, _MODEL, _NODE),
    "model": (_MODEL,),
    "node": (_NODE,),
    "cluster": (),
}
_ALL = ("alertname", "cluster", "namespace", "model", "endpoint", "instance_id", "pod", "node", "uuid")
_LESSER = Matcher("severity", "warning|info", "=~")


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
        """`critical`, `warning`, `info`, or `objective`: the first or the second of these."""

    @property
    def scope(self) -> str:
        """What it is about: `replica`, `container`, `model`, `gpu`, `node` or `cluster`."""

    @property
    def explains(self) -> Sequence[str]:
        """Other causes that it brings about."""


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
    known = {cause.name: cause for cause in causes}
    for cause in known.values():
        if cause.scope not in _SAYS:
            raise ValueError(f"cause {cause.name}: scope is {cause.scope!r}; allowed: {', '.join(_SAYS)}")
        for name in cause.explains:
            if name not in known:
                raise ValueError(f"cause {cause.name}: explains {name}, which is no cause; allowed: {', '.join(known)}")
    _refuse_circles(known)
    return (
        # others' alerts name what they are about with other labels: all of one name would be the same
        Inhibition((OURS, Matcher("severity", "critical")), (_LESSER,), _ALL),
        *_platform_over_model(),
        *(rule for cause in known.values() for rule in _explained(cause, known)),
    )


def _platform_over_model() -> Iterator[Inhibition]:
    """A replica that the platform must mend is not its model's owner's to look at."""
    source = (Matcher("owner", "platform"), *_there(_REPLICA))
    model = Matcher("owner", "model")
    yield Inhibition((*source, Matcher("severity", "critical")), (model,), ("cluster", *_REPLICA))
    yield Inhibition((*source, Matcher("severity", "warning")), (model, _LESSER), ("cluster", *_REPLICA, "verdict"))


def _explained(cause: Cause, known: dict[str, Cause]) -> Iterator[Inhibition]:
    """What a cause brings about where it is; a warning silences no page."""
    for severity in {"objective": ("critical", "warning")}.get(cause.severity, (cause.severity,)):
        if severity == "info":
            continue  # nobody is told of it
        lesser = () if severity == "critical" else (_LESSER,)
        source = (Matcher("cause", cause.name), Matcher("severity", severity))
        by_place: dict[tuple[str, ...], list[str]] = {}
        for name in cause.explains:
            places = [place for place in _SAYS[cause.scope] if place in _SAYS[known[name].scope]]
            if places:
                by_place.setdefault(places[0], []).append(name)
        for place, names in by_place.items():
            target = (Matcher("cause", "|".join(names), "=~"), *lesser)
            yield Inhibition((*source, *_there(place)), target, ("cluster", *place))
            if cause.scope == "gpu" and place == _REPLICA:  # nobody knows who uses it: then all of its node
                yield Inhibition((*source, Matcher("instance_id", ""), *_there(_NODE)), target, ("cluster", *_NODE))


def _there(place: tuple[str, ...]) -> tuple[Matcher, ...]:
    """The narrowest label of a place is not empty."""
    return (Matcher(place[-1], "", "!="),)


def _refuse_circles(known: dict[str, Cause]) -> None:
    graph = {cause.name: {name for name in known if _silences(cause, known[name])} for cause in known.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        raise ValueError(f"causes silence each other in a circle: {', '.join(circle.args[1])}") from None


def _silences(one: Cause, other: Cause) -> bool:
    """Whether nobody would be told of `other` while `one` holds in the same place."""
    if one.name == other.name or one.severity == "info" or (one.severity == "warning" and other.severity == "critical"):
        return False
    over = (
        one.owner == "platform" and other.owner == "model" and {_REPLICA} <= {*_SAYS[one.scope]} & {*_SAYS[other.scope]}
    )
    return over or other.name in one.explains
