"""Which checks run: their configuration, one's own by entry point, and what happens when one of them breaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from palegreen.evaluators.checks import suite
from palegreen.evaluators.checks.registry import BUILT_IN, Checks, build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.sample import Sample
from palegreen.runtime.yamlfile import ConfigError

DOCS = Path(__file__).parent.parent / "docs" / "checks.md"
ANSWER = View(Sample(response="The secret word is zyzzyva."))

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a module with entry points, as pip leaves it in site-packages."""

    def write(module: str, source: str, **entries: str) -> None:
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {target}" for name, target in entries.items())
        (info / "entry_points.txt").write_text(f"[palegreen.checks]\n{lines}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return write


def _refused(settings: dict[str, dict[str, object]]) -> str:
    with pytest.raises(ConfigError) as refused:
        build(settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_configuration_every_built_in_check_runs() -> None:
    assert build({}).names == BUILT_IN
    assert build({}).run(ANSWER).keys() == set(BUILT_IN)


def test_a_check_that_is_switched_off_does_not_run() -> None:
    assert "refusal" not in build({"refusal": {"enabled": False}}).run(ANSWER)


def test_an_unknown_check_is_refused_with_the_names_that_are_allowed() -> None:
    assert _refused({"refusals": {}}).startswith("checks.refusals: unknown check; allowed: content_filter, context_")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"length": {"max_word": 5}},
            "checks.length.max_word: unknown key, did you mean max_words?; allowed: max_words",
        ),
        ({"length": {"max_words": "many"}}, "checks.length.max_words: got 'many'; allowed: a valid integer"),
        ({"script": {"expected": ["Chinese"]}}, "checks.script.expected: got 'Chinese'; allowed: Arabic, Armenian"),
        ({"empty": {"minimum": 1}}, "checks.empty.minimum: unknown key; allowed: enabled"),
        ({"empty": {"enabled": "no"}}, "checks.empty.enabled: got 'no'; allowed: true, false"),
    ],
)
def test_a_bad_setting_is_refused_with_its_key_and_what_is_allowed(settings: dict, line: str) -> None:
    assert _refused(settings).startswith(line)


def test_the_check_in_the_documentation_runs_as_it_stands_there(install: Install, tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    source, case = (re.search(rf"```{kind}\n# acme.*?\n(.*?)```", text, re.DOTALL)[1] for kind in ("python", "yaml"))
    entry = re.search(r'^(\w+) = "(\w+)"$', text, re.MULTILINE)
    assert len(source.strip().splitlines()) <= 10
    install("acme_checks", source, **{entry[1]: entry[2]})
    (tmp_path / "cases.yaml").write_text(case, encoding="utf-8")
    cases = list(suite.read(tmp_path / "cases.yaml"))
    for case in cases:
        suite.prove(entry[1], case)
    assert {case.expect for case in cases} == {"fail", "pass", "skipped"}


def test_the_documentation_names_every_check_and_every_setting() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == set(BUILT_IN)
    for name in BUILT_IN:
        module = __import__(f"palegreen.evaluators.checks.{name}", fromlist=["check"])
        for key in getattr(getattr(module, "Settings", None), "model_fields", ()):
            assert f"`{key}`" in rows[name], f"{name} does not name its setting {key}"


def test_an_own_check_may_be_a_plain_function(install: Install) -> None:
    install(
        "own_shouting",
        "from palegreen.evaluators.checks.outcome import Outcome\n"
        "def shouts(view): return Outcome(not view.text.isupper(), None, 'shouts')\n",
        shouting="own_shouting:shouts",
    )
    assert build({}).run(View(Sample(response="NO!")))["shouting"].passed is False


BROKEN = """
from palegreen.evaluators.checks.outcome import Outcome
def raises(view): raise ValueError(view.text)
def recurses(view): return recurses(view)
def lies(view): return True
def exceeds(view): return Outcome(None, 1.5)
def changes(view): view.sample.response += "!"; return Outcome(True)
asked = []
def forgets(view): asked.append(1); return Outcome(len(asked) % 2 == 0, None, "every other time")
"""


@pytest.mark.parametrize("function", ["raises", "recurses", "lies", "exceeds"])
def test_a_check_that_breaks_is_skipped_and_counted_and_the_others_still_run(install: Install, function: str) -> None:
    install(f"own_{function}", BROKEN, **{function: f"own_{function}:{function}"})
    checks = build({})
    with capture_logs() as logs:
        outcomes = checks.run(ANSWER)
    assert outcomes[function] is None
    assert outcomes["prompt_overlap"] is None
    assert outcomes["empty"].passed
    assert checks.errors == {function: 1}
    assert "zyzzyva" not in str(logs), "the log quotes the text"
    assert logs[0]["check"] == function


def test_a_check_that_breaks_again_and_again_is_logged_once_a_minute_with_the_number_of_times() -> None:
    now = 0.0

    def breaks(view: View) -> None:
        raise RuntimeError

    checks = Checks({"own": breaks}, clock=lambda: now)
    with capture_logs() as logs:
        for now in (0.0, 1.0, 59.0, 61.0, 62.0):  # noqa: B007  # the clock reads it
            checks.run(ANSWER)
    assert [line["times"] for line in logs] == [1, 3]
    assert checks.errors["own"] == 5


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("raises", "raised, or returned what is no Outcome"),
        ("exceeds", "raised, or returned what is no Outcome"),
        ("changes", "changed the sample"),
        ("forgets", "then"),
    ],
)
def test_the_suite_refuses_a_check_that_breaks_a_rule(install: Install, function: str, complaint: str) -> None:
    install(f"law_{function}", BROKEN, **{function: f"law_{function}:{function}"})
    with pytest.raises(AssertionError, match=complaint):
        suite.lawful(function, View(Sample(response="Four.")))


def test_the_suite_says_what_it_expected_of_a_check_and_why() -> None:
    case = suite.Case(why="Two letters are an answer.", expect="fail", sample={"response": "No"})
    with pytest.raises(AssertionError, match=r"empty says pass .*, expected fail: Two letters are an answer\."):
        suite.prove("empty", case)


@pytest.mark.parametrize(
    ("name", "target", "problem"),
    [
        ("refusal", "own_bad:check", "cannot have this name; allowed: a new one"),
        ("Brand-Voice", "own_bad:check", "cannot have this name; allowed: a new one"),
        ("brand_voice", "own_bad:missing", "cannot be loaded: AttributeError; allowed: enabled: false"),
        ("brand_voice", "own_bad:NUMBER", "is no check; allowed: a callable, or a module or object with `check`"),
    ],
)
def test_an_own_check_that_cannot_be_used_is_refused_by_name(
    install: Install, name: str, target: str, problem: str
) -> None:
    install("own_bad", "NUMBER = 7\ndef check(view): return None\n", **{name: target})
    line = _refused({})
    assert line.startswith(f"checks.{name}: ")
    assert problem in line


def test_an_own_check_that_is_switched_off_is_not_even_loaded(install: Install) -> None:
    install("own_missing", "", brand_voice="own_missing:nothing")
    assert "brand_voice" not in build({"brand_voice": {"enabled": False}}).names
