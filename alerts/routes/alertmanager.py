"""Alertmanager's own configuration file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from palegreen.alerts.config import AlertsConfig, Email, PagerDuty, Slack, Webhook
from palegreen.alerts.routes import texts
from palegreen.alerts.routes.inhibition import Cause, inhibitions
from palegreen.alerts.routes.tree import Matcher, Receiver, Route, receivers, tree


def alertmanager(config: AlertsConfig, causes: Iterable[Cause]) -> dict[str, Any]:
    """The configuration as data; `palegreen.tmpl` is to lie beside it. Raises ValueError, as inhibitions()."""
    return {
        "templates": ["palegreen.tmpl"],
        "route": _route(tree(config)),
        "inhibit_rules": [
            {
                "source_matchers": _matchers(rule.source),
                "target_matchers": _matchers(rule.target),
                "equal": list(rule.equal),
            }
            for rule in inhibitions(causes)
        ],
        "receivers": [_receiver(receiver) for receiver in receivers(config)],
    }


def _route(route: Route) -> dict[str, Any]:
    timing = route.timing
    written = {
        "receiver": route.receiver,
        "matchers": _matchers(route.matchers),
        "group_by": list(route.group_by),
        "group_wait": timing and timing.group_wait,
        "group_interval": timing and timing.group_interval,
        "repeat_interval": timing and timing.repeat_interval,
        "routes": [_route(child) for child in route.routes],
    }
    return {key: value for key, value in written.items() if value}


def _matchers(matchers: Sequence[Matcher]) -> list[str]:
    return [f"{matcher.name}{matcher.operator}{json.dumps(matcher.value)}" for matcher in matchers]


def _receiver(receiver: Receiver) -> dict[str, Any]:
    written: dict[str, Any] = {"name": receiver.name}
    for channel in receiver.channels:
        match channel.settings:
            case PagerDuty() as settings:
                written.setdefault("pagerduty_configs", []).append(_pagerduty(settings, receiver.severity))
            case Slack() as settings:
                written.setdefault("slack_configs", []).append(_slack(settings))
            case Email() as settings:
                written.setdefault("email_configs", []).append(_email(settings))
            case Webhook() as settings:
                written.setdefault("webhook_configs", []).append(_webhook(settings, receiver.resolved))
    return written


def _pagerduty(settings: PagerDuty, severity: str) -> dict[str, Any]:
    return {
        "send_resolved": True,
        "routing_key_file": settings.routing_key_file,
        "severity": severity,
        "description": texts.TITLE,
        "client": texts.CLIENT,
        "client_url": texts.DASHBOARD,
        **texts.PAGERDUTY_FIELDS,
        "details": texts.PAGERDUTY_DETAILS,
        "links": [{"href": texts.RUNBOOK, "text": texts.RUNBOOK_LABEL}],
    }


def _slack(settings: Slack) -> dict[str, Any]:
    channel = {"channel": settings.channel} if settings.channel else {}
    return {
        "send_resolved": True,
        "api_url_file": settings.api_url_file,
        **channel,
        "color": texts.SLACK_COLOR,
        "fallback": texts.TITLE,
        "title": texts.SLACK_TITLE,
        "title_link": texts.DASHBOARD,
        "text": texts.SLACK_TEXT,
    }


def _email(settings: Email) -> dict[str, Any]:
    user = {}
    if settings.auth_username and settings.auth_password_file:
        user = {"auth_username": settings.auth_username, "auth_password_file": settings.auth_password_file}
    return {
        "send_resolved": True,
        "to": settings.to,
        "from": settings.from_,
        "smarthost": settings.smarthost,
        **user,
        "headers": {"Subject": texts.TITLE},
        "text": texts.EMAIL_TEXT,
        "html": texts.EMAIL_HTML,
    }


def _webhook(settings: Webhook, resolved: bool) -> dict[str, Any]:
    written: dict[str, Any] = {"send_resolved": resolved}
    written |= {"url": settings.url} if settings.url else {"url_file": settings.url_file}
    if settings.bearer_token_file:
        written["http_config"] = {"authorization": {"credentials_file": settings.bearer_token_file}}
    return written
