"""The Helm chart, rendered without a cluster, and its manifests held against schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1, v1alpha1

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "helm/palegreen"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
OPERATOR: Mapping[tuple[str, str], Any] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): v1.PodMonitor,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): v1.ServiceMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): v1.PrometheusRule,
    ("monitoring.coreos.com/v1alpha1", "AlertmanagerConfig"): v1alpha1.AlertmanagerConfig,
}
Manifest = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """Reads a plain `=` as text, as Helm, kubectl and YAML 1.2 do."""


_Loader.add_constructor("tag:yaml.org,2002:value", _Loader.construct_scalar)


def render(values: Mapping[str, Any] | None = None, chart: Path = CHART) -> list[Manifest]:
    """Manifests of a release `palegreen` in the namespace `gpu`, in the order of the templates."""
    manifests: list[Manifest] = []
    for name, text in sorted(texts(values, chart).items()):
        if not name.endswith("NOTES.txt"):
            manifests += [document for document in yaml.load_all(text, Loader=_Loader) if document]
    return manifests


def texts(values: Mapping[str, Any] | None = None, chart: Path = CHART) -> dict[str, str]:
    """What each template gives."""
    with helm_python.Chart.load(chart) as loaded:
        return loaded.render(dict(values or {}), name="palegreen", namespace="gpu")


def read(path: Path) -> dict[str, Any]:
    """A file of values."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def find(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The only manifest of a kind, or that of a name."""
    found = [each for each in manifests if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def validate(manifest: Manifest) -> None:
    """Hold a manifest against Kubernetes' schema, or the Prometheus operator's; an unknown key is an error."""
    model = OPERATOR.get((manifest["apiVersion"], manifest["kind"]))
    if model is None:
        kubernetes_validate.validate(manifest, "1.32", strict=True)
        return
    known = model.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert not list(_unknown(manifest, known, manifest["kind"]))


def _unknown(given: Any, known: Any, path: str) -> Iterator[str]:
    """Keys that a model has dropped."""
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{path}.{key}"
            else:
                yield from _unknown(value, known[key], f"{path}.{key}")
    elif isinstance(given, list):
        for number, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from _unknown(one, other, f"{path}[{number}]")
