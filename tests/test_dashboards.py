"""Dashboards as files: their structure, their expressions, and that what is committed is what is built."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("grafana_foundation_sdk", reason="pip install 'palegreen[dashboards]'")
pytest.importorskip("promql_parser", reason="pip install 'palegreen[dev]'")

from support.boards import GENERATED, boards, every_panel, filled, metrics, panels, queries, variables

from palegreen.catalogue.metrics import metrics as catalogued
from palegreen.dashboards.build import build

ROOT = Path(__file__).parents[1]
RULES = yaml.safe_load((ROOT / "alerts" / "generated" / "rules.yaml").read_text(encoding="utf-8"))
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
BOARDS = boards()
QUERIES = queries()
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in panels(board)]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What Grafana 10.4 draws itself; graph, singlestat and table-old were of Angular.
TYPES = {"timeseries", "stat", "table", "bargauge", "state-timeline", "heatmap"}
UNITS = {
    "s", "bytes", "percentunit", "cps", "short", "Bps", "watt", "celsius", "hertz", "dateTimeFromNow", "none",
    "si:tok/s",
}  # fmt: skip


def each_panel(case: tuple[str, dict[str, Any]]) -> str:
    return f"{case[0]} {case[1]['title']}"


def family(metric: str) -> str | None:
    """The catalogued metric that a series belongs to."""
    known = catalogued()
    if metric in known:
        return metric if known[metric].kind != "histogram" else None
    name = re.sub(r"_(bucket|sum|count)$", "", metric)
    return name if name in known and known[name].kind == "histogram" else None


def unknown(expression: str) -> set[str]:
    """Metrics of an expression that nobody publishes or records."""
    return {name for name in metrics(expression) if not (family(name) or name in RECORDED or name == "ALERTS")}


def test_the_committed_files_are_what_is_built_twice_alike() -> None:
    first, second = build(), build()
    assert first == second
    assert {path.stem: path.read_bytes() for path in GENERATED.iterdir()} == dict(first)
    assert all(content.endswith(b"}\n") for content in first.values())


def test_uids_are_the_ones_that_links_and_alerts_name() -> None:
    assert set(BOARDS) == {f"palegreen-{name}" for name in ("overview", "model", "gpu", "quality", "self")}
    assert all(board["uid"] == uid and "id" not in board for uid, board in BOARDS.items())


@pytest.mark.parametrize("uid", BOARDS)
def test_a_board_is_for_all_versions_and_links_to_the_others(uid: str) -> None:
    board = BOARDS[uid]
    assert board["schemaVersion"] == 39
    assert board["editable"] is False
    assert len(list(panels(board))) <= 26
    (link,) = board["links"]
    assert (link["type"], link["tags"], link["includeVars"], link["keepTime"]) == (
        "dashboards",
        ["palegreen"],
        True,
        True,
    )
    assert board["tags"] == ["palegreen"]
    assert board["description"]


@pytest.mark.parametrize("uid", BOARDS)
def test_ids_are_unique_and_panels_neither_overlap_nor_leave_the_grid(uid: str) -> None:
    found = list(every_panel(BOARDS[uid]))
    ids = [panel["id"] for panel in found]
    assert len(ids) == len(set(ids))
    assert 0 not in ids
    places = sorted((p["gridPos"]["y"], p["gridPos"]["x"], p["gridPos"]["w"], p["gridPos"]["h"]) for p in found)
    assert all(x + w <= 24 for _, x, w, _ in places)
    for (y, x, w, h), (below, right, _, _) in pairwise(places):
        assert right >= x + w if below == y else below >= y + h


def test_ids_stay_with_their_panels() -> None:
    """Links and alerts of users name panels by id: a new panel takes a new one, and none is given again."""
    kept = yaml.safe_load((ROOT / "tests" / "goldens" / "dashboard-panels.yaml").read_text(encoding="utf-8"))
    assert {uid: {p["id"]: p["title"] for p in panels(board)} for uid, board in BOARDS.items()} == kept


@pytest.mark.parametrize("case", PANELS, ids=each_panel)
def test_a_panel_says_what_it_shows_in_which_unit_and_when_to_worry(case: tuple[str, dict[str, Any]]) -> None:
    _, panel = case
    assert panel["type"] in TYPES
    assert panel["title"] and len(panel["title"]) <= 50
    assert len(panel["description"]) > 60
    assert panel["description"].endswith(".")
    assert panel["datasource"] == DATASOURCE
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == [chr(ord("A") + at) for at in range(len(letters))]
    assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
    assert all(target.get("instant", False) != target.get("range", False) for target in panel["targets"])


@pytest.mark.parametrize("case", [case for case in PANELS if case[1]["type"] == "table"], ids=each_panel)
def test_columns_of_a_table_exist_and_are_named_once(case: tuple[str, dict[str, Any]]) -> None:
    _, panel = case
    by_id = {step["id"]: step["options"] for step in panel["transformations"]}
    if "groupingToMatrix" in by_id:
        return
    named = by_id["organize"]["renameByName"]
    order = by_id["organize"]["indexByName"]
    assert sorted(named, key=order.__getitem__) == by_id["filterFieldsByName"]["include"]["names"]
    assert len(set(named.values())) == len(named)
    assert {rule["matcher"]["options"] for rule in panel["fieldConfig"]["overrides"]} <= set(named.values())
    assert {state["displayName"] for state in panel["options"]["sortBy"]} <= set(named.values())
    letters = {f"Value #{t['refId']}" for t in panel["targets"]} if len(panel["targets"]) > 1 else {"Value"}
    assert {name for name in named if name.startswith("Value")} <= letters
    labels = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", panel["targets"][0]["expr"]))))
    if labels:
        assert {name for name in named if not name.startswith("Value")} <= labels
    for rule in panel["fieldConfig"]["overrides"]:
        for one in rule["properties"]:
            if one["id"] == "links":
                (link,) = one["value"]
                assert re.match(r"/d/(palegreen-\w+)\?", link["url"])[1] in BOARDS  # type: ignore[index]
                assert set(re.findall(r'__data\.fields\["(.*?)"\]', link["url"])) <= set(named.values())
                assert "${__url_time_range}" in link["url"]


def test_expressions_can_be_read_and_name_what_exists() -> None:
    wrong = {}
    for asked in QUERIES:
        board = BOARDS[asked.board]
        assert set(re.findall(r"\$\{?(\w+)", asked.expr)) <= {*variables(board), "__rate_interval", "__range"}
        expression = filled(asked.expr, board)
        if not metrics(expression) or unknown(expression):
            wrong[asked.name] = unknown(expression)
    assert not wrong


def test_a_misspelt_metric_is_found() -> None:
    assert unknown("rate(palegreen_gpu_buzy_seconds_total[1m])") == {"palegreen_gpu_buzy_seconds_total"}
    assert unknown("palegreen:verdikt") == {"palegreen:verdikt"}
    assert unknown("histogram_quantile(0.5, palegreen_canary_duration_seconds_buckets)")
    assert unknown("1 - on () (palegreen_gpu_up unless palegreen_gpu_upp offset 1m)") == {"palegreen_gpu_upp"}


def test_counters_are_rated_over_grafanas_interval_and_selectors_follow_the_variables() -> None:
    for asked in QUERIES:
        for name, selector, window in re.findall(r"([\w:]+)\{([^}]*)\}(\[[^\]]*\])?", asked.expr):
            found = family(name)
            counts = found is not None and catalogued()[found].kind in ("counter", "histogram")
            ever = asked.panel["type"] == "table" and name == "palegreen_gpu_losses_total"
            assert not counts or window == "[$__rate_interval]" or ever, asked.name
            assert "cluster=~" in selector, asked.name
            assert not re.search(r"\b(instance|pod|job)=", selector), asked.name


def test_buckets_of_different_engines_are_never_added_up() -> None:
    added = r"sum by \(([^)]*)\) \(rate\(palegreen_engine_\w+_bucket\{([^}]*)\}"
    found = [(asked.name, *match) for asked in QUERIES for match in re.findall(added, asked.expr)]
    assert len(found) > 10
    for name, labels, selector in found:
        by = set(re.findall(r"\w+", labels))
        assert "le" in by, name
        assert "engine" in by or 'engine="$engine"' in selector, name


@pytest.mark.parametrize("uid", BOARDS)
def test_variables_choose_one_after_the_other(uid: str) -> None:
    found = variables(BOARDS[uid])
    assert next(iter(found)) == "datasource"
    assert found["datasource"]["query"] == "prometheus"
    assert list(found)[1] == "cluster"
    seen = {"datasource"}
    for name, variable in found.items():
        if variable["type"] == "query":
            assert isinstance(variable["query"], str)
            metric, selector, label = re.fullmatch(
                r"label_values\(([\w:]+)(\{.*\})?, (\w+)\)", variable["query"]
            ).groups()  # type: ignore[union-attr]
            assert label == name
            assert not unknown(filled(metric + (selector or ""), BOARDS[uid]))
            assert set(re.findall(r"\$(\w+)", selector or "")) <= seen
            assert (variable["refresh"], variable["allValue"], variable["datasource"]) == (2, ".*", DATASOURCE)
            assert (variable["includeAll"], variable["multi"]) == (True, True)
        seen.add(name)


@pytest.mark.parametrize("uid", BOARDS)
def test_annotations_show_alerts_and_changes(uid: str) -> None:
    found = {each["name"]: each for each in BOARDS[uid]["annotations"]["list"]}
    assert "Alerts" in found
    for each in found.values():
        assert each["datasource"] == DATASOURCE
        assert not unknown(filled(each["expr"], BOARDS[uid]))
    if "model" in variables(BOARDS[uid]):
        assert {"Deployments", "Baselines"} <= set(found)
        assert all(found[name]["useValueForTime"] for name in ("Deployments", "Baselines"))


def test_exemplars_are_shown_where_there_are_some() -> None:
    shown = {
        name
        for asked in QUERIES
        if asked.target.get("exemplar")
        for name in metrics(filled(asked.expr, BOARDS[asked.board]))
    }
    assert shown == {
        f"palegreen_{name}_bucket"
        for name in (
            "quality_score", "chain_step_duration_seconds", "retrieval_duration_seconds",
            "proxy_time_to_first_byte_seconds", "proxy_request_duration_seconds",
        )
    }  # fmt: skip


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "palegreen.cli.main", "dashboards", "build", *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_command_writes_them_and_notices_one_byte(tmp_path: Path) -> None:
    out = tmp_path / "made" / "here"
    assert command("--out", str(out)).returncode == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        f"{uid}.json": content for uid, content in build().items()
    }
    (out / "of-another.json").write_text("{}")
    same = command("--out", str(out), "--check")
    assert (same.returncode, same.stderr) == (0, "")

    changed = out / "palegreen-gpu.json"
    changed.write_bytes(changed.read_bytes()[:-1] + b" ")
    (out / "palegreen-model.json").unlink()
    (out / "palegreen-cost.json").write_text("{}")
    drift = command("--out", str(out), "--check")
    assert drift.returncode == 1
    assert sorted(drift.stderr.splitlines()) == [
        f"palegreen: {out}/palegreen-cost.json: left over, nothing of this name is built",
        f"palegreen: {out}/palegreen-gpu.json: differs from what is built",
        f"palegreen: {out}/palegreen-model.json: missing",
    ]


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = command("--out", str(tmp_path / "file" / "sub"))
    assert refused.returncode == 2
    assert refused.stderr == f"palegreen: {tmp_path}/file/sub: Not a directory\n"

    hidden = "import sys; sys.modules['grafana_foundation_sdk'] = None; from palegreen.cli.main import main; main()"
    absent = subprocess.run(
        [sys.executable, "-c", hidden, "dashboards", "build", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert absent.returncode == 2
    assert absent.stderr.startswith("palegreen: dashboards need the package grafana_foundation_sdk")
    assert absent.stderr.endswith(": pip install 'palegreen[dashboards]'\n")


def test_json_is_what_it_says(tmp_path: Path) -> None:
    for content in build().values():
        assert json.dumps(json.loads(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n" == content.decode()
