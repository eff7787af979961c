"""How indexes are reached, and what happens when they do not answer as they should."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import structlog
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support import ann
from support.jsonserver import Asked, JsonServer
from support.probing import config, lines, probe, results, rounds, shown
from support.server import Server, drip, hang, response

from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.retrieval import probes
from palegreen.evaluators.probes.retrieval_http import filled, pick
from palegreen.runtime.yamlfile import ConfigError

ROWS = ann.vectors(500)
INDEX = ann.Hnsw(ROWS, 8, links=4)  # misses a good part


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    records = ({"text": f"question {at}", "vector": row} for at, row in enumerate(ann.vectors(20, seed=1)))
    return lines(tmp_path / "queries.jsonl", *records)


@pytest.fixture
def server() -> Iterator[JsonServer]:
    with JsonServer(lambda asked: (500, {})) as running:
        yield running


def http(server: JsonServer | Server, queries: Path, path: str = "/", **more: Any) -> dict[str, Any]:
    part = {key: more.pop(key) for key in ("k", "timeout", "exact_timeout", "vectors") if key in more}
    return {"http": {"url": server.url + path, **more}, "queries": str(queries), "queries_per_round": 5, **part}


def qdrant(asked: Asked) -> tuple[int, Any]:
    """As its REST API answers `points/query` (version 1.10 on)."""
    assert asked.path == "/collections/docs/points/query"
    vector, limit = asked.body["query"], asked.body["limit"]
    ids = INDEX.exact(vector, limit) if asked.body["params"]["exact"] else INDEX.search(vector, limit)[0]
    points = [{"id": each, "version": 0, "score": float(ROWS[each] @ vector)} for each in ids]
    return 200, {"result": {"points": points}, "status": "ok", "time": 0.001}


def elasticsearch(asked: Asked) -> tuple[int, Any]:
    body = asked.body
    if "knn" in body:
        ids = INDEX.search(body["knn"]["query_vector"], body["knn"]["k"])[0]
    else:
        ids = INDEX.exact(body["query"]["script_score"]["script"]["params"]["vector"], body["size"])
    hits = [{"_index": "docs", "_id": str(each), "_score": 0.9} for each in ids]
    return 200, {"took": 1, "timed_out": False, "hits": {"total": {"value": len(hits)}, "hits": hits}}


def contract(asked: Asked) -> tuple[int, Any]:
    body = asked.body
    return 200, {
        "ids": (INDEX.exact if body["exact"] else lambda v, k: INDEX.search(v, k)[0])(body["vector"], body["k"])
    }


def by_address(asked: Asked) -> tuple[int, Any]:
    assert asked.path.startswith("/search?q=question%20") and asked.path.endswith(("&n=10", "&n=10&brute=1"))
    return 200, {"hits": [{"id": number} for number in range(10)]}


ENDPOINTS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "qdrant": (
        qdrant,
        "/collections/docs/points/query",
        {
            "body": {"query": "$vector", "limit": "$k", "params": {"exact": "$exact"}},
            "ids": "result.points[*].id",
            "scores": "result.points[*].score",
        },
    ),
    "elasticsearch": (
        elasticsearch,
        "/docs/_search",
        {
            "body": {"knn": {"field": "v", "query_vector": "$vector", "k": "$k", "num_candidates": 50}, "size": "$k"},
            "exact_body": {
                "size": "$k",
                "query": {
                    "script_score": {
                        "query": {"match_all": {}},
                        "script": {
                            "source": "cosineSimilarity(params.vector, 'v') + 1.0",
                            "params": {"vector": "$vector"},
                        },
                    }
                },
            },
            "ids": "hits.hits[*]._id",
        },
    ),
    "contract": (contract, "/search", {}),
}


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_an_endpoint_is_asked_in_its_own_words(server: JsonServer, queries: Path, kind: str) -> None:
    server.handler, path, words = ENDPOINTS[kind]
    asked = probe(http(server, queries, path, **words))
    rounds(asked, 4)
    assert results(asked) == {"ok": 20}
    assert shown(asked, "recall_ratio") == pytest.approx(ann.true_recall(INDEX, ann.vectors(20, seed=1), 10))
    assert shown(asked, "duration_seconds_count", source="probe") == 20
    assert shown(asked, "exact_duration_seconds_count") == 20


def test_a_get_is_asked_by_its_address(server: JsonServer, queries: Path) -> None:
    server.handler = by_address
    url = f"{server.url}/search?q=$text&n=$k"
    asked = probe(http(server, queries, url=url, exact_url=f"{url}&brute=1", method="GET", ids="hits[*].id"))
    rounds(asked)
    assert results(asked) == {"ok": 5} and all(each.body is None for each in server.asked)


def test_the_vector_of_the_answer_is_compared_with_the_file(server: JsonServer, tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", ROWS)

    def embedding(asked: Asked) -> tuple[int, Any]:
        vector = ROWS[int(asked.body["q"].removeprefix("query: row "))].tolist()
        return 200, {"ids": INDEX.search(vector, 10)[0], "embedding": vector}

    server.handler = embedding
    file = lines(tmp_path / "texts.jsonl", *({"text": f"row {at}"} for at in range(5)))
    more = {"body": {"q": "query: $text"}, "query_vector": "embedding", "vectors": str(tmp_path / "all.npy")}
    asked = probe(http(server, file, **more))
    rounds(asked)
    assert results(asked) == {"ok": 5} and (shown(asked, "recall_ratio") or 0) > 0


def test_headers_come_from_their_file_and_traces_are_not_sampled(
    server: JsonServer, queries: Path, tmp_path: Path
) -> None:
    server.handler = contract
    key = tmp_path / "headers"
    key.write_text("api-key: first\n")
    asked = probe(http(server, queries, headers_file=str(key)))
    rounds(asked)
    key.write_text("api-key: second\n")
    rounds(asked)
    assert [each.headers["api-key"] for each in server.asked] == ["first"] * 10 + ["second"] * 10
    traces = {each.headers["traceparent"] for each in server.asked}
    assert len(traces) == 20 and all(trace.startswith("00-") and trace.endswith("-00") for trace in traces)


TROUBLE: list[tuple[str, int, Any, str]] = [
    ("an error", 500, {"ids": ["1"]}, "failed"),
    ("a redirect", 302, b"", "failed"),
    ("no JSON", 200, b"<html>welcome</html>", "unreadable"),
    ("deep JSON", 200, b"[" * 100_000, "unreadable"),
    ("other JSON", 200, {"documents": ["1"]}, "unreadable"),
    ("a list", 200, ["1"], "unreadable"),
    ("a text instead of ids", 200, {"ids": "123"}, "unreadable"),
    ("an id that is none", 200, {"ids": ["1", None]}, "unreadable"),
    ("true as an id", 200, {"ids": [True]}, "unreadable"),
    ("no result", 200, {"ids": []}, "empty"),
    ("more than is read", 200, b" " * (9 << 20), "failed"),
]


@pytest.mark.parametrize(
    ("status", "body", "result"), [case[1:] for case in TROUBLE], ids=[case[0] for case in TROUBLE]
)
def test_an_answer_that_cannot_be_used_is_counted_and_gives_no_recall(
    server: JsonServer, queries: Path, status: int, body: Any, result: str
) -> None:
    server.handler = lambda asked: (status, body)
    asked = probe(http(server, queries))
    rounds(asked)
    assert results(asked) == {result: 5}
    assert shown(asked, "recall_ratio") is None
    server.handler = contract
    rounds(asked)
    assert results(asked) == {result: 5, "ok": 5}


def test_exact_search_that_fails_is_told_apart(server: JsonServer, queries: Path) -> None:
    server.handler = lambda asked: (503, {}) if asked.body["exact"] else contract(asked)
    asked = probe(http(server, queries))
    rounds(asked)
    assert results(asked) == {"exact_failed": 5} and shown(asked, "recall_ratio") is None
    assert shown(asked, "duration_seconds_count", source="probe") == 5


@pytest.mark.parametrize(
    ("ids", "result", "recall"),
    [
        (["0", "1"], "short", 0.2),
        (["0"] * 10, "duplicates", 0.1),
        ([str(each) for each in range(30)], "ok", 1.0),
        ([f"other {each}" for each in range(10)], "ok", 0.0),
    ],
    ids=["fewer than k", "one again and again", "more than k", "all wrong"],
)
def test_odd_results_enter_recall_and_are_named(
    server: JsonServer, queries: Path, ids: list[str], result: str, recall: float
) -> None:
    true = [str(each) for each in range(10)]
    server.handler = lambda asked: (200, {"ids": true if asked.body["exact"] else ids})
    asked = probe(http(server, queries))
    rounds(asked)
    assert results(asked) == {result: 5} and shown(asked, "recall_ratio") == recall


@pytest.mark.parametrize(
    "answer", [hang, drip(b" " * 10_000, b"HTTP/1.1 200 OK\r\n\r\n")], ids=["hung", "byte by byte"]
)
def test_a_slow_index_costs_its_timeout_and_is_counted(queries: Path, answer: Any) -> None:
    with Server({"/": answer}) as slow:
        asked = probe(http(slow, queries, timeout=0.1))
        rounds(asked)
        assert results(asked) == {"timeout": 5} and shown(asked, "duration_seconds_count", source="probe") is None


def test_an_index_that_is_not_there_or_breaks_off_is_counted(queries: Path) -> None:
    with Server({"/": response("{}")[:-1]}) as cut:
        asked = probe(http(cut, queries))
        rounds(asked)
    rounds(asked)
    assert results(asked) == {"failed": 10}


def test_a_function_that_hangs_is_called_once_and_one_that_raises_each_time(
    monkeypatch: pytest.MonkeyPatch, queries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release, calls = Event(), []

    def hanging(*, text: str, vector: Any, k: int, exact: bool) -> Any:
        calls.append(text)
        release.wait(60)

    def raising(**_: Any) -> Any:
        raise RuntimeError("secret question")

    module = ModuleType("team_search")
    monkeypatch.setattr(module, "hanging", hanging, raising=False)
    monkeypatch.setattr(module, "raising", raising, raising=False)
    monkeypatch.setitem(sys.modules, "team_search", module)
    given = {"queries": str(queries), "queries_per_round": 5, "timeout": 0.05}
    asked = probe({"python": "team_search:hanging", **given})
    rounds(asked)
    release.set()
    assert results(asked) == {"timeout": 5} and len(calls) == 1
    asked = probe({"python": "team_search:raising", **given})
    structlog.reset_defaults()  # whatever another test has configured
    rounds(asked)
    assert results(asked) == {"failed": 5}
    said = capsys.readouterr().out
    assert "RuntimeError in test_retrieval_adapters.py" in said and "secret" not in said


def test_what_is_wrong_at_the_start_is_one_line_that_names_it(tmp_path: Path, queries: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\nnot JSON\n')
    (tmp_path / "nan.jsonl").write_text('{"vector": [0, 0]}\n')
    (tmp_path / "odd.jsonl").write_text('{"vector": [1, 2]}\n')
    (tmp_path / "text.jsonl").write_text('{"text": "fine"}\n')
    np.save(tmp_path / "all.npy", ROWS)
    np.save(tmp_path / "flat.npy", ROWS[0])
    np.savez(tmp_path / "twice.npz", ids=np.zeros(500), vectors=ROWS)
    url = "http://127.0.0.1:1"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"python": "no_such_module_here:f"}, "no_such_module_here:f: the module cannot be imported"),
        ({"python": "json:no_such"}, "json has no function no_such"),
        ({"python": "json:dumps"}, "allowed: a function of text, vector, k, exact, by name"),
        ({"http": {"url": url}, "queries": str(tmp_path / "none.jsonl")}, "none.jsonl cannot be read"),
        ({"http": {"url": url}, "queries": str(tmp_path / "broken.jsonl")}, "broken.jsonl line 2 is no JSON"),
        ({"http": {"url": url}, "queries": str(tmp_path / "nan.jsonl")}, "line 1: a vector is all zero"),
        ({"http": {"url": url}, "embedder": "none such"}, "there is no embedder"),
        ({"http": {"url": url}}, "neither a file of queries nor a store"),
        ({"http": {"url": url}, "vectors": str(tmp_path / "none.npy")}, "none.npy cannot be read"),
        ({"http": {"url": url}, "vectors": str(tmp_path / "flat.npy")}, "vectors (32,)"),
        ({"http": {"url": url}, "vectors": str(tmp_path / "twice.npz")}, "an id is there twice"),
        ({"http": {"url": url}, "vectors": str(tmp_path / "all.npy"), "vectors_limit": 1000}, "vectors_limit"),
        ({"http": {"url": url}, "vectors": str(tmp_path / "all.npy"), "embedder": "static"}, "embedder static has 128"),
        (
            {"http": {"url": url}, "vectors": str(tmp_path / "all.npy"), "queries": str(tmp_path / "odd.jsonl")},
            "a vector has 2 dimensions",
        ),
        (
            {"http": {"url": url, "body": {"q": "$vector", "e": "$exact"}}, "queries": str(tmp_path / "text.jsonl")},
            "a query has no vector; allowed: an embedder",
        ),
        ({"http": {"url": url, "headers_file": str(tmp_path / "none")}}, "headers_file"),
        ({"http": {"url": url, "ca_file": str(tmp_path / "none")}}, "ca_file"),
    ]
    for section, said in cases:
        with pytest.raises(ConfigError) as refused:
            probes(config(section))
        assert said in str(refused.value) and "retrieval docs" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "one of http and python"),
        ({"python": "m:f", "http": {"url": "http://127.0.0.1"}}, "one of http and python"),
        ({"http": {"url": "http://127.0.0.1", "body": {"q": "$vector"}}}, "nothing says how to search exactly"),
        ({"python": "not a name"}, "python"),
        ({"python": "m:f", "vectors": "vectors.csv"}, ".npz, .npy or .parquet"),
        ({"python": "m:f", "vectors_sample": True}, "without vectors"),
        ({"python": "m:f", "index": 'a"b'}, "index"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(given)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_whatever_is_answered_has_something_or_nothing_at_a_path(answer: Any) -> None:
    for path in ("ids", "result.points[*].id", "[*]", "[*].id", "a[*].b[*].c"):
        pick(answer, path)
    values = {"$text": "t", "$vector": [1.0], "$k": 3, "$exact": True}
    filled(answer, values)


def test_placeholders_keep_their_types_and_texts_are_put_into_texts() -> None:
    values = {"$text": 'say "$k"', "$vector": [0.5], "$k": 3, "$exact": False}
    template = {"a": ["$vector", {"b": "$k"}], "c": "$exact", "d": "query: $text", "e": 1}
    assert filled(template, values) == {"a": [[0.5], {"b": 3}], "c": False, "d": 'query: say "$k"', "e": 1}


PAGES = [Path(__file__).parent.parent / "docs" / page for page in ("retrieval.md", "judge.md")]
EXAMPLES = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_pages_are_accepted(example: str) -> None:
    given = yaml.safe_load(textwrap.dedent(example))
    if "http" in given or "vectors" in given:  # a part of an index
        given = {"retrieval": [{"index": "docs", **({} if "http" in given else {"python": "m:f"}), **given}]}
    if "extra" in given:
        given = {"judge": {"url": "http://judge/v1", "model": "m", **given}}
    build(EvaluateConfig.model_validate({"file": "x", **given}).checks)
