"""Recorded pages of every engine: what they map to, byte for byte, and against values worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from palegreen.catalogue.engines import engines
from palegreen.catalogue.metrics import metrics
from palegreen.exporter.engines.fetch import Fetched, Fetcher
from palegreen.exporter.engines.mapping import Mapper
from palegreen.exporter.engines.source import EngineSource, Identity
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Exposition

CAPTURES = Path(__file__).parent / "captures" / "engines"
PAGES = sorted([*CAPTURES.glob("*.prom"), *CAPTURES.glob("*.json")])
EXPECTED = {
    page: yaml.safe_load(facts.read_text(encoding="utf-8"))
    for page in PAGES
    if (facts := page.with_suffix(".expect.yaml")).exists()
}
GATEWAYS = [page for page, expected in EXPECTED.items() if not expected["engines"]]  # repeat or average engines
ENGINES = [page for page in PAGES if page not in GATEWAYS]


def named(page: Path) -> str:
    return page.name


@dataclass(frozen=True)
class Recorded(Fetcher):
    """A server that has one recorded page and no API."""

    page: Path = CAPTURES

    def get(self, path: str) -> Fetched:
        openmetrics = self.page.read_text(encoding="utf-8").rstrip().endswith("# EOF")
        kind = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
        return Fetched(self.page.read_bytes(), kind)


def mapped(page: Path) -> str:
    """Exposition of one recorded page."""
    path = "/api/ps" if page.suffix == ".json" else "/metrics"
    fetcher = Recorded(f"http://engine:8000{path}", 1.0, 1 << 24, page=page)
    source = EngineSource(Mapper(engines()), engines(), fetcher, Identity("engine:8000"), 5.0)
    return Exposition([source.collect()]).body().decode()


def samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        yield from family.samples


@pytest.mark.parametrize("page", ENGINES, ids=named)
def test_a_recorded_page_maps_to_its_golden(page: Path, golden: Callable[[str, str], None]) -> None:
    golden(f"engines/{page.stem}.txt", mapped(page))


@pytest.mark.parametrize("page", GATEWAYS, ids=named)
def test_a_gateway_that_repeats_its_engines_gives_no_series(page: Path) -> None:
    with pytest.raises(SourceError, match=r"no engine recognised|router"):
        mapped(page)


@pytest.mark.parametrize("page", [page for page in ENGINES if page in EXPECTED], ids=named)
def test_a_recorded_page_maps_to_the_values_worked_out_by_hand(page: Path) -> None:
    expected = EXPECTED[page]
    found = [sample for sample in samples(mapped(page)) if not sample.name.endswith("_metric_supported")]
    assert {sample.labels["engine"] for sample in found} == set(expected["engines"])
    for line in expected["series"]:
        matching = [s for s in found if s.name == line["metric"] and _carries(s.labels, line.get("labels", {}))]
        assert matching, f"{line} is not there"
        assert sum(s.value for s in matching) == pytest.approx(line["value"], rel=1e-9), line
        assert len(matching) == 1 or "labels" in line or len({s.labels["instance_id"] for s in matching}) > 1, line
    for line in expected.get("absent_series", ()):
        assert not any(s.name == line["metric"] and _carries(s.labels, line["labels"]) for s in found), line
    names = {re.sub("_(bucket|sum|count)$", "", s.name) for s in found} | {s.name for s in found}
    assert not names & set(expected.get("absent", ()))


def _carries(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    """`replica` stands for the end of instance_id, and bounds are compared as numbers."""
    for name, value in wanted.items():
        if name == "replica":
            if not labels["instance_id"].endswith(f"/{value}"):
                return False
        elif name == "le":
            if float(labels.get("le", "nan")) != float(value):
                return False
        elif labels.get(name) != value:
            return False
    return True


@pytest.mark.parametrize("page", ENGINES, ids=named)
def test_a_recorded_page_says_of_each_canonical_metric_whether_it_has_it(page: Path) -> None:
    found = list(samples(mapped(page)))
    values = [s for s in found if "metric" not in s.labels]
    given = {(s.labels["engine"], re.sub("_(bucket|sum|count)$", "", s.name)) for s in values}
    claimed = [s for s in found if s.name == "palegreen_engine_metric_supported"]
    assert {(s.labels["engine"], s.labels["metric"]) for s in claimed if s.value} == {
        (engine, name) for engine, name in given if metrics()[name].canonical
    }
    assert all((s.labels["quality"] == "absent") == (s.value == 0) for s in claimed)
