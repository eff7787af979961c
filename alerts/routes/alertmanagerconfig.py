"""The same configuration for the Prometheus operator: an AlertmanagerConfig (monitoring.coreos.com/v1alpha1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from palegreen.alerts.config import AlertsConfig, Email, PagerDuty, Slack, Webhook
from palegreen.alerts.routes import texts
from palegreen.alerts.routes.inhibition import Cause, inhibitions
from palegreen.alerts.routes.tree import OURS, Matcher, Receiver, Route, receivers, tree


def alertmanagerconfig(config: AlertsConfig, causes: Iterable[Cause]) -> dict[str, Any]:
    """The resource as data. Raises ValueError, as inhibitions()."""
    return {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "AlertmanagerConfig",
        "metadata": {"name": "palegreen", "labels": {"app.kubernetes.io/name": "palegreen"}},
        "spec": {
            # the operator hangs this tree among others, and it is to take no alerts but ours
            "route": _route(replace(tree(config), matchers=(OURS,))),
            "inhibitRules": [
                {
                    "sourceMatch": _matchers(rule.source),
                    "targetMatch": _matchers(rule.target),
                    "equal": list(rule.equal),
                }
                for rule in inhibitions(causes)
            ],
            "receivers": [_receiver(receiver) for receiver in receivers(config)],
        },
    }


def secret(file: str) -> dict[str, str]:
    """Which Secret and key a file is: the operator mounts a Secret NAME as .../secrets/NAME/KEY.

    A folder that no Secret can be called has `-` for each character that is not allowed.
    """
    path = PurePosixPath(file)
    name = re.sub(r"[^a-z0-9.-]", "-", path.parent.name.lower()).strip("-.")
    return {"name": name or "palegreen", "key": re.sub(r"[^-._a-zA-Z0-9]", "-", path.name)}


def _route(route: Route) -> dict[str, Any]:
    timing = route.timing
    written = {
        "receiver": route.receiver,
        "matchers": _matchers(route.matchers),
        "groupBy": list(route.group_by),
        "groupWait": timing and timing.group_wait,
        "groupInterval": timing and timing.group_interval,
        "repeatInterval": timing and timing.repeat_interval,
        "routes": [_route(child) for child in route.routes],
    }
    return {key: value for key, value in written.items() if value}


def _matchers(matchers: Sequence[Matcher]) -> list[dict[str, str]]:
    return [{"name": matcher.name, "matchType": matcher.operator, "value": matcher.value} for matcher in matchers]


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _receiver(receiver: Receiver) -> dict[str, Any]:
    written: dict[str, Any] = {"name": receiver.name}
    for channel in receiver.channels:
        match channel.settings:
            case PagerDuty() as settings:
                written.setdefault("pagerdutyConfigs", []).append(_pagerduty(settings, receiver.severity))
            case Slack() as settings:
                written.setdefault("slackConfigs", []).append(_slack(settings))
            case Email() as settings:
                written.setdefault("emailConfigs", []).append(_email(settings))
            case Webhook() as settings:
                written.setdefault("webhookConfigs", []).append(_webhook(settings, receiver.resolved))
    return written


def _pagerduty(settings: PagerDuty, severity: str) -> dict[str, Any]:
    return {
        "sendResolved": True,
        "routingKey": secret(settings.routing_key_file),
        "severity": severity,
        "description": texts.TITLE,
        "client": texts.CLIENT,
        "clientURL": texts.DASHBOARD,
        **texts.PAGERDUTY_FIELDS,
        "details": _pairs(texts.PAGERDUTY_DETAILS),
        "pagerDutyLinkConfigs": [{"href": texts.RUNBOOK, "alt": texts.RUNBOOK_LABEL}],
    }


def _slack(settings: Slack) -> dict[str, Any]:
    channel = {"channel": settings.channel} if settings.channel else {}
    return {
        "sendResolved": True,
        "apiURL": secret(settings.api_url_file),
        **channel,
        "color": texts.SLACK_COLOR,
        "fallback": texts.TITLE,
        "title": texts.SLACK_TITLE,
        "titleLink": texts.DASHBOARD,
        "text": texts.SLACK_TEXT,
    }


def _email(settings: Email) -> dict[str, Any]:
    user = {}
    if settings.auth_username and settings.auth_password_file:
        user = {"authUsername": settings.auth_username, "authPassword": secret(settings.auth_password_file)}
    return {
        "sendResolved": True,
        "to": settings.to,
        "from": settings.from_,
        "smarthost": settings.smarthost,
        **user,
        "headers": _pairs({"Subject": texts.TITLE}),
        "text": texts.EMAIL_TEXT,
        "html": texts.EMAIL_HTML,
    }


def _webhook(settings: Webhook, resolved: bool) -> dict[str, Any]:
    written: dict[str, Any] = {"sendResolved": resolved}
    written |= {"url": settings.url} if settings.url else {"urlSecret": secret(settings.url_file or "")}
    if settings.bearer_token_file:
        written["httpConfig"] = {"authorization": {"credentials": secret(settings.bearer_token_file)}}
    return written
