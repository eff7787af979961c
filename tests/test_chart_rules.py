"""Rules, dashboards and the sidecar as the chart renders them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("helm_python", reason="helm-python-sdk is not installed (the extra dev)")

from support.chart import CHART, ROOT, find, read, render, validate
from support.tools import program

OWN = CHART / "ci/rules-values.yaml"
EXAMPLE = ROOT / "docs/examples/kubernetes/evaluator-sidecar.yaml"
ON: dict[str, Any] = {"prometheusRule": {"enabled": True}}


def groups(values: dict[str, Any]) -> list[dict[str, Any]]:
    spec: dict[str, Any] = find(render(values), "PrometheusRule")["spec"]
    return list(spec["groups"])


def shipped() -> list[dict[str, Any]]:
    text = (CHART / "files/rules.yaml").read_text(encoding="utf-8")
    return list(yaml.load(text, Loader=yaml.CSafeLoader)["groups"])


def alerts(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in found for rule in group["rules"] if "alert" in rule}


def test_without_values_the_rules_are_the_shipped_ones() -> None:
    assert groups(ON) == shipped()


def test_thresholds_change_one_group_and_disabled_alerts_go() -> None:
    mine, theirs = groups(read(OWN)), shipped()
    assert mine.pop()["name"] == "own"
    assert [group["name"] for group in mine] == [group["name"] for group in theirs]
    pairs = zip(mine, theirs, strict=True)
    changed = {group["name"] for group, other in pairs if _without_links(group) != _without_links(other)}
    assert changed == {"palegreen-thresholds", "palegreen-judgement"}
    values = {rule["labels"]["name"]: number(rule["expr"]) for rule in mine[0]["rules"]}
    before = {rule["labels"]["name"]: number(rule["expr"]) for rule in theirs[0]["rules"]}
    assert {name: value for name, value in values.items() if value != before[name]} == {
        "kv_usage": 0.9,
        "baseline_age": 2592000,
    }
    assert alerts(theirs).keys() - alerts(mine).keys() == {"PalegreenKvThrash"}


def number(expression: str) -> float:
    found = re.fullmatch(r"vector\((.+)\)", expression)
    assert found is not None
    return float(found[1])


def _without_links(group: dict[str, Any]) -> list[dict[str, Any]]:
    links = ("dashboard_url", "runbook_url")
    return [
        rule | {"annotations": {key: text for key, text in rule.get("annotations", {}).items() if key not in links}}
        for rule in group["rules"]
    ]


def test_links_lead_to_where_values_say() -> None:
    for name, rule in alerts(groups(read(OWN))).items():
        if "runbook_url" in rule["annotations"]:
            assert rule["annotations"]["runbook_url"] == f"https://wiki.internal/runbooks/{name}"
        assert "grafana.example" not in json.dumps(rule)


def test_rules_with_values_are_those_that_the_command_makes() -> None:
    build = pytest.importorskip("palegreen.alerts.rules", reason="the rules' generator is not here")
    from palegreen.alerts.config import AlertsConfig

    values = read(OWN)
    config = AlertsConfig(
        thresholds=values["thresholds"],
        disabled=values["disabled"],
        dashboard_url=values["dashboardUrl"].rstrip("/"),
        runbook_url=values["runbookUrl"],
    )
    made, rendered = build.rules(config)["groups"], groups(values)[:-1]
    for group in (made[0], rendered[0]):
        for rule in group["rules"]:
            rule["expr"] = number(rule["expr"])
    assert rendered == made


@pytest.mark.parametrize("values", [ON, read(OWN)], ids=["shipped", "own"])
def test_promtool_takes_the_rendered_rules(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": groups(values)}), encoding="utf-8")
    done = subprocess.run([program("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_own_rules_take_the_place_of_the_shipped_ones() -> None:
    text = "groups: [{name: mine, rules: [{record: a:b, expr: '1'}]}]"
    assert groups({"prometheusRule": {"enabled": True, "rules": text}}) == [
        {"name": "mine", "rules": [{"record": "a:b", "expr": "1"}]}
    ]


def test_each_dashboard_is_a_config_map_that_grafanas_sidecar_finds() -> None:
    files = {path.name: path for path in (CHART / "files/dashboards").glob("*.json")}
    assert files
    found = {}
    for manifest in render(read(OWN)):
        labels = manifest["metadata"].get("labels", {})
        if labels.get("grafana_dashboard") == "1":
            assert (labels["team"], manifest["metadata"]["namespace"]) == ("platform", "monitoring")
            assert manifest["metadata"]["annotations"] == {"grafana_folder": "Palegreen"}
            found |= manifest["data"]
    assert {name: json.loads(text) for name, text in found.items()} == {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()
    }


def test_the_alertmanager_config_can_be_given_whole() -> None:
    spec = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}
    assert find(render({"alertmanagerConfig": {"enabled": True, "spec": spec}}), "AlertmanagerConfig")["spec"] == spec


PARENT = {
    "Chart.yaml": "apiVersion: v2\nname: chat\nversion: 0.1.0\ndependencies: [{name: palegreen, version: '*'}]\n",
    "values.yaml": """\
palegreen:
  node: {enabled: false}
  dashboards: {enabled: false}
  serviceAccount: {create: false}
  evaluator:
    endpoint: chat
    baselines: {configMap: {name: chat-baselines}}
    env: [{name: PALEGREEN_SAMPLE_RATE, value: "0.1"}]
""",
    "templates/deployment.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: chat
spec:
  selector: {matchLabels: {app: chat}}
  template:
    metadata:
      labels:
        app: chat
        {{- include "palegreen.evaluator.podLabels" .Subcharts.palegreen | nindent 8 }}
    spec:
      terminationGracePeriodSeconds: 45
      containers:
        - name: vllm
          image: registry.example/vllm:v1
          ports: [{name: http, containerPort: 8000}]
        {{- include "palegreen.evaluator.container" .Subcharts.palegreen | nindent 8 }}
      volumes:
        {{- include "palegreen.evaluator.volumes" .Subcharts.palegreen | nindent 8 }}
""",
}


def test_a_models_chart_gets_the_sidecar_by_named_templates(tmp_path: Path) -> None:
    for name, text in PARENT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(CHART, tmp_path / "charts/palegreen")
    deployment = find(render(chart=tmp_path), "Deployment", "chat")
    validate(deployment)
    pod = deployment["spec"]["template"]["spec"]
    sidecar = pod["containers"][1]
    security = sidecar["securityContext"]
    assert (security["runAsUser"], security["runAsNonRoot"], security["readOnlyRootFilesystem"]) == (65534, True, True)
    assert (security["capabilities"], security["allowPrivilegeEscalation"]) == ({"drop": ["ALL"]}, False)
    assert {mount["name"] for mount in sidecar["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert "palegreen-baselines" in {volume["name"] for volume in pod["volumes"]}
    monitor = find(render({"evaluator": {"podMonitor": {"enabled": True}}}), "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert monitor["podMetricsEndpoints"][0]["port"] in {port["name"] for port in sidecar["ports"]}


def test_the_example_without_helm_is_what_the_template_gives(tmp_path: Path) -> None:
    deployment, service = yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8"))
    validate(deployment)
    validate(service)
    for name, text in PARENT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(CHART, tmp_path / "charts/palegreen")
    assert deployment["spec"]["template"] == find(render(chart=tmp_path), "Deployment", "chat")["spec"]["template"]
    containers = deployment["spec"]["template"]["spec"]["containers"]
    ports = [port["name"] for container in containers for port in container["ports"]]
    assert service["spec"]["ports"][0]["targetPort"] in ports
