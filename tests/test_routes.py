"""Routes: who is told what, by real amtool; and which alerts silence which, over the whole table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.alertmanager import amtool
from support.routing import CAUSES, Known, model, node, replica

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.routes import render_alertmanager, template
from palegreen.alerts.routes.inhibition import Inhibition, inhibitions
from palegreen.alerts.routes.tree import Matcher
from palegreen.catalogue.causes import causes
from palegreen.runtime.yamlfile import ConfigError, load

_CHANNEL = [{"webhook": {"url": "http://127.0.0.1:9/"}}]
_BOTH = {"critical": _CHANNEL, "warning": _CHANNEL}
TEAMS = {"platform": _BOTH, "model": _BOTH, "search": _BOTH, "ads": {"critical": _CHANNEL, "info": _CHANNEL}}


def _written(folder: Path, **settings: Any) -> Path:
    file = folder / "alertmanager.yaml"
    file.write_text(render_alertmanager(AlertsConfig(**settings), CAUSES), encoding="utf-8")
    (folder / "palegreen.tmpl").write_text(template(), encoding="utf-8")
    return file


def _goes(file: Path, receiver: str, **of: str) -> None:
    pairs = [f"{name}={value}" for name, value in of.items() if value]
    done = amtool("config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receiver}", *pairs)
    assert done.returncode == 0, f"{of}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("settings", [{}, {"receivers": TEAMS, "watchdog": {}}, {"time_scale": 1000}])
def test_amtool_accepts_what_is_generated(tmp_path: Path, settings: dict[str, Any]) -> None:
    done = amtool("check-config", _written(tmp_path, **settings))
    assert done.returncode == 0, done.stdout + done.stderr


def test_amtool_accepts_what_is_committed() -> None:
    done = amtool("check-config", Path(__file__).parent.parent / "alerts" / "generated" / "alertmanager.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_channel_is_accepted_by_amtool(tmp_path: Path) -> None:
    channels = [
        {"pagerduty": {"routing_key_file": "secrets/key"}},
        {"slack": {"api_url_file": "secrets/url"}},
        {"email": {"to": "a@b.example", "from": "c@d.example", "smarthost": "mail.example:587"}},
        {"email": {"to": "a@b.example", "from": "c@d.example", "smarthost": "mail.example:587", "auth_username": "u",
                   "auth_password_file": "secrets/password"}},
        {"webhook": {"url_file": "secrets/hook", "bearer_token_file": "secrets/token"}},
        {"webhook": {"url": "https://hook.example/x"}},
    ]  # fmt: skip
    file = _written(tmp_path, receivers={"platform": {"critical": channels, "warning": channels, "info": channels}})
    done = amtool("check-config", file)
    assert done.returncode == 0, done.stdout + done.stderr
    receivers = yaml.safe_load(file.read_text(encoding="utf-8"))["receivers"]
    told = next(receiver for receiver in receivers if receiver["name"] == "platform-info")
    assert {kind: len(value) for kind, value in told.items() if kind != "name"} == {
        "pagerduty_configs": 1, "slack_configs": 1, "email_configs": 2, "webhook_configs": 2,
    }  # fmt: skip


def test_each_owner_gets_what_is_his_and_the_platform_what_is_nobodys(tmp_path: Path) -> None:
    file = _written(tmp_path)
    for severity in ("critical", "warning"):
        _goes(file, f"platform-{severity}", owner="platform", severity=severity)
        _goes(file, f"model-{severity}", owner="model", severity=severity)
        _goes(file, f"platform-{severity}", owner="whoever", severity=severity)
        _goes(file, f"platform-{severity}", severity=severity)
        _goes(file, f"platform-{severity}", owner="platform", severity=severity, scope="node", node="gpu-7")
        _goes(file, f"model-{severity}", owner="model", severity=severity, team="unknown")
    for owner in ("platform", "model", "whoever"):
        _goes(file, "nobody", owner=owner, severity="info")


def test_a_team_gets_its_models_alerts_and_what_it_has_no_channel_for_goes_to_its_owner(tmp_path: Path) -> None:
    file = _written(tmp_path, receivers=TEAMS)
    _goes(file, "search-critical", owner="model", team="search", severity="critical")
    _goes(file, "search-warning", owner="model", team="search", severity="warning", scope="node")
    _goes(file, "nobody", owner="model", team="search", severity="info")
    _goes(file, "ads-critical", owner="model", team="ads", severity="critical")
    _goes(file, "model-warning", owner="model", team="ads", severity="warning")
    _goes(file, "ads-info", owner="model", team="ads", severity="info")
    _goes(file, "model-critical", owner="model", team="unknown", severity="critical")
    _goes(file, "platform-critical", owner="platform", team="search", severity="critical")


def test_without_a_receiver_for_models_their_alerts_go_to_the_platform(tmp_path: Path) -> None:
    file = _written(tmp_path, receivers={"platform": _BOTH})
    _goes(file, "platform-critical", owner="model", severity="critical")
    _goes(file, "platform-warning", owner="model", severity="warning")


def test_a_platform_that_owns_a_model_is_told_as_a_team(tmp_path: Path) -> None:
    file = _written(tmp_path, models=[{"model": "llama-3", "team": "platform"}])
    _goes(file, "platform-critical", owner="model", team="platform", severity="critical")
    _goes(file, "model-critical", owner="model", severity="critical")


def test_an_empty_list_tells_nobody(tmp_path: Path) -> None:
    file = _written(tmp_path, receivers={"platform": {"critical": _CHANNEL, "warning": []}, "model": _BOTH})
    _goes(file, "nobody", owner="platform", severity="warning")
    _goes(file, "model-warning", owner="model", severity="warning")


def test_the_watchdog_goes_to_the_dead_mans_switch_and_to_nobody_else(tmp_path: Path) -> None:
    watchdog = {"alertname": "PalegreenWatchdog", "severity": "none", "owner": "platform", "cause": "watchdog"}
    _goes(_written(tmp_path), "watchdog", **watchdog)
    _goes(_written(tmp_path, watchdog={}), "nobody", **watchdog)


def test_an_alert_of_somebody_else_is_not_lost(tmp_path: Path) -> None:
    file = _written(tmp_path)
    _goes(file, "platform-critical", alertname="HostDown", severity="critical")
    _goes(file, "platform-warning", alertname="HostOdd", severity="page")
    _goes(file, "nobody", alertname="Watchdog", severity="none")


def test_time_scale_divides_every_wait_down_to_a_second() -> None:
    waits = re.compile(r"(group_wait|group_interval|repeat_interval): (\w+)")
    assert waits.findall(render_alertmanager(AlertsConfig(watchdog={}), ()))[:3] == [
        ("group_wait", "30s"), ("group_interval", "5m"), ("repeat_interval", "12h"),
    ]  # fmt: skip
    assert waits.findall(render_alertmanager(AlertsConfig(time_scale=60), ()))[:3] == [
        ("group_wait", "1s"), ("group_interval", "5s"), ("repeat_interval", "12m"),
    ]  # fmt: skip


def _matches(matchers: Sequence[Matcher], of: dict[str, str]) -> bool:
    tests = {
        "=": lambda value, wanted: value == wanted,
        "!=": lambda value, wanted: value != wanted,
        "=~": lambda value, wanted: re.fullmatch(wanted, value) is not None,
    }
    return all(tests[matcher.operator](of.get(matcher.name, ""), matcher.value) for matcher in matchers)


def _silenced(rules: Sequence[Inhibition], alerts: Sequence[dict[str, str]]) -> list[tuple[dict[str, str], ...]]:
    """Pairs of an alert and one that it silences; as Alertmanager has it, not where both match both sides."""
    pairs = []
    for rule in rules:
        sources = [of for of in alerts if _matches(rule.source, of)]
        targets = [of for of in alerts if _matches(rule.target, of)]
        both = [of for of in sources if of in targets]
        pairs += [
            (one, other)
            for one, other in product(sources, targets)
            if all(one.get(name, "") == other.get(name, "") for name in rule.equal)
            and not (one in both and other in both)
        ]
    return pairs


_EMPTY = {"instance_id": "", "pod": "", "model": "", "endpoint": "", "node": "", "namespace": ""}
_PLACES = [
    *(
        where(**extra)
        for where in (replica, model, node)
        for extra in (
            {}, _EMPTY, {"model": "other"}, {"node": "gpu-7"}, {"node": "gpu-8"}, {"uuid": "GPU-a"}, {"uuid": "GPU-b"},
        )
    ),
    replica(1), replica(instance_id=""), replica(instance_id="", model="other"), node(""), model(model=""),
]  # fmt: skip
_NAMES = ("one", "two", "three", "four")
_table = st.tuples(
    *(
        st.builds(
            Known,
            name=st.just(name),
            owner=st.sampled_from(["platform", "model"]),
            severity=st.sampled_from(["critical", "warning", "info"]),
            scope=st.sampled_from(["replica", "container", "model", "gpu", "node"]),
            explains=st.lists(st.sampled_from([*_NAMES[at + 1 :], "latency_objective"]), unique=True).map(tuple),
        )
        for at, name in enumerate(_NAMES)
    )
)


def _check(pairs: Sequence[tuple[dict[str, str], ...]]) -> None:
    weight = {"critical": 2, "warning": 1, "info": 0}
    for one, other in pairs:
        said = f"{one} silences {other}"
        assert weight[one["severity"]] >= weight[other["severity"]], said
        same = any(one.get(name, "") == other.get(name) != "" for name in ("instance_id", "model", "uuid", "node"))
        where = {*one, *other} - {"severity", "owner", "scope"}
        assert same or all(one.get(name, "") == other.get(name, "") for name in where), said


def test_over_the_table_a_warning_never_silences_a_critical_and_different_things_do_not_silence_each_other() -> None:
    found = causes()
    alerts = [
        {"alertname": cause.alert, "cause": cause.name, "verdict": cause.verdict, "owner": owner, **where}
        | {"severity": severity}
        for cause, where in product(found.values(), _PLACES)
        for owner, severity in (
            product(("platform", "model"), ("critical", "warning"))
            if cause.severity == "objective"
            else [(cause.owner, cause.severity)]
        )
    ]
    pairs = _silenced(inhibitions(found.values()), alerts)
    _check(pairs)
    said = {(one["cause"], other["cause"]) for one, other in pairs}
    assert ("queue_backlog", "tail_latency") in said
    assert ("gpu_lost", "wedged_engine") in said
    assert ("kv_thrash", "response_drift") in said
    assert ("response_drift", "kv_thrash") not in said
    assert ("queue_backlog", "kv_thrash") not in said


@given(_table)
def test_whatever_the_table_says_somebody_is_told_and_a_warning_never_silences_a_critical(
    table: tuple[Known, ...],
) -> None:
    try:
        rules = inhibitions([*table, Known("latency_objective", scope="model")])
    except ValueError as refused:
        assert "circle" in str(refused)
        return
    alerts = [
        {"alertname": known.name, "cause": known.name, "owner": known.owner, "severity": known.severity, **where}
        for known in table
        for where in (replica(), model(), node(), replica(instance_id="", pod="", model=""), replica(node="gpu-7"))
    ]
    pairs = _silenced(rules, alerts)
    _check(pairs)
    silenced = [other for _, other in pairs]
    told = [of["severity"] for of in alerts if of not in silenced]
    assert told
    assert "critical" in told or all(of["severity"] != "critical" for of in alerts)


def test_causes_that_would_silence_each_other_are_refused() -> None:
    circle = (Known("one", explains=("two",)), Known("two", explains=("three",)), Known("three", explains=("one",)))
    with pytest.raises(ValueError, match=r"causes silence each other in a circle: .*one"):
        inhibitions(circle)
    # what the platform must mend silences the model's owner, who may then not explain it
    with pytest.raises(ValueError, match="circle"):
        inhibitions((Known("weights", owner="model", explains=("wedged",)), Known("wedged")))


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (Known("one", explains=("none",)), "cause one: explains none, which is no cause"),
        (Known("one", scope="rack"), "cause one: scope is 'rack'; allowed: gpu, replica, container"),
    ],
)
def test_a_table_that_cannot_be_is_refused(cause: Known, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        inhibitions((cause,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_scale: 0.5\n", "1: time_scale: got 0.5; allowed: greater than or equal to 1"),
        ("thresholds:\n  kv_usage: many\n", "2: thresholds.kv_usage: got 'many'"),
        ("disabled: [KvThrash]\n", "1: disabled[0]: got 'KvThrash'"),
        ("runbook_url: https://wiki.example/\n", "1: runbook_url: got 'https://wiki.example/'; allowed: a URL with"),
        ("runbook_url: https://wiki.example/{alert}/{team}\n", "1: runbook_url: got 'https://wiki.example/{alert}/{te"),
        ("thresholds: {kv_usage: true}\n", "1: thresholds.kv_usage: got True"),
        ("thresholds: {kv_usage: -1}\n", "1: thresholds.kv_usage: got -1"),
        ("disabled: PalegreenIdleGpu\n", "1: disabled: got 'PalegreenIdleGpu'; allowed: a list"),
        ("dashboard_url: 'https://g/{{x}}'\n", "1: dashboard_url: got 'https://g/{{x}}'"),
        ("dashboard_url: grafana\n", "1: dashboard_url: got 'grafana'"),
        ("models:\n- model: m\n  objectives: {latency: {}}\n", "3: models[0].objectives.latency: no time is given"),
        ("models:\n- model: m\n- model: m\n", "models[1]: m is declared twice; allowed: once"),
        ("models:\n- {model: m, tema: x}\n", "2: models[0].tema: unknown key, did you mean team?"),
        ("receivers: {model: {}}\n", "platform, who is told what nobody else is, lacks a channel for critical"),
        (
            "receivers:\n  platform:\n    critical: [{slack: {api_url_file: a/b}, webhook: {url: 'http://a'}}]\n",
            "3: receivers.platform.critical[0]: a channel is of one kind; allowed: one of pagerduty, slack,",
        ),
        (
            "receivers:\n  platform:\n    critical: [{webhook: {}}]\n",
            "3: receivers.platform.critical[0].webhook: a webhook needs one place to post to; allowed: either",
        ),
        ("watchdog: {webhook: {url: ftp://x}}\n", "1: watchdog.webhook.url: got 'ftp://x'"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(file, AlertsConfig)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_file_is_the_default_and_durations_are_scaled(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text("", encoding="utf-8")
    assert load(file, AlertsConfig) == AlertsConfig()
    file.write_text("time_scale: 7\nreceivers:\nwatchdog: {}\n", encoding="utf-8")
    config = load(file, AlertsConfig)
    assert (config.duration(300), config.duration(1)) == ("43s", "1s")
    assert config.watchdog.webhook is None
    assert config.receivers == AlertsConfig().receivers
    assert config.runbook("PalegreenKvThrash").endswith("/docs/runbooks/PalegreenKvThrash.md")


def test_the_example_of_the_page_is_accepted(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "routing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(dashboard_url.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "alerts.yaml"
    file.write_text(example, encoding="utf-8")
    config = load(file, AlertsConfig)
    written = _written(tmp_path, **config.model_dump(by_alias=True))
    assert amtool("check-config", written).returncode == 0
    _goes(written, "search-critical", owner="model", team="search", severity="critical")
    _goes(written, "model-warning", owner="model", team="search", severity="warning")
