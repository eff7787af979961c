"""The recall probe against a real approximate index (HNSW of faiss), degraded on purpose."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ann
from support.probing import lines, probe, results, rounds, shown
from support.samples import batch

from palegreen.evaluators.probes.retrieval import Asked, RetrievalProbe
from palegreen.evaluators.probes.retrieval_config import RetrievalConfig
from palegreen.evaluators.probes.retrieval_queries import in_turn
from palegreen.evaluators.probes.retrieval_recall import bounds
from palegreen.evaluators.probes.retrieval_search import Found, Question
from palegreen.evaluators.store.store import Store

ROWS = ann.vectors(4000)
QUERIES = ann.vectors(80, seed=1)
Serve = Callable[[Callable[..., Any]], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Makes a function one that a configuration can name."""

    def named(function: Callable[..., Any]) -> str:
        module = ModuleType("team_search")
        module.search = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "team_search", module)
        return "team_search:search"

    return named


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    return lines(tmp_path / "queries.jsonl", *({"vector": vector} for vector in QUERIES))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    np.savez(tmp_path / "all.npz", ids=np.arange(len(ROWS)), vectors=ROWS)
    return tmp_path / "all.npz"


def searching(index: ann.Hnsw) -> Callable[..., Any]:
    """An index that searches exactly too, over what it holds."""

    def search(*, text: str, vector: Any, k: int, exact: bool) -> Any:
        return index.exact(vector, k) if exact else index.search(vector, k)[0]

    return search


def asking(serve: Serve, index: ann.Hnsw, queries: Path, **more: Any) -> RetrievalProbe:
    return probe({"python": serve(searching(index)), "queries": str(queries), "queries_per_round": 80, **more})


@pytest.mark.parametrize("ef", [400, 10])
def test_recall_is_that_of_the_definition(serve: Serve, queries: Path, ef: int) -> None:
    index = ann.Hnsw(ROWS, ef)
    asked = asking(serve, index, queries)
    rounds(asked)

    recall = ann.true_recall(index, QUERIES, 10)
    assert shown(asked, "recall_ratio", k="10") == pytest.approx(recall)
    assert shown(asked, "recall_hits_total", k="10") == pytest.approx(recall * 800)
    assert shown(asked, "recall_expected_total", k="10") == 800
    assert shown(asked, "recall_window_queries", k="10") == 80
    assert results(asked) == {"ok": 80}


def test_a_search_that_visits_too_little_is_told_from_one_that_does_not(serve: Serve, queries: Path) -> None:
    good = asking(serve, ann.Hnsw(ROWS, 400), queries)
    rounds(good)
    lower = shown(good, "recall_lower_ratio")
    bad = asking(serve, ann.Hnsw(ROWS, 10), queries)
    rounds(bad)
    upper = shown(bad, "recall_upper_ratio")
    assert lower is not None and upper is not None and upper < 0.75 < 0.85 < lower


def test_vectors_that_the_index_lost_are_seen_only_by_a_file_of_them(serve: Serve, queries: Path, whole: Path) -> None:
    held = np.random.default_rng(2).choice(len(ROWS), len(ROWS) // 2, replace=False)
    index = ann.Hnsw(ROWS, 400, held)

    within = asking(serve, index, queries)
    rounds(within)
    beyond = asking(serve, index, queries, vectors=str(whole))
    rounds(beyond)
    mine, of_file = shown(within, "recall_ratio"), shown(beyond, "recall_ratio")
    assert mine is not None and mine > 0.95  # its exact search lacks them too
    assert of_file == pytest.approx(ann.true_recall(index, QUERIES, 10))
    assert of_file is not None and 0.4 < of_file < 0.6


def test_an_index_that_was_not_renewed_misses_what_is_new(serve: Serve, queries: Path, whole: Path) -> None:
    index = ann.Hnsw(ROWS, 400, np.arange(3000))  # the last thousand came later
    asked = asking(serve, index, queries, vectors=str(whole))
    rounds(asked)
    assert shown(asked, "recall_ratio") == pytest.approx(ann.true_recall(index, QUERIES, 10))
    assert (shown(asked, "recall_upper_ratio") or 1) < 0.9


def test_ids_that_the_file_lacks_are_told_and_count_as_misses(serve: Serve, queries: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", ids=np.arange(2000), vectors=ROWS[:2000])
    asked = asking(serve, ann.Hnsw(ROWS, 400), queries, vectors=str(tmp_path / "old.npz"))
    rounds(asked)
    assert results(asked).get("unknown_ids", 0) > 70
    assert (shown(asked, "recall_ratio") or 1) < 0.7


@pytest.mark.parametrize(("ef", "links"), [(400, 32), (30, 8)])
def test_a_tenth_of_the_vectors_tells_the_recall_of_all(
    serve: Serve, queries: Path, tmp_path: Path, ef: int, links: int
) -> None:
    some = np.random.default_rng(3).choice(len(ROWS), 400, replace=False)
    np.savez(tmp_path / "some.npz", ids=some, vectors=ROWS[some])
    index = ann.Hnsw(ROWS, ef, links=links)
    asked = asking(serve, index, queries, k=100, vectors=str(tmp_path / "some.npz"), vectors_sample=True)
    rounds(asked)
    assert shown(asked, "recall_ratio") == pytest.approx(ann.true_recall(index, QUERIES, 100), abs=0.06)


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("kind", ["npy", "npz", "parquet"])
def test_each_kind_of_file_and_each_distance_gives_the_true_neighbours(
    serve: Serve, tmp_path: Path, distance: str, kind: str
) -> None:
    chance = np.random.default_rng(5)
    rows, asked_for = chance.normal(size=(300, 8)).astype("f4"), chance.normal(size=(20, 8)).astype("f4")
    file = tmp_path / f"vectors.{kind}"
    if kind == "npy":
        np.save(file, rows)
    elif kind == "npz":
        np.savez(file, ids=np.arange(300), vectors=rows)
    else:
        import pandas as pd

        pd.DataFrame({"id": range(300), "vector": list(rows)}).to_parquet(file)

    def search(*, text: str, vector: Any, k: int, exact: bool) -> Any:
        lengths = np.linalg.norm(rows, axis=1)
        far = {
            "cosine": -(rows @ vector) / lengths,
            "dot": -(rows @ vector),
            "euclidean": np.linalg.norm(rows - vector, axis=1),
        }
        return np.argsort(far[distance])[:k]

    queries = lines(tmp_path / "queries.jsonl", *({"vector": vector} for vector in asked_for))
    asked = probe(
        {
            "python": serve(search),
            "queries": str(queries),
            "queries_per_round": 20,
            "vectors": str(file),
            "distance": distance,
        }
    )
    rounds(asked)
    assert shown(asked, "recall_ratio") == 1 and results(asked) == {"ok": 20}


def test_what_ties_with_the_last_true_neighbour_is_found(serve: Serve, tmp_path: Path) -> None:
    np.save(tmp_path / "twins.npy", np.repeat(np.eye(4, dtype="f4"), 5, axis=0))  # five copies of each
    file = lines(tmp_path / "queries.jsonl", {"vector": [1, 0, 0, 0]})

    def search(*, text: str, vector: Any, k: int, exact: bool) -> Any:
        return {"ids": ["0", "1", "2"] if exact else ["0", "4", "3"], "scores": [1.0, 0.5, 0.5]}

    for more in ({}, {"vectors": str(tmp_path / "twins.npy")}):
        asked = probe({"python": serve(search), "queries": str(file), "k": 3, **more})
        rounds(asked)
        assert shown(asked, "recall_ratio") == 1


def test_scores_that_are_all_the_same_make_nothing_a_true_neighbour(serve: Serve, queries: Path) -> None:
    def search(*, text: str, vector: Any, k: int, exact: bool) -> Any:
        return {"ids": ["0", "1"] if exact else ["1", "2"], "scores": [1.0, 1.0]}

    asked = probe({"python": serve(search), "queries": str(queries)})
    rounds(asked)
    assert shown(asked, "recall_ratio") == 0.5


def test_an_index_smaller_than_k_is_judged_by_what_it_has(serve: Serve, queries: Path) -> None:
    asked = asking(serve, ann.Hnsw(ROWS[:7], 50), queries)
    rounds(asked)
    assert shown(asked, "recall_ratio") == 1 and shown(asked, "recall_expected_total") == 7 * 80


def test_prompts_come_from_the_store_and_only_from_fair_samples(serve: Serve, tmp_path: Path) -> None:
    store = Store(tmp_path / "samples.db", 1e9, 1 << 30)
    store.add(batch(3, messages=[{"role": "user", "content": "Where is the bridge?"}]))
    store.add(batch(3, 3, messages=[{"role": "user", "content": "tagged"}], sampled="kept"))
    store.close()
    seen: list[str] = []

    def search(*, text: str, vector: Any, k: int, exact: bool) -> Any:
        seen.append(text)
        return ["a"]

    asked = probe({"python": serve(search)}, store=str(tmp_path / "samples.db"))
    rounds(asked, 2)
    assert seen == ["Where is the bridge?"] * 4 and results(asked) == {"ok": 2}
    assert shown(asked, "recall_window_queries") == 1  # asked twice, it is one query


def test_a_store_without_prompts_is_counted_and_nothing_is_asked(serve: Serve, tmp_path: Path) -> None:
    asked = probe({"python": serve(lambda **_: [])}, store=str(tmp_path / "none.db"))
    rounds(asked)
    assert results(asked) == {"no_query": 1} and shown(asked, "recall_ratio") is None


def test_texts_are_embedded_by_the_embedder_that_is_named(serve: Serve, tmp_path: Path) -> None:
    dimensions: list[int] = []

    def search(*, text: str, vector: Any, k: int, exact: bool) -> Any:
        dimensions.append(len(vector))
        return ["a"]

    file = lines(tmp_path / "queries.jsonl", {"text": "Where is the bridge?"})
    rounds(probe({"python": serve(search), "queries": str(file), "embedder": "static"}))
    assert dimensions == [128, 128]


def test_the_same_seed_asks_the_same_queries_and_each_once_a_turn() -> None:
    questions = [Question(str(number), f"q{number}", None) for number in range(10)]
    one, other, third = in_turn(questions, 7), in_turn(questions, 7), in_turn(questions, 8)
    drawn = [one(3) for _ in range(20)]
    assert drawn == [other(3) for _ in range(20)] != [third(3) for _ in range(20)]
    assert sorted(q.key for part in drawn for q in part) == sorted([str(n) for n in range(10)] * 6)


def test_recall_is_absent_once_the_index_has_been_silent_for_three_rounds() -> None:
    now, silent = [0.0], [False]

    def search(question: Question, k: int, exact: bool) -> Found:
        return Found(()) if silent[0] else Found(("a", "b"))

    config = RetrievalConfig.model_validate({"index": "docs", "python": "m:f", "interval": 60, "exact_timeout": 10})
    asked = RetrievalProbe(config, Asked(search, lambda _: [Question("q", "q", None)]), ("",) * 5, lambda: now[0])
    rounds(asked)
    silent[0] = True
    now[0] = 180
    rounds(asked)
    assert shown(asked, "recall_ratio") == 1 and results(asked) == {"ok": 1, "empty": 1}
    now[0] = 191
    assert shown(asked, "recall_ratio") is None and shown(asked, "recall_hits_total") == 2


def test_a_round_ends_when_the_evaluator_stops() -> None:
    stopped = Event()
    seen: list[str] = []

    def search(question: Question, k: int, exact: bool) -> Found:
        seen.append(question.key)
        stopped.set()
        return Found(("a",))

    config = RetrievalConfig.model_validate({"index": "docs", "python": "m:f"})
    RetrievalProbe(config, Asked(search, lambda n: [Question(str(i), "q", None) for i in range(n)]), ("",) * 5).run(
        stopped
    )
    assert seen == ["0", "0"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_the_interval_holds_the_mean(recalls: list[float]) -> None:
    low, high = bounds(recalls)
    assert 0 <= low <= float(np.mean(recalls)) <= high <= 1


def test_a_few_queries_say_little_and_many_say_much() -> None:
    chance = np.random.default_rng(12)
    ends = {size: bounds(list(chance.binomial(10, 0.8, size) / 10)) for size in (1, 5, 50, 500)}
    assert ends[1] == (0, 1)
    assert ends[5][1] > 0.95  # not yet below what anybody would ask for
    assert ends[50][1] < 0.9 and ends[500][1] - ends[500][0] < 0.06


def test_the_interval_misses_the_truth_at_most_once_in_a_hundred() -> None:
    chance = np.random.default_rng(11)
    for truth, size in ((0.5, 20), (0.9, 40), (0.98, 100)):
        drawn = chance.binomial(10, truth, size=(1000, size)) / 10
        ends = [bounds(list(row)) for row in drawn]
        assert np.mean([not low <= truth <= high for low, high in ends]) <= 0.01
