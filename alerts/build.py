"""All files of `palegreen alerts build`."""

from __future__ import annotations

from collections.abc import Mapping

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.routes import TEMPLATE, render_alertmanager, render_alertmanagerconfig, template
from palegreen.alerts.rules import render_rules
from palegreen.catalogue.causes import causes


def build(config: AlertsConfig) -> Mapping[str, bytes]:
    """Contents by file name, the same bytes each time. Raises rules.UnknownNameError."""
    known = tuple(causes().values())
    texts = {
        "rules.yaml": render_rules(config),
        "alertmanager.yaml": render_alertmanager(config, known),
        "alertmanagerconfig.yaml": render_alertmanagerconfig(config, known),
        TEMPLATE: template(),
    }
    return {name: text.encode() for name, text in texts.items()}
