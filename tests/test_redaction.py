"""What redaction takes out of texts, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from palegreen.evaluators.config import Pattern, RedactionConfig
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.runtime.yamlfile import ConfigError

CAPTURES = Path(__file__).parent / "captures" / "redaction"
FOUND: list[dict[str, str]] = yaml.safe_load((CAPTURES / "found.yaml").read_text(encoding="utf-8"))
KEPT: list[str] = yaml.safe_load((CAPTURES / "kept.yaml").read_text(encoding="utf-8"))

REDACTOR = Redactor(
    RedactionConfig(
        names=["Anna Schmidt", "Zoë", "王小明"], patterns=[Pattern(name="employee", pattern=r"\bE-\d{5}\b")]
    )
)

# Bits of what is looked for, so that random texts come near to it.
BITS = [
    "john@example.com", "4111 1111 1111 1111", "4111111111111111", "+49 30 1234567", "415-555-2671", "203.0.113.7",
    "2001:db8::1", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "password=", "hunter2", "Bearer ", "Anna Schmidt", "Zoë",
    "王小明", "E-12345", "[EMAIL]", "[CARD", "]", "\\", '"', "{", "}", ":", ",", "\n", "```", "@", ".", "-", "0", "1 ",
    "\u200b", "\uff14", "eyJhbGciOiJIUzI1NiJ9", "-----BEGIN PRIVATE KEY-----", "https://", "version ", "é", "%40",
    "\ud800",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(BITS), st.text(max_size=5)), max_size=12).map("".join)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**17), 10**17), st.floats(allow_nan=False, allow_infinity=False),
    TEXTS.map(lambda text: text.replace("\ud800", "")), st.just(4111111111111111), st.just(378282246310005),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(["password", "phone", "card", "version", "john@example.com", "a"]), st.text("abc", max_size=3)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


@pytest.mark.parametrize("case", FOUND, ids=lambda case: case["text"][:40])
def test_what_is_private_is_replaced_by_its_kind(case: dict[str, str]) -> None:
    redactor = Redactor(RedactionConfig(phone_region=case.get("region", "US")))
    assert redactor.text(case["text"]) == case["gives"]
    assert redactor.text(case["gives"]) == case["gives"]


@pytest.mark.parametrize("text", KEPT, ids=lambda text: text[:40])
def test_what_only_looks_alike_is_kept(text: str) -> None:
    redactor = Redactor(RedactionConfig())
    assert redactor.text(text) == text
    assert not any(redactor.counts.values())


@settings(max_examples=500)
@given(TEXTS)
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = REDACTOR.text(text)
    assert REDACTOR.text(once) == once


@settings(max_examples=300)
@given(VALUES, st.booleans())
def test_json_stays_json_with_the_same_structure(value: Any, spaced: bool) -> None:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if spaced else 0).decode()
    redacted = REDACTOR.text(text)
    after = orjson.loads(redacted)
    assert type(after) in (type(value), str)
    if isinstance(value, list):
        assert len(after) == len(value)
    assert REDACTOR.text(redacted) == redacted


@given(st.text())
def test_any_text_gives_text_that_can_be_written(text: str) -> None:
    REDACTOR.text(text).encode()


@given(
    st.sampled_from(["john@example.com", "4111111111111111", "+4930123456789", "203.0.113.7", "Zoë", "E-12345"]),
    st.sampled_from(["", " ", "(", '"', "\n", "\u3000", "\uff0c", "<"]),
)
def test_what_stands_between_blanks_and_punctuation_is_found(private: str, around: str) -> None:
    assert private not in REDACTOR.text(f"see {around}{private}{around} there")


def test_digits_of_other_scripts_and_invisible_characters_hide_nothing() -> None:
    spread = "\u200d".join("4111111111111111")
    assert REDACTOR.text(f"a {spread} b") == "a [CARD] b"
    assert REDACTOR.text("४१११११११११११११११") == "[CARD]"


def test_names_are_found_whole_and_in_any_case() -> None:
    assert (
        REDACTOR.text("ANNA  SCHMIDT's friend zoë, not Zoës; Zoë Zoë")
        == "[NAME]'s friend [NAME], not Zoës; [NAME] [NAME]"
    )
    assert REDACTOR.text("Zoe\u0308 and 昨天王小明说") == "[NAME] and 昨天[NAME]说"


def test_names_are_found_with_the_s_of_a_genitive_unless_they_are_so_short_that_it_makes_another_word() -> None:
    redactor = Redactor(RedactionConfig(names=["Anna Schmidt", "Anna", "Ha"]))
    assert redactor.text("Anna Schmidts Haus, ANNA SCHMIDT\u02bcS, Annas") == "[NAME]s Haus, [NAME]\u02bcS, [NAME]s"
    assert redactor.text("Anna Schmidt's, Anna Schmidt\u2019s, Ha's") == "[NAME]'s, [NAME]\u2019s, [NAME]'s"
    assert redactor.text("Ha has Anna Schmidtson") == "[NAME] has [NAME] Schmidtson"


def test_names_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("Jürgen Müller\n\nЁжик\n", encoding="utf-8")
    redactor = Redactor(RedactionConfig(names_file=path))
    assert redactor.text("JÜRGEN MÜLLER und ёжик") == "[NAME] und [NAME]"


def test_own_patterns_have_a_kind_of_their_own() -> None:
    redactor = Redactor(
        RedactionConfig(
            patterns=[Pattern(name="employee", pattern=r"(?i)\be-\d{5}\b"), Pattern(name="line", pattern="^x$")]
        )
    )
    assert redactor.text("ask e-12345\nx\ny") == "ask [EMPLOYEE]\n[LINE]\ny"
    assert (redactor.counts["employee"], redactor.counts["line"]) == (1, 1)


def test_each_kind_can_be_left_out() -> None:
    redactor = Redactor(RedactionConfig(emails=False, phones=False, cards=False, secrets=False, ips=False))
    text = '{"password": "hunter2", "to": "john@example.com 4111111111111111 203.0.113.7 +49 30 1234567"}'
    assert redactor.text(text) == text
    assert redactor.counts == {}


def test_places_are_counted_by_kind() -> None:
    redactor = Redactor(RedactionConfig())
    redactor.text("a@example.com b@example.com 203.0.113.7")
    assert redactor.counts == {"email": 2, "ip": 1, "card": 0, "phone": 0, "secret": 0}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (RedactionConfig(patterns=[Pattern(name="own", pattern="a(")]), "redaction.patterns[0] (own): missing )"),
        (
            RedactionConfig(patterns=[Pattern(name="own", pattern=r"(?=a)b")]),
            "redaction.patterns[0] (own): invalid perl",
        ),
        (RedactionConfig(patterns=[Pattern(name="own", pattern="a*")]), "matches the empty text"),
        (RedactionConfig(patterns=[Pattern(name="own", pattern=r"\Aa")]), r"\A is not supported"),
        (RedactionConfig(phone_region="XX"), "redaction.phone_region: got 'XX'"),
        (
            RedactionConfig(names_file=Path("missing.txt")),
            "redaction.names_file: missing.txt cannot be read: No such file",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_in_one_line(config: RedactionConfig, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Redactor(config)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_of_names_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not text; allowed: UTF-8"):
        Redactor(RedactionConfig(names_file=path))


@pytest.mark.parametrize(
    "unit",
    ["1.", "4 ", "a@", "a@b.co ", "::", "api_key=", '{"', "[EMAIL]", "```", "\\u", "\uff14", "41\n", "curl -u a:"],
)
def test_long_hostile_texts_are_redacted_like_short_ones(unit: str) -> None:
    long = REDACTOR.text(unit * 20_000)
    assert REDACTOR.text(long) == long
