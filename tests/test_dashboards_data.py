"""Dashboards against a real Prometheus that the product itself feeds: no panel and no variable is empty."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("promql_parser", reason="pip install 'palegreen[dev]'")

from support import engine_panels
from support.boards import Asked, boards, filled, queries, variables
from support.engine_panels import WINDOW, shown
from support.fleet import Fleet, engine_names
from support.waiting import until

from palegreen.demo.driver.build import BuildError

BOARDS = boards()
PAGE = Path(__file__).parents[1] / "docs" / "dashboards-engines.md"
PATIENCE = 100.0  # seconds: ten are enough where two cores are free


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, drivers: Path) -> Iterator[Fleet]:
    try:
        with Fleet(tmp_path_factory.mktemp("fleet"), drivers) as running:
            yield running
    except BuildError as failure:
        pytest.skip(f"the driver cannot be simulated: {failure}")


def expression(asked: Asked, board: str) -> str:
    """As Grafana would ask it, of everything; a repeated row for one of its values."""
    chosen = {"__rate_interval": WINDOW, "__range": "60s"}
    if asked.panel["type"] == "heatmap":
        chosen["engine"] = "vllm"
    return filled(asked.expr, BOARDS[board], chosen)


def empty(fleet: Fleet) -> list[str]:
    """Queries that give nothing, or nothing that is a number."""
    return [asked.name for asked in queries() if not shown(fleet.query(expression(asked, asked.board)))]


def test_every_panel_of_every_board_shows_something(fleet: Fleet) -> None:
    deadline = time.monotonic() + PATIENCE
    while (left := empty(fleet)) and time.monotonic() < deadline:
        time.sleep(1)
    assert not left


def test_every_graph_has_points_over_time(fleet: Fleet) -> None:
    drawn = [asked for asked in queries() if asked.target.get("range")]
    assert len(drawn) > 100

    def without() -> list[str]:
        found = []
        for asked in drawn:
            series = fleet.over_time(expression(asked, asked.board), 20, 1)
            if not any(len([value for _, value in each["values"] if value != "NaN"]) > 1 for each in series):
                found.append(asked.name)
        return found

    until(lambda: not without(), 60)


def test_a_misspelt_metric_is_empty(fleet: Fleet) -> None:
    assert fleet.query("palegreen_gpu_up")
    assert not shown(fleet.query("palegreen_gpu_upp"))


@pytest.mark.parametrize("uid", BOARDS)
def test_every_variable_has_values(fleet: Fleet, uid: str) -> None:
    for name, variable in variables(BOARDS[uid]).items():
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
            assert found is not None
            series = until(lambda found=found: fleet.api("series", **{"match[]": filled(found[1], BOARDS[uid])}), 60)
            assert {each[name] for each in series if name in each}, name


def test_one_replica_that_is_chosen_is_the_only_one_shown(fleet: Fleet) -> None:
    for asked in queries():
        if "$instance_id" in asked.expr and "engine_requests_running" in asked.expr:
            chosen = {"instance_id": "samples/vllm", "__rate_interval": WINDOW}
            query = filled(asked.expr, BOARDS[asked.board], chosen)
            found = until(lambda query=query: shown(fleet.query(query)), 60)
            assert [each["metric"]["instance_id"] for each in found] == ["samples/vllm"]


def test_annotations_find_deployments_and_baselines(fleet: Fleet) -> None:
    for each in BOARDS["palegreen-overview"]["annotations"]["list"]:
        until(lambda each=each: fleet.query(filled(each["expr"], BOARDS["palegreen-overview"])), 60)


def test_samples_carry_exemplars_of_traces(fleet: Fleet) -> None:
    for metric in ("palegreen_quality_score_bucket", "palegreen_proxy_time_to_first_byte_seconds_bucket"):
        given = {"query": metric, "start": str(time.time() - 300), "end": str(time.time())}
        found = until(lambda given=given: fleet.api("query_exemplars", **given), 60)
        assert all(each["labels"]["trace_id"] for series in found for each in series["exemplars"])


def test_panels_that_are_empty_for_an_engine_are_listed_with_the_reason(
    fleet: Fleet, pytestconfig: pytest.Config
) -> None:
    known = 'group by (pod) (palegreen_engine_metric_supported{namespace="samples"})'
    until(lambda: len(fleet.query(known)) == len(engine_names()), 60)
    text = engine_panels.page(fleet)
    assert not engine_panels.without_reason(text)
    if pytestconfig.getoption("--update-goldens"):
        PAGE.write_text(text, encoding="utf-8")
    expected = PAGE.read_text(encoding="utf-8")
    if text != expected:  # a machine that is short of time misses a scrape now and then
        time.sleep(15)
        text = engine_panels.page(fleet)
    assert text == expected
