"""The AlertmanagerConfig says what alertmanager.yaml says, in the words of its schema."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1alpha1
from pydantic import BaseModel
from support.routing import CAUSES

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.routes import render_alertmanager, render_alertmanagerconfig
from palegreen.alerts.routes.alertmanagerconfig import secret

_FOLDER = "/etc/alertmanager/secrets/palegreen"
_CHANNELS = [
    {"pagerduty": {"routing_key_file": f"{_FOLDER}/key"}},
    {"slack": {"api_url_file": f"{_FOLDER}/url", "channel": "#llm"}},
    {
        "email": {
            "to": "a@b.example",
            "from": "c@d.example",
            "smarthost": "mail.example:587",
            "auth_username": "u",
            "auth_password_file": f"{_FOLDER}/password",
        }
    },
    {"webhook": {"url": "https://hook.example/x", "bearer_token_file": f"{_FOLDER}/token"}},
    {"webhook": {"url_file": f"{_FOLDER}/hook"}},
]
EVERYTHING = AlertsConfig(
    receivers={
        "platform": {"critical": _CHANNELS, "warning": _CHANNELS, "info": _CHANNELS},
        "model": {"critical": _CHANNELS},
        "search": {"warning": []},
    }
)
_CONFIGS = pytest.mark.parametrize("config", [AlertsConfig(), EVERYTHING], ids=["default", "everything"])


def _unknown(value: Any, at: str) -> list[str]:
    """Keys that a model was given and does not know."""
    if isinstance(value, list):
        return [key for number, item in enumerate(value) for key in _unknown(item, f"{at}[{number}]")]
    if not isinstance(value, BaseModel):
        return []
    own = [f"{at}.{key}" for key in value.model_extra or {}]
    return own + [
        key for name in value.model_fields_set for key in _unknown(getattr(value, name, None), f"{at}.{name}")
    ]


def _problems(resource: dict[str, Any]) -> list[str]:
    """What the schema does not know; routes below the first are any JSON to it, so each is looked at."""
    parsed = v1alpha1.AlertmanagerConfig.model_validate(resource)
    given = parsed.model_dump(by_alias=True, exclude_unset=True, mode="json")
    lost = [] if given == resource else [f"not the same when written again: {given}"]
    routes = [resource["spec"]["route"]]
    for route in routes:
        written = v1alpha1.Route.model_validate(route).model_dump(by_alias=True, exclude_unset=True, mode="json")
        lost += [] if written == route else [f"not the same when written again: {written}"]
        lost += _unknown(v1alpha1.Route.model_validate(route), "route")
        routes += route.get("routes", [])
    names = {receiver["name"] for receiver in resource["spec"]["receivers"]}
    return lost + _unknown(parsed, "") + [route["receiver"] for route in routes if route["receiver"] not in names]


@_CONFIGS
def test_the_resource_fits_the_operators_schema_and_has_no_key_that_it_does_not_know(config: AlertsConfig) -> None:
    assert _problems(yaml.safe_load(render_alertmanagerconfig(config, CAUSES))) == []


@pytest.mark.parametrize(
    "path", [("spec", "inhibitRules", 0), ("spec", "route"), ("spec", "route", "routes", 0), ("spec", "receivers", 0)]
)
def test_a_misspelt_key_would_be_found(path: tuple[str | int, ...]) -> None:
    resource = yaml.safe_load(render_alertmanagerconfig(AlertsConfig(), CAUSES))
    part = resource
    for step in path:
        part = part[step]
    part["gruopBy"] = ["owner"]
    assert _problems(resource) != []


def _snake(value: Any) -> Any:
    """In Alertmanager's words, as far as routes and inhibition go."""
    if isinstance(value, list):
        return [_snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "matchType" in value:
        return f'{value["name"]}{value["matchType"]}"{value["value"]}"'
    names = {"sourceMatch": "source_matchers", "targetMatch": "target_matchers"}
    return {
        names.get(key, re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", key)): _snake(item)
        for key, item in value.items()
    }


@_CONFIGS
def test_routes_inhibition_and_receivers_are_those_of_alertmanager_yaml(config: AlertsConfig) -> None:
    native = yaml.safe_load(render_alertmanager(config, CAUSES))
    spec = _snake(yaml.safe_load(render_alertmanagerconfig(config, CAUSES))["spec"])
    assert spec["route"].pop("matchers") == ['alertname=~"Palegreen.+"']
    assert spec["route"] == native["route"]
    assert spec["inhibit_rules"] == native["inhibit_rules"]
    assert [{key: len(value) for key, value in receiver.items()} for receiver in spec["receivers"]] == [
        {key: len(value) for key, value in receiver.items()} for receiver in native["receivers"]
    ]


def test_a_file_is_the_secret_that_the_operator_mounts_there() -> None:
    assert secret("/etc/alertmanager/secrets/oncall/pagerduty-key") == {"name": "oncall", "key": "pagerduty-key"}
    assert secret("/run/My_Secrets/SLACK_URL") == {"name": "my-secrets", "key": "SLACK_URL"}
    assert secret("key") == {"name": "palegreen", "key": "key"}


def test_no_secret_stands_in_what_is_generated() -> None:
    text = render_alertmanagerconfig(EVERYTHING, CAUSES)
    assert _FOLDER not in text
    assert "_file" not in text
