"""Provisioning without Kubernetes: what Prometheus and promtool say of it, and the structure of the rest.

Compose itself cannot run here; its file is held against what it refers to.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.prometheus import Prometheus
from support.server import Server, response
from support.tools import program
from support.waiting import until

from palegreen.evaluators.config import load as load_evaluator
from palegreen.exporter.config import load as load_node

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/examples/provisioning"
RULES = ROOT / "helm/palegreen/files/rules.yaml"
PAGE = """\
# TYPE palegreen_container_gpu_processes gauge
palegreen_container_gpu_processes{uuid="GPU-1",gpu="0",mig="",namespace="",pod="",container="",unit="vllm.service"} 1
# TYPE palegreen_engine_gpu_info gauge
palegreen_engine_gpu_info{model="m",endpoint="chat",engine="vllm",instance_id="a:1",namespace="prod",pod="a",uuid="G"} 1
"""


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configuration of Prometheus with the rules in their place."""
    (tmp_path / "rules").mkdir()
    shutil.copy(FOLDER / "prometheus.yml", tmp_path)
    shutil.copy(RULES, tmp_path / "rules/palegreen.yaml")
    return tmp_path


def test_promtool_takes_the_configuration_with_the_rules(folder: Path) -> None:
    command = [program("promtool"), "check", "config", folder / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


@pytest.fixture
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """A real Prometheus on that configuration, with targets of the test's."""
    with Server({"/metrics": response(PAGE)}) as target:
        text = (folder / "prometheus.yml").read_text(encoding="utf-8").replace("15s", "1s")
        text = text.replace("gpu-1:9450", f"127.0.0.1:{target.port}").replace(
            "{node: gpu-1}", "{node: gpu-1, pod: own}"
        )
        with Prometheus(folder, yaml.safe_load(text)) as running:
            yield running


def test_a_real_prometheus_keeps_our_labels_even_where_they_are_empty_and_attaches_the_node(
    prometheus: Prometheus,
) -> None:
    def series(name: str) -> list[dict[str, str]]:
        return [each["metric"] for each in prometheus.query(name)]

    (engine,) = until(lambda: series("palegreen_engine_gpu_info"), 30)
    assert (engine["namespace"], engine["pod"], engine["endpoint"]) == ("prod", "a", "chat")
    assert (engine["node"], engine["job"]) == ("gpu-1", "palegreen-node")
    (unit,) = series("palegreen_container_gpu_processes")
    assert "pod" not in unit, "a unit of systemd is in no pod, not in the daemon's"
    assert (unit["unit"], unit["node"]) == ("vllm.service", "gpu-1")
    groups = {group["name"] for group in prometheus.api("rules")["groups"]}
    assert "palegreen-thresholds" in groups
    managers = prometheus.api("status/config")["yaml"]
    assert "alertmanager:9093" in managers


def test_the_daemons_understand_their_files_and_agree_on_the_replica(tmp_path: Path) -> None:
    (engine,) = load_node(FOLDER / "palegreen/node.yaml", {}).engines
    text = (FOLDER / "palegreen/evaluate.yaml").read_text(encoding="utf-8")
    (tmp_path / "evaluate.yaml").write_text(text.replace("/var/lib/palegreen", str(tmp_path)), encoding="utf-8")
    evaluator = load_evaluator(tmp_path / "evaluate.yaml", {})
    assert engine.identity() == evaluator.instance_id
    assert engine.endpoint == evaluator.endpoint


def test_grafana_gets_one_default_datasource_and_a_folder_of_dashboards() -> None:
    (source,) = read("grafana/datasources/prometheus.yaml")["datasources"]
    assert (source["type"], source["isDefault"], source["uid"]) == ("prometheus", True, "prometheus")
    assert source["jsonData"]["timeInterval"] == read("prometheus.yml")["global"]["scrape_interval"]
    (provider,) = read("grafana/dashboards/palegreen.yaml")["providers"]
    assert provider["type"] == "file"
    mounts = [mount.split(":")[1] for mount in read("compose.yaml")["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


SERVICES = read("compose.yaml")["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_a_pinned_image_and_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+", service["image"]), "pinned by tag"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["SYS_PTRACE"] if name == "node" else [])
    assert "privileged" not in service


def test_what_compose_mounts_is_there_or_generated_or_the_users() -> None:
    generated = {"alerts/generated", "dashboards/generated"}
    volumes = read("compose.yaml")["volumes"]
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if not source.startswith("."):
                assert source in volumes
                continue
            assert mount.endswith(":ro")
            path = (FOLDER / source).resolve()
            inside = path.relative_to(ROOT)
            assert path.exists() or source == "./secrets" or any(inside.is_relative_to(each) for each in generated), (
                source
            )
    for secret in read("compose.yaml")["secrets"].values():
        assert secret["file"].startswith("./secrets/")


def test_targets_of_prometheus_are_services_or_the_host() -> None:
    hosts = {"gpu-1", *SERVICES}
    config = read("prometheus.yml")
    targets = [
        target for job in config["scrape_configs"] for static in job["static_configs"] for target in static["targets"]
    ]
    targets += [
        target for each in config["alerting"]["alertmanagers"] for target in each["static_configs"][0]["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= hosts
    assert "gpu-1:host-gateway" in SERVICES["prometheus"]["extra_hosts"]
    for job in config["scrape_configs"]:
        assert job["honor_labels"] is True
        assert all(static["labels"]["node"] for static in job["static_configs"])


def test_the_node_daemon_asks_for_all_gpus() -> None:
    (device,) = SERVICES["node"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu", "utility"]}
    assert (SERVICES["node"]["pid"], SERVICES["node"]["network_mode"]) == ("host", "host")


def test_the_image_is_made_of_each_package_and_runs_as_nobody() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = set(re.findall(r'^"palegreen\.\w+" = "(\w+)"$', project, re.MULTILINE))
    assert packages <= kept
    assert all((ROOT / name).exists() for name in kept - {"alerts", "dashboards"})
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    last = dockerfile.rpartition("FROM ")[2]
    assert "USER 65534:65534" in last
    extras = re.search(r"ARG EXTRAS=(\S+)", dockerfile)
    assert extras is not None
    declared = set(re.findall(r"^([\w-]+) = \[", project, re.MULTILINE))
    assert set(extras[1].split(",")) <= declared
