"""Metrics pages of engines as text: what is refused, what is read, and what it becomes."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample
from support.engine import VLLM_PAGE, samples, source, value
from support.server import OPENMETRICS, Server, response

from palegreen.catalogue.engines import engines
from palegreen.exporter.engines.mapping import Mapped, Mapper, version_matches
from palegreen.exporter.engines.page import Histogram, Page, PageError, PageParser
from palegreen.exporter.source import SourceError

CAPTURES = Path(__file__).parent / "captures" / "engines"
RUNNING = "palegreen_engine_requests_running"
WAITING = "palegreen_engine_requests_waiting"
KV = "palegreen_engine_kv_cache_usage_ratio"
CAPACITY = "palegreen_engine_kv_cache_capacity_tokens"
GENERATED = "palegreen_engine_generation_tokens_total"
HITS = "palegreen_engine_prefix_cache_hit_tokens_total"
QUERIES = "palegreen_engine_prefix_cache_query_tokens_total"
TTFT = "palegreen_engine_time_to_first_token_seconds"
SUPPORTED = "palegreen_engine_metric_supported"

GAUGE = "# TYPE vllm:num_requests_running gauge\n"
HISTOGRAM = """\
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{model_name="m",le="0.5"} 1
vllm:time_to_first_token_seconds_bucket{model_name="m",le="+Inf"} 3
vllm:time_to_first_token_seconds_sum{model_name="m"} 4.5
vllm:time_to_first_token_seconds_count{model_name="m"} 3
"""
WHOLE = (
    VLLM_PAGE
    + HISTOGRAM
    + HISTOGRAM.partition("\n")[2].replace('"m"', '"é"')
    + '# TYPE other gauge\nother{path="C:\\\\dir",said="\\"hi\\"\\n"} 1\n'
)


def parse(text: str, *, openmetrics: bool = False) -> Page:
    return PageParser(Mapper(engines()).wanted).parse(text, openmetrics=openmetrics)


def mapped(text: str, version: str = "", model: str = "") -> dict[str, Mapped]:
    mapper = Mapper(engines())
    page = PageParser(mapper.wanted).parse(text)
    return {each.engine.engine: each for each in mapper.map(page, version, model)}


def rows(text: str, engine: str, metric: str, version: str = "") -> dict[tuple[str, ...], object]:
    """Values of one metric by model, process and canonical label values."""
    found = mapped(text, version)[engine].rows.get(metric, {})
    return {
        (owner.model, owner.instance, *(text for _, text in labels)): number
        for (owner, labels), number in found.items()
    }


def capture(name: str) -> str:
    return (CAPTURES / name).read_text(encoding="utf-8")


def published(page: str, kind: str | None = None, extra: dict[str, bytes] | None = None) -> list[Sample]:
    """What the daemon gives for an engine with that page."""
    served = response(page, kind) if kind else response(page)
    with Server({"/metrics": served, **(extra or {})}) as server:
        return samples(source(server.url).collect())


# What is refused.


def test_a_page_cut_at_any_byte_is_refused_or_gives_only_whole_and_right_rows() -> None:
    raw = WHOLE.encode()
    mapper = Mapper(engines())
    whole = parse(WHOLE)
    right = {row for each in mapper.map(whole) for row in _flat(each)}
    assert len(right) == 6
    for cut in range(len(raw)):
        try:
            text = raw[:cut].decode()
        except UnicodeDecodeError:
            continue  # refused before it is parsed
        try:
            page = parse(text)
        except PageError:
            continue
        assert text.endswith("\n"), f"cut inside of a line at byte {cut}"
        assert all(row in whole.rows[name] for name, listed in page.rows.items() for row in listed)
        assert {row for each in mapper.map(page) for row in _flat(each)} <= right


def _flat(each: Mapped) -> list[tuple[object, ...]]:
    return [(metric, place, number) for metric, found in each.rows.items() for place, number in found.items()]


@pytest.mark.parametrize("name", ["vllm.prom", "sglang.prom", "tgi.prom"])
def test_a_recorded_page_cut_after_any_line_never_gives_a_row_the_whole_page_does_not_give(name: str) -> None:
    lines = capture(name).splitlines(keepends=True)
    parser = PageParser(Mapper(engines()).wanted)
    whole = parser.parse("".join(lines))
    for count in range(0, len(lines), 3):
        try:
            page = parser.parse("".join(lines[:count]))
        except PageError:
            continue
        assert all(row in whole.rows[key] for key, listed in page.rows.items() for row in listed)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "empty page"),
        ("\n \n", "empty page"),
        (VLLM_PAGE.rstrip("\n"), "cut short"),
        ("\x00\x01\x02\xff" * 20 + "\n", "line 1: no metric name"),
        ("<html><body>hello</body></html>\n", "line 1: no metric name"),
        ('{"a": 1}\n', "line 1: no metric name"),
        (GAUGE + "vllm:num_requests_running NaN\n", "line 2: vllm:num_requests_running is NaN"),
        (GAUGE + 'vllm:num_requests_running{a="b"} nan\n', "line 2: vllm:num_requests_running is NaN"),
        ("vllm:num_requests_running 1\n", "vllm:num_requests_running has no TYPE"),
        (HISTOGRAM.partition("\n")[2], "vllm:time_to_first_token_seconds_bucket has no TYPE"),
        (GAUGE + 'vllm:num_requests_running{a="1"} 1\n' * 2, "line 3: series given twice"),
        (
            GAUGE + 'vllm:num_requests_running{a="1",b="2"} 1\nvllm:num_requests_running{b="2",a="1"} 1\n',
            "line 3: series given twice",
        ),
        (
            GAUGE + "# TYPE vllm:num_requests_running counter\nvllm:num_requests_running 1\n",
            "line 2: vllm:num_requests_running is declared gauge and counter",
        ),
        ("# TYPE vllm:num_requests_running gouge\n", "line 1: broken TYPE"),
        ("# TYPE vllm:num_requests_running\n", "line 1: broken TYPE"),
        (GAUGE + 'vllm:num_requests_running{a="say "hi""} 1\n', "line 2: broken labels"),
        (GAUGE + 'vllm:num_requests_running{a="two\nlines"} 1\n', "line 2: broken labels"),
        ('unmapped{a="say "hi""} 1\n', "line 1: broken labels"),
        ('unmapped{a="two\nlines"} 1\n', "line 1: broken labels"),
        (GAUGE + 'vllm:num_requests_running{a="1",a="2"} 1\n', "line 2: label a given twice"),
        (GAUGE + "vllm:num_requests_running\n", "line 2: no number"),
        (GAUGE + "vllm:num_requests_running one\n", "line 2: no number"),
        (GAUGE + "vllm:num_requests_running 1_000\n", "line 2: no number"),
        (GAUGE + "vllm:num_requests_running 1 2 3\n", "line 2: no number"),
        (HISTOGRAM.replace('{model_name="m",le="+Inf"} 3', '{model_name="m",le="9"} 3'), "is not whole"),
        (HISTOGRAM.replace('_sum{model_name="m"}', '_sum{model_name="n"}'), "is not whole"),
        (HISTOGRAM.replace('le="0.5"', 'le="half"'), "without a numeric le label"),
        (HISTOGRAM.replace(',le="0.5"', ""), "without a numeric le label"),
        (HISTOGRAM.replace('le="0.5"', 'le="NaN"'), "without a numeric le label"),
        (
            HISTOGRAM.replace("_sum", '_bucket{model_name="m",le="0.50"} 1\nvllm:time_to_first_token_seconds_sum', 1),
            "bucket that is given twice",
        ),
    ],
)
def test_what_cannot_be_believed_is_refused_with_its_cause_in_one_line(text: str, cause: str) -> None:
    with pytest.raises(PageError, match=cause) as refused:
        parse(text)
    assert len(str(refused.value).splitlines()) == 1


def test_a_page_seen_before_is_checked_as_strictly_as_a_new_one() -> None:
    parser = PageParser(Mapper(engines()).wanted)
    parser.parse(GAUGE + "vllm:num_requests_running 1000\n")
    for broken in ("1_000", "NaN", "one", "\u0661"):
        with pytest.raises(PageError):
            parser.parse(GAUGE + f"vllm:num_requests_running {broken}\n")


def test_what_is_broken_only_in_unmapped_samples_is_fine() -> None:
    page = parse(GAUGE + "vllm:num_requests_running 1\nnan_here NaN\nuntyped 1\ntwice 1\ntwice 2\n")
    assert {name: [row.value for row in listed] for name, listed in page.rows.items()} == {
        "vllm:num_requests_running": [1.0]
    }


def test_openmetrics_without_its_end_is_refused() -> None:
    with pytest.raises(PageError, match="# EOF"):
        parse(VLLM_PAGE, openmetrics=True)
    assert parse(VLLM_PAGE + "# EOF\n", openmetrics=True).rows


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@example("# TYPE a\n")
@example('a{b="\\')
@example("vllm:num_requests_running{" + 'a="b",' * 99 + "\n")
@settings(max_examples=300)
def test_no_text_makes_the_parser_fail_otherwise_than_by_refusing(text: str) -> None:
    for page in (text, text + "\n", GAUGE + f"vllm:num_requests_running{text}\n", f"{HISTOGRAM}{text}\n"):
        for openmetrics in (False, True):
            try:
                parse(page, openmetrics=openmetrics)
            except PageError as refused:
                assert len(str(refused).splitlines()) == 1


@given(st.data())
@settings(max_examples=300)
def test_no_damage_to_a_page_makes_parser_or_mapper_fail_otherwise_than_by_refusing(data: st.DataObject) -> None:
    raw = bytearray(WHOLE.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        end = min(len(raw), start + data.draw(st.integers(0, 40)))
        raw[start:end] = data.draw(st.binary(max_size=8) | st.sampled_from([b'"', b"\n", b"{", b"}", b"# TYPE ", b"9"]))
    with contextlib.suppress(PageError):
        mapped(raw.decode("utf-8", "replace"))


@given(st.sampled_from(["engine", "model_name", "le", "reason"]), st.text(max_size=30))
@example("engine", "9" * 5000)
@example("tp_rank", "9" * 5000)
@example("pid", "9" * 5000)
@settings(max_examples=100)
def test_any_label_value_can_be_mapped(label: str, text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    page = "".join(
        f'# TYPE {name} gauge\n{name}{{engine_type="e",{label}="{escaped}"}} 1\n'
        for name in ("vllm:num_requests_running", "sglang:num_running_reqs", "trtllm_num_requests_running")
    )
    assert {"vllm", "sglang", "trtllm_serve"} == set(mapped(page))


# What is read.


def test_escaped_label_values_are_read_and_republished_correctly_escaped() -> None:
    model = 'a\\b "c"\nd,e="f"} 7'
    escaped = 'a\\\\b \\"c\\"\\nd,e=\\"f\\"} 7'
    found = published(VLLM_PAGE.replace('"m"', f'"{escaped}"'))
    assert value(found, RUNNING, model=model) == 3
    assert value(found, GENERATED, model=model) == 1234


@pytest.mark.parametrize(
    "line",
    [
        'vllm:num_requests_running{model_name="m"} 3 1700000000000',
        'vllm:num_requests_running{model_name="m"} 3 -1.5e3',
        'vllm:num_requests_running{model_name="m",} 3',
        'vllm:num_requests_running {model_name = "m"}\t3 ',
        'vllm:num_requests_running{ model_name="m" , } 3',
        'vllm:num_requests_running{model_name="m"} +3.0e0',
        'vllm:num_requests_running{model_name="m"} 3 # {trace_id="x"} 0.5 1.0',
    ],
)
def test_timestamps_exemplars_and_blanks_are_understood_at_first_sight_and_later(line: str) -> None:
    parser = PageParser(Mapper(engines()).wanted)
    for _ in range(2):
        page = parser.parse(f"{GAUGE}{line}\n")
        assert [(row.labels, row.value) for row in page.rows["vllm:num_requests_running"]] == [({"model_name": "m"}, 3)]


def test_exemplars_on_buckets_are_passed_over() -> None:
    plain = HISTOGRAM + "# EOF\n"
    marked = plain.replace('le="0.5"} 1', 'le="0.5"} 1 # {trace_id="a b\\"c"} 0.43 1700000000.5')
    assert parse(marked, openmetrics=True).rows == parse(plain, openmetrics=True).rows


def test_carriage_returns_before_line_feeds_are_passed_over() -> None:
    found = published(VLLM_PAGE.replace("\n", "\r\n"))
    assert value(found, RUNNING, model="m") == 3
    found = published((VLLM_PAGE.replace("_total counter", " counter") + "# EOF\n").replace("\n", "\r\n"), OPENMETRICS)
    assert value(found, GENERATED, model="m") == 1234


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e+300", 1e300),
        ("18446744073709551616", 2.0**64),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("5e-324", 5e-324),
        ("-0", -0.0),
        ("+Inf", math.inf),
        ("9007199254740993", 9007199254740992.0),
    ],
)
def test_huge_and_tiny_numbers_come_out_as_they_went_in(text: str, number: float) -> None:
    found = published(GAUGE + f'vllm:num_requests_running{{model_name="m"}} {text}\n')
    assert value(found, RUNNING) == number


def test_a_counter_typed_without_total_and_one_sampled_without_it_are_both_counters() -> None:
    page = (
        "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total 5\nvllm:generation_tokens_created 1.7e9\n"
        "# TYPE tgi_request_success counter\ntgi_request_success 7\n"
    )
    assert rows(page, "vllm", GENERATED) == {("", ""): 5.0}
    assert rows(page, "tgi", "palegreen_engine_requests_finished_total") == {("", "", "unknown"): 7.0}


def test_a_gauge_is_never_published_as_a_counter_nor_a_counter_as_a_histogram() -> None:
    page = "# TYPE tgi_request_success gauge\ntgi_request_success 5\n"
    assert "tgi" not in mapped(page)
    page = "# TYPE vllm:iteration_tokens counter\nvllm:iteration_tokens_total 5\n"
    assert "vllm" not in mapped(page)


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=4),
    st.lists(st.floats(allow_nan=False), min_size=4, max_size=4),
    st.lists(st.integers(0, 2**53), min_size=3, max_size=3),
    st.booleans(),
)
@settings(max_examples=150)
def test_expositions_of_prometheus_client_are_read_as_its_own_parser_reads_them(
    models: list[str], gauges: list[float], counts: list[int], openmetrics: bool
) -> None:
    names = dict.fromkeys(models)
    text = _generated([*names], gauges, counts, openmetrics)
    parser = PageParser(Mapper(engines()).wanted)
    for _ in range(2):  # the second time from memory
        page = parser.parse(text, openmetrics=openmetrics)
        assert _theirs(text, openmetrics) == _ours(page)


class _Page:
    """A collector of fixed families."""

    def __init__(self, families: list[Metric]) -> None:
        self.collect = lambda: families


def _generated(models: list[str], gauges: list[float], counts: list[int], openmetrics: bool) -> str:
    gauge = GaugeMetricFamily("vllm:num_requests_running", 'help "quoted"\n\\', labels=["model_name"])
    counter = CounterMetricFamily("vllm:generation_tokens", "", labels=["model_name"])
    histogram = HistogramMetricFamily("vllm:time_to_first_token_seconds", "", labels=["model_name"])
    unmapped = GaugeMetricFamily("unmapped", "", value=math.nan)
    for index, model in enumerate(models):
        gauge.add_metric([model], gauges[index])
        counter.add_metric([model], counts[0] + index, created=1.7e9)
        buckets = [("0.1", counts[1]), ("2.5", counts[1] + counts[2]), ("+Inf", counts[1] + counts[2])]
        histogram.add_metric([model], buckets, sum_value=abs(gauges[index]))
    registry = CollectorRegistry()
    registry.register(_Page([gauge, unmapped, counter, histogram]))  # type: ignore[arg-type]  # a collector by shape
    return (generate_openmetrics(registry, ALLOWUTF8) if openmetrics else generate_latest(registry)).decode()


def _theirs(text: str, openmetrics: bool) -> set[tuple[str, frozenset[tuple[str, str]], float]]:
    families = (parse_openmetrics if openmetrics else parse_text)(text)
    return {
        (sample.name, frozenset(_exact(sample.labels).items()), sample.value)
        for family in families
        for sample in family.samples
        if family.name != "unmapped" and not sample.name.endswith("_created")
    }


def _exact(labels: dict[str, str]) -> dict[str, str]:
    return {name: str(float(text)) if name == "le" else text for name, text in labels.items()}


def _ours(page: Page) -> set[tuple[str, frozenset[tuple[str, str]], float]]:
    found = set()
    for name, listed in page.rows.items():
        if name.endswith(("_bucket", "_sum", "_count")):
            continue  # of the histogram, which has its own rows
        for row in listed:
            labels = frozenset(row.labels.items())
            if not isinstance(row.value, Histogram):
                found.add((name, labels, row.value))
                continue
            found |= {(f"{name}_sum", labels, row.value.sum), (f"{name}_count", labels, row.value.count)}
            found |= {(f"{name}_bucket", labels | {("le", str(bound))}, count) for bound, count in row.value.buckets}
    return found


# What it becomes.


def _gauges(name: str, *labelled: tuple[str, float], kind: str = "gauge") -> str:
    return f"# TYPE {name} {kind}\n" + "".join(f"{name}{{{labels}}} {number}\n" for labels, number in labelled)


BLOCKS = (
    _gauges("vllm:num_requests_running", ('model_name="m"', 1))
    + _gauges("vllm:gpu_prefix_cache_queries_total", ('model_name="m"', 100), kind="counter")
    + _gauges("vllm:gpu_prefix_cache_hits_total", ('model_name="m"', 40), kind="counter")
    + _gauges("vllm:cache_config_info", ('block_size="16",num_gpu_blocks="1000"', 1))
)


@pytest.mark.parametrize(
    ("version", "factor", "quality"),
    [("0.8.5.post1", 16, "derived"), ("", 16, "derived"), ("0.9.2", 1, "native"), ("0.10.2", 1, "native")],
)
def test_prefix_cache_counters_in_blocks_are_scaled_to_tokens_up_to_vllm_0_9_1(
    version: str, factor: int, quality: str
) -> None:
    assert rows(BLOCKS, "vllm", QUERIES, version) == {("m", ""): 100.0 * factor}
    assert rows(BLOCKS, "vllm", HITS, version) == {("m", "", "device"): 40.0 * factor}
    assert {q for (_, metric), q in mapped(BLOCKS, version)["vllm"].quality.items() if metric == HITS} == {quality}


def test_prefix_cache_counters_in_blocks_are_absent_where_the_block_size_is_not_known() -> None:
    page = BLOCKS.replace('block_size="16",', "")
    assert QUERIES not in mapped(page)["vllm"].rows
    assert rows(BLOCKS.replace('"16"', '"None"'), "vllm", QUERIES) == {}
    assert rows(BLOCKS.replace('"16"', '"nan"'), "vllm", QUERIES) == {}


def test_kv_capacity_is_the_engines_own_number_or_blocks_times_their_size() -> None:
    assert rows(BLOCKS, "vllm", CAPACITY) == {("m", ""): 16000.0}
    own = BLOCKS.replace('block_size="16"', 'block_size="16",kv_cache_size_tokens="15990"')
    assert rows(own, "vllm", CAPACITY) == {("m", ""): 15990.0}


@pytest.mark.parametrize(
    ("version", "constraint", "meets"),
    [
        ("0.9.2", ">=0.9.2", True),
        ("0.9.2rc1", ">=0.9.2", True),
        ("0.9.1", ">=0.9.2", False),
        ("0.10", ">=0.9.2", True),
        ("v0.9.3+cu128", ">=0.9.2", True),
        ("", ">=0.9.2", False),
        ("dev", "<9", False),
        ("0.5.3.post1", ">=0.5,<0.6", True),
        ("0.6.0", ">=0.5,<0.6", False),
        ("0.5", ">0.5", False),
        ("0.5", "<=0.5", True),
    ],
)
def test_a_version_meets_a_constraint_by_its_numbers(version: str, constraint: str, meets: bool) -> None:
    assert version_matches(version, constraint) is meets


def test_data_parallel_ranks_add_up_but_the_fullest_kv_cache_counts() -> None:
    ranks = [f'engine="{rank}",model_name="m"' for rank in range(3)]
    page = (
        _gauges("vllm:num_requests_running", *zip(ranks, (1, 2, 4), strict=True))
        + _gauges("vllm:kv_cache_usage_perc", *zip(ranks, (0.2, 0.9, 0.5), strict=True))
        + HISTOGRAM.replace("{", '{engine="0",')
        + HISTOGRAM.partition("\n")[2].replace("{", '{engine="1",')
    )
    assert rows(page, "vllm", RUNNING) == {("m", ""): 7.0}
    assert rows(page, "vllm", KV) == {("m", ""): 0.9}
    assert rows(page, "vllm", TTFT) == {("m", ""): Histogram(((0.5, 2.0), (math.inf, 6.0)), 9.0, 6.0)}


def test_histograms_of_ranks_with_different_buckets_add_up_at_the_bounds_they_share() -> None:
    other = HISTOGRAM.partition("\n")[2].replace('le="0.5"', 'le="0.7"').replace("{", '{engine="1",')
    page = HISTOGRAM.replace("{", '{engine="0",') + other
    assert rows(page, "vllm", TTFT) == {("m", ""): Histogram(((math.inf, 6.0),), 9.0, 6.0)}


def test_tensor_parallel_ranks_repeat_the_same_requests_and_count_once_per_data_parallel_rank() -> None:
    ranks = [f'dp_rank="{dp}",tp_rank="{tp}",pp_rank="0",model_name="m"' for dp in range(2) for tp in range(4)]
    page = _gauges("sglang:num_running_reqs", *((rank, 5 + index // 4) for index, rank in enumerate(ranks)))
    assert rows(page, "sglang", RUNNING) == {("m", ""): 11.0}


def test_of_a_restarted_process_only_the_latest_counts() -> None:
    dead, alive = ('pid="100",tp_rank="0",model_name="m"', 50.0), ('pid="2000",tp_rank="0",model_name="m"', 3.0)
    for listed in ((dead, alive), (alive, dead)):
        assert rows(_gauges("sglang:num_running_reqs", *listed), "sglang", RUNNING) == {("m", ""): 3.0}


def test_two_engines_on_one_page_keep_their_own_series() -> None:
    page = VLLM_PAGE + _gauges("sglang:num_running_reqs", ('model_name="s"', 9))
    assert rows(page, "vllm", RUNNING) == {("m", ""): 3.0}
    assert rows(page, "sglang", RUNNING) == {("s", ""): 9.0}
    found = published(page)
    assert value(found, RUNNING, engine="vllm", model="m") == 3
    assert value(found, RUNNING, engine="sglang", model="s") == 9


def test_two_models_behind_one_port_keep_their_own_series() -> None:
    page = _gauges("vllm:num_requests_running", ('model_name="a"', 1), ('model_name="b"', 2))
    assert rows(page, "vllm", RUNNING) == {("a", ""): 1.0, ("b", ""): 2.0}


def test_two_replicas_of_one_model_behind_rays_agent_are_told_apart_and_not_added_up() -> None:
    page = _gauges(
        "ray_vllm_num_requests_running", ('model_name="m",WorkerId="w1"', 4), ('model_name="m",WorkerId="w2"', 1)
    )
    assert rows(page, "ray_serve_llm", RUNNING) == {("m", "w1"): 4.0, ("m", "w2"): 1.0}
    found = published(page)
    assert {s.labels["instance_id"]: s.value for s in found if s.name == RUNNING} == {"node:1/w1": 4, "node:1/w2": 1}


def test_a_routers_page_that_repeats_its_backends_is_no_engine() -> None:
    page = VLLM_PAGE.replace("{", '{server="http://10.0.0.1:8000",')
    assert mapped(page) == {}
    with pytest.raises(SourceError, match="router"):
        published(page)


def test_a_page_without_any_engine_says_so() -> None:
    with pytest.raises(SourceError, match="no engine recognised among 2 metric families"):
        published(_gauges("node_load1", ("", 1)) + _gauges("up", ("", 1)))


def test_what_dynamo_passes_through_is_counted_once_as_the_engines() -> None:
    page = (
        VLLM_PAGE
        + _gauges("dynamo_component_inflight_requests", ('model="m"', 3))
        + _gauges("dynamo_component_gpu_cache_usage_percent", ('model="m"', 0.26))
        + _gauges("dynamo_component_model_load_time_seconds", ('model="m"', 41))
    )
    found = published(page)
    assert [(s.labels["engine"], s.value) for s in found if s.name == RUNNING] == [("vllm", 3.0)]
    assert [(s.labels["engine"], s.value) for s in found if s.name == KV] == [("vllm", 0.25)]
    load = [s for s in found if s.name == "palegreen_engine_model_load_duration_seconds"]
    assert [(s.labels["engine"], s.value) for s in load] == [("dynamo", 41.0)]


def test_lora_adapters_come_from_the_latest_report_only() -> None:
    page = GAUGE + 'vllm:num_requests_running{model_name="m"} 1\n'
    page += _gauges(
        "vllm:lora_requests_info",
        ('running_lora_adapters="old",waiting_lora_adapters=""', 100),
        ('running_lora_adapters="a, b",waiting_lora_adapters="c"', 200),
    )
    found = rows(page, "vllm", "palegreen_engine_lora_adapter_active")
    assert found == {("m", "", "a", "running"): 1.0, ("m", "", "b", "running"): 1.0, ("m", "", "c", "waiting"): 1.0}


def test_each_canonical_metric_is_native_derived_proxy_or_absent() -> None:
    page = (
        _gauges("tgi_batch_current_size", ("", 2))
        + _gauges("tgi_batch_current_max_tokens", ("", 50))
        + _gauges("tgi_batch_max_total_tokens", ("", 200))
        + re.sub(
            'model_name="m",?', "", HISTOGRAM.replace("vllm:time_to_first_token_seconds", "tgi_request_input_length")
        )
    )
    found = published(page, extra={"/info": response('{"model_id": "org/m", "version": "3.3.1"}', "application/json")})
    told = {s.labels["metric"]: (s.labels["quality"], s.value) for s in found if s.name == SUPPORTED}
    assert told[RUNNING] == ("native", 1)
    assert told["palegreen_engine_prompt_tokens_total"] == ("derived", 1)
    assert told[KV] == ("proxy", 1)
    assert told[TTFT] == ("absent", 0)
    assert value(found, KV, model="org/m") == 0.25
    assert value(found, "palegreen_engine_prompt_tokens_total", source="all") == 4.5
    assert value(found, "palegreen_engine_info", version="3.3.1") == 1
    canonical = {s.labels["metric"] for s in found if s.name == SUPPORTED}
    given = {re.sub("_(bucket|sum|count)$", "", s.name) for s in found}
    assert {name for name, (quality, _) in told.items() if quality != "absent"} == given & canonical


def test_a_zero_is_published_and_an_absence_is_not_made_a_zero() -> None:
    found = published(_gauges("vllm:num_requests_running", ('model_name="m"', 0)))
    assert value(found, RUNNING) == 0
    assert not [s for s in found if s.name == WAITING]
    assert value(found, SUPPORTED, metric=WAITING, quality="absent") == 0
