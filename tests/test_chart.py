"""The Helm chart: lint, render, schemas of what it renders, security, and values that are refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from palegreen.exporter.config import load

pytest.importorskip("helm_python", reason="helm-python-sdk is not installed (the extra dev)")

import helm_python
from support.chart import CHART, CI, ROOT, Manifest, find, read, render, texts, validate

FULL = CHART / "ci/kube-prometheus-stack-values.yaml"
LOCKED = CHART / "ci/locked-down-values.yaml"


@pytest.fixture(scope="module")
def full() -> list[Manifest]:
    return render(read(FULL))


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_each_set_of_values_lints_and_renders_manifests_that_fit_their_schemas(values: Path) -> None:
    report = helm_python.lint(CHART, read(values), strict=True, kube_version="v1.32.0")
    assert not report["errors"]
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}
    manifests = render(read(values))
    assert manifests
    for manifest in manifests:
        validate(manifest)
        assert len(json.dumps(manifest)) < 1_000_000, "etcd takes 1.5 MiB, a ConfigMap 1 MiB"
    named = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in manifests]
    assert len(named) == len(set(named))


def test_by_default_nothing_needs_more_than_kubernetes_itself() -> None:
    manifests = render()
    assert {manifest["apiVersion"] for manifest in manifests} == {"v1", "apps/v1"}
    assert [each["metadata"]["name"] for each in manifests if each["kind"] == "DaemonSet"] == ["palegreen-node"]


def test_switches_give_the_resources_they_are_called_after(full: list[Manifest]) -> None:
    kinds = {manifest["kind"] for manifest in full}
    assert {"PodMonitor", "PrometheusRule", "AlertmanagerConfig", "NetworkPolicy", "Deployment"} <= kinds
    assert "ServiceMonitor" not in kinds
    assert find(render(read(LOCKED)), "ServiceMonitor")["metadata"]["namespace"] == "monitoring"


def templates(manifests: list[Manifest]) -> list[tuple[str, Manifest]]:
    """Kind and pod template of each workload."""
    kinds = ("DaemonSet", "Deployment")
    return [(each["kind"], each["spec"]["template"]) for each in manifests if each["kind"] in kinds]


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_pods_are_confined(values: Path) -> None:
    for kind, template in templates(render(read(values))):
        pod = template["spec"]
        context = pod["securityContext"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostIPC"} & pod.keys()
        if kind == "DaemonSet" and values == FULL:
            assert (context["runAsUser"], context["runAsNonRoot"]) == (0, False), "the kubelet's socket is root's"
        else:
            assert (context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]) == (65534, 65534, True)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert container["resources"]["limits"]["memory"]
            for mount in container["volumeMounts"]:
                assert mount["readOnly"] is True, mount


def test_the_host_is_seen_only_as_far_as_was_asked_for(full: list[Manifest]) -> None:
    bare = find(render(), "DaemonSet")["spec"]["template"]["spec"]
    assert "hostPID" not in bare
    assert [volume["hostPath"]["path"] for volume in bare["volumes"] if "hostPath" in volume] == ["/sys"]
    assert {"--no-attribution", "--no-kubelet", "--host-root=/host"} <= set(bare["containers"][0]["args"])
    whole = find(full, "DaemonSet")["spec"]["template"]["spec"]
    assert whole["hostPID"] is True
    assert {volume["hostPath"]["path"] for volume in whole["volumes"] if "hostPath" in volume} == {
        "/sys", "/proc", "/var/log/containers", "/var/log/pods", "/var/lib/kubelet/pod-resources", "/var/run/cdi",
    }  # fmt: skip
    assert not {"--no-attribution", "--no-kubelet"} & set(whole["containers"][0]["args"])
    assert (whole["runtimeClassName"], whole["priorityClassName"]) == ("nvidia", "system-node-critical")


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_pods_are_those_that_services_policies_and_monitors_select(values: Path) -> None:
    manifests = render(read(values))
    labels = [template["metadata"]["labels"] for _, template in templates(manifests)]
    services = [each["metadata"]["labels"] for each in manifests if each["kind"] == "Service"]
    for manifest in manifests:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "DaemonSet" | "Deployment":
                assert selected(spec["selector"]["matchLabels"], labels) == 1
            case "Service":
                assert selected(spec["selector"], labels) == 1
            case "NetworkPolicy":
                assert selected(spec["podSelector"]["matchLabels"], labels) == len(labels)
            case "PodMonitor" if not manifest["metadata"]["name"].endswith("-evaluators"):
                assert selected(spec["selector"]["matchLabels"], labels) == 1
            case "ServiceMonitor":
                assert selected(spec["selector"]["matchLabels"], services) == 1


def selected(wanted: dict[str, str], labels: list[dict[str, str]]) -> int:
    return sum(wanted.items() <= each.items() for each in labels)


def test_monitors_keep_our_labels_and_attach_the_node_where_it_is_that_of_the_series(full: list[Manifest]) -> None:
    node = {"action": "replace", "sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    seen = {}
    for manifest in full:
        if manifest["kind"] == "PodMonitor":
            (endpoint,) = manifest["spec"]["podMetricsEndpoints"]
            assert endpoint["honorLabels"] is True
            assert manifest["metadata"]["labels"]["release"] == "monitoring"
            seen[manifest["metadata"]["name"]] = endpoint.get("relabelings")
    assert seen == {"palegreen-node": [node], "palegreen-engines": None, "palegreen-evaluators": [node]}
    (endpoint,) = find(render(read(LOCKED)), "ServiceMonitor")["spec"]["endpoints"]
    assert (endpoint["honorLabels"], endpoint["scheme"]) == (True, "https")
    assert endpoint["relabelings"] == [node, {"targetLabel": "cluster", "replacement": "one"}]


def test_common_labels_are_on_everything_and_release_labels_where_the_operator_looks(full: list[Manifest]) -> None:
    for manifest in full:
        assert manifest["metadata"]["labels"]["team"] == "platform", manifest["kind"]
    for _, template in templates(full):
        assert template["metadata"]["labels"]["team"] == "platform"
    assert find(full, "PrometheusRule")["metadata"]["labels"]["release"] == "monitoring"


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_the_daemons_understand_their_configuration_files(values: Path, tmp_path: Path) -> None:
    texts = (each.get("data", {}).get("config.yaml") for each in render(read(values)))
    for text in filter(None, texts):
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        load(file, {})


def test_a_change_of_the_configuration_makes_new_pods() -> None:
    def annotation(values: dict[str, Any]) -> str:
        return find(render(values), "DaemonSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert annotation({}) != annotation({"node": {"config": {"nvml_interval": "2s"}}})


def test_images_are_by_version_by_tag_or_by_digest() -> None:
    def image(**values: str) -> str:
        return find(render({"image": values}), "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["image"]

    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    digest = "sha256:" + "1" * 64
    assert image() == f"ghcr.io/palegreen/palegreen:{version}"
    assert image(repository="registry.example/p", tag="dev") == "registry.example/p:dev"
    assert image(tag="dev", digest=digest) == f"ghcr.io/palegreen/palegreen@{digest}"


def test_the_kubelet_probes_the_port_alone_where_a_user_is_asked_for() -> None:
    container = find(render(read(LOCKED)), "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["tcpSocket"] == {"port": "metrics"}
    (container,) = find(render({"monitor": {"scheme": "https"}}), "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics", "scheme": "HTTPS"}


def test_further_manifests_are_templates() -> None:
    manifests = render(read(LOCKED))
    assert find(manifests, "ConfigMap", "palegreen-more")["data"] == {"a": "b"}
    assert find(manifests, "ConfigMap", "gpu-watch-text")


BAD = [
    ({"node": {"hostPID": "yes"}}, "/node/hostPID", "boolean"),
    ({"node": {"hostPid": True}}, "/node", "hostPid"),
    ({"podmonitor": {"enabled": True}}, "", "podmonitor"),
    ({"service": {"port": 70000}}, "/service/port", "65,535"),
    ({"image": {"digest": "latest"}}, "/image/digest", "sha256"),
    ({"monitor": {"interval": "15 seconds"}}, "/monitor/interval", "15 seconds"),
    ({"thresholds": {"kv_usage": "0.9"}}, "/thresholds/kv_usage", "number"),
    ({"disabled": ["kv_thrash"]}, "/disabled/0", "Palegreen"),
    ({"engines": {"config": {"engines": [{"endpoint": "chat"}]}}}, "/engines/config/engines/0", "url"),
    ({"runbookUrl": "https://wiki.example/"}, "/runbookUrl", "alert"),
]


@pytest.mark.parametrize(("values", "where", "what"), BAD)
def test_bad_values_are_refused_with_the_place_and_what_is_wrong(values: dict[str, Any], where: str, what: str) -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmError) as refused:
        chart.validate_schema(values)
    assert f"at '{where}'" in str(refused.value)
    assert what in str(refused.value)
    with pytest.raises(helm_python.HelmError):
        render(values)


RULES = {"enabled": True}
ALONE = [
    ({"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}, "scraped twice; allowed: one of them"),
    ({"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}, "there is no Service to monitor; allowed: "),
    ({"prometheusRule": RULES, "thresholds": {"kv": 1}}, 'thresholds: "kv" does not exist; allowed: kv_usage'),
    ({"prometheusRule": RULES, "disabled": ["PalegreenX"]}, 'disabled: "PalegreenX" does not exist; allowed: '),
    ({"prometheusRule": RULES | {"rules": "groups: ["}}, "prometheusRule.rules: not YAML: "),
]


@pytest.mark.parametrize(("values", "words"), ALONE)
def test_values_that_do_not_go_together_are_refused_in_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    assert words in str(refused.value)


def keys(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys(value, (*path, key))


def test_the_schema_knows_each_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def known(part: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, inner in part.get("properties", {}).items():
            yield (*path, key)
            yield from known(inner, (*path, key))

    given = set(keys(read(CHART / "values.yaml")))
    declared = set(known(schema))
    assert declared - given <= {
        ("global",),
        ("evaluator", "podMonitor", "selector", "matchExpressions"),
        ("evaluator", "podMonitor", "namespaceSelector", "matchNames"),
    }
    closed = {path for path in given if path[:-1] in declared | {()}}
    free = {path for path in given - declared if path in closed and _closed(schema, path[:-1])}
    assert not free, "values that the schema would refuse"


def _closed(schema: dict[str, Any], path: tuple[str, ...]) -> bool:
    for key in path:
        schema = schema.get("properties", {}).get(key, {})
    return schema.get("additionalProperties") is False


def test_each_value_is_in_the_readme() -> None:
    sys.path.insert(0, str(CHART.parent))
    try:
        import update
    finally:
        sys.path.pop(0)
    documented = {tuple(path.split(".")) for path, _, _ in update.values()}
    for path in keys(read(CHART / "values.yaml")):
        above = [path[: n + 1] for n in range(len(path))]
        below = [other for other in documented if other[: len(path)] == path]
        assert documented & set(above) or below, f"{'.'.join(path)} has no line that begins with # --"
    assert update.readme() == (CHART / "README.md").read_text(encoding="utf-8"), "make chart, then commit"


def test_copies_in_the_chart_are_what_was_generated(tmp_path: Path) -> None:
    sources = ("alerts/generated/rules.yaml", "alerts/generated/alertmanagerconfig.yaml", "dashboards/generated")
    missing = [name for name in sources if not (ROOT / name).exists()]
    if missing:
        pytest.skip(f"not generated yet: {', '.join(missing)}")
    for part in ("alerts/generated", "dashboards/generated", "helm"):
        shutil.copytree(ROOT / part, tmp_path / part)
    check = [sys.executable, str(tmp_path / "helm/update.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    rules = tmp_path / "helm/palegreen/files/rules.yaml"
    rules.write_bytes(rules.read_bytes().replace(b"palegreen", b"palegreeN", 1))
    (tmp_path / "helm/palegreen/files/dashboards/old.json").write_text("{}", encoding="utf-8")
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    named = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert named == ["helm/palegreen/files/rules.yaml", "helm/palegreen/files/dashboards/old.json"]


def test_notes_say_what_is_not_on() -> None:
    def notes(values: dict[str, Any]) -> str:
        return texts(values)["palegreen/templates/NOTES.txt"]

    assert "No rules are installed" in notes({})
    assert "Nothing scrapes the daemons yet" in notes({})
    assert "Not shown" not in notes(read(FULL))
    assert "kube-prometheus-stack ignores such ones" in notes({"podMonitor": {"enabled": True}})
