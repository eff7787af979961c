"""Which receiver an alert goes to, and with which others it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from palegreen.alerts.config import OWNERS, SEVERITIES, AlertsConfig, Channel

NOBODY = "nobody"
WATCHDOG = "watchdog"
# `cluster` is where Prometheus sets it as an external label; where nobody does, it is empty everywhere and equal.
INCIDENT = ("owner", "verdict", "cluster", "namespace", "model", "endpoint")
NODE_INCIDENT = ("owner", "cluster", "node")


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label."""

    name: str
    value: str
    operator: Literal["=", "!=", "=~", "!~"] = "="


OURS = Matcher("alertname", "Palegreen.+", "=~")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a group waits before it is told, before changes of it are, and before it is told again."""

    group_wait: str
    group_interval: str
    repeat_interval: str


@dataclass(frozen=True, slots=True)
class Route:
    """Alerts that match go to a receiver, unless one of `routes`, the first that matches, is closer."""

    receiver: str
    matchers: tuple[Matcher, ...] = ()
    group_by: tuple[str, ...] = ()
    timing: Timing | None = None
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Receiver:
    """A name and the ways to tell it."""

    name: str
    severity: str
    channels: tuple[Channel, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether it is told of the end; a dead man's switch must hear nothing then."""
        return self.name != WATCHDOG


def receivers(config: AlertsConfig) -> tuple[Receiver, ...]:
    """Everybody who is told something, and `nobody`."""
    told = [
        Receiver(f"{audience}-{severity}", severity, channels)
        for audience in sorted(config.receivers)
        for severity in SEVERITIES
        if (channels := getattr(config.receivers[audience], severity))
    ]
    if config.watchdog.webhook is not None:
        told.append(Receiver(WATCHDOG, "none", (Channel(webhook=config.watchdog.webhook),)))
    return (*told, Receiver(NOBODY, "none"))


def tree(config: AlertsConfig) -> Route:
    """The routes. What no route expects, such as an unknown severity, is a warning of the platform's."""
    return Route(
        receiver=_receiver(config, "platform", "warning"),
        group_by=INCIDENT,
        timing=Timing(config.duration(30), config.duration(300), config.duration(12 * 3600)),
        routes=(_watchdog(config), Route(NOBODY, (Matcher("severity", "none"),)), *_leaves(config)),
    )


def _leaves(config: AlertsConfig) -> list[Route]:
    leaves = [
        _leaf(_receiver(config, audience, severity), (*whose, Matcher("severity", severity)))
        for whose, audience in _whose(config)
        for severity in SEVERITIES
        if getattr(config.receivers[audience], severity) is not None
    ]
    return [*leaves, Route(NOBODY, (Matcher("severity", "info"),))]


def _leaf(receiver: str, matchers: tuple[Matcher, ...]) -> Route:
    return Route(receiver, matchers, routes=(Route(receiver, (Matcher("scope", "node"),), NODE_INCIDENT),))


def _whose(config: AlertsConfig) -> list[tuple[tuple[Matcher, ...], str]]:
    """From the most particular: models' teams, models without one, and what is left, of owners nobody knows too."""
    model = Matcher("owner", "model")
    found: list[tuple[tuple[Matcher, ...], str]] = [((model, Matcher("team", team)), team) for team in _teams(config)]
    if "model" in config.receivers:
        found.append(((model,), "model"))
    return [*found, ((), "platform")]


def _teams(config: AlertsConfig) -> list[str]:
    """Teams with receivers of their own; the platform's is one of them where it owns a model."""
    own = {"platform"} if any(model.team == "platform" for model in config.models) else set()
    return sorted((config.receivers.keys() - set(OWNERS)) | own)


def _receiver(config: AlertsConfig, audience: str, severity: str) -> str:
    return f"{audience}-{severity}" if getattr(config.receivers[audience], severity) else NOBODY


def _watchdog(config: AlertsConfig) -> Route:
    return Route(
        WATCHDOG if config.watchdog.webhook else NOBODY,
        (Matcher("alertname", "PalegreenWatchdog"),),
        ("alertname", "cluster"),
        Timing(config.duration(1), config.duration(60), config.duration(50)),
    )
