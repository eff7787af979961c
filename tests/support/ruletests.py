"""Cases of rule tests, written short, as files of `promtool test rules`.

A case is `why`, `series` (name without the prefix `palegreen_`, values as promtool writes them, one a minute) and

- `fires: 10m` with `who` (labels that the alert has), and `resolved: 40m`: the alert fires then, and no more then; or
- `silent: [10m, 40m]`: it does not fire then.

`$A`, `$B`, `$C` are three replicas of one model as the node daemon on n1 shows them, `$QA` and so on the same as their
evaluators do; `$G` and `$H` are two GPUs of n1, `$N` is its daemon. A name with a colon or `up` is taken as it is.
`every: 5m` has values and evaluations five minutes apart, for cases over days.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.tools import program

RULES = Path(__file__).parent.parent.parent / "alerts" / "generated" / "rules.yaml"
REPLICAS = {"A": "a", "B": "b", "C": "c"}
_OF = 'model="llama",endpoint="chat",instance_id="prod/{0}",namespace="prod",pod="{0}"'
LABELS = {
    **{key: _OF.format(pod) + ',engine="vllm",node="n1",instance="n1:9450"' for key, pod in REPLICAS.items()},
    **{f"Q{key}": _OF.format(pod) + f',node="n1",instance="{pod}:9451"' for key, pod in REPLICAS.items()},
    "G": 'uuid="GPU-1",gpu="0",mig="",node="n1",instance="n1:9450"',
    "H": 'uuid="GPU-2",gpu="1",mig="",node="n1",instance="n1:9450"',
    "N": 'node="n1",instance="n1:9450",job="palegreen-node"',
}


def expanded(name: str) -> str:
    """The selector of a series as promtool takes it."""
    text = re.sub(r"\$(\w+)", lambda found: LABELS[found[1]], name)
    return text if re.match(r"up\b|ALERTS|[a-z_]+:", text) else f"palegreen_{text}"


def entry(case: Mapping[str, Any], alert: str) -> dict[str, Any]:
    """One entry of `tests`."""
    checks: list[dict[str, Any]] = []
    if "fires" in case:
        who = case["who"]
        checks.append(
            {
                "expr": f'count by ({", ".join(who)}) (ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": case["fires"],
                "exp_samples": [
                    {"labels": "{" + ",".join(f'{name}="{value}"' for name, value in who.items()) + "}", "value": 1}
                ],
            }
        )
    quiet = [case["resolved"]] if "resolved" in case else case.get("silent", [])
    firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    checks += [{"expr": firing, "eval_time": moment, "exp_samples": []} for moment in quiet]
    return {
        "name": f"{alert}: {case['why']}",
        "interval": case.get("every", "1m"),
        "input_series": [{"series": expanded(name), "values": values} for name, values in case["series"].items()],
        "promql_expr_test": checks,
    }


def read_by(*of: str) -> dict[str, Any]:
    """The alerts of these causes and the rules that they read, as a rule file: a small part of the whole."""
    groups = _groups()
    rules = [rule for group in groups for rule in group["rules"]]
    causes = {rule["labels"]["cause"] for rule in rules if "cause" in rule.get("labels", {})}
    wanted, names, before = set(of), {"palegreen:cause_active", "palegreen:threshold"}, 0

    def kept(rule: Mapping[str, Any]) -> bool:
        known = rule.get("labels", {}).get("cause")
        return known in wanted if known else rule.get("record") in names

    while before != len(wanted) + len(names):
        before = len(wanted) + len(names)
        for expr in (rule["expr"] for rule in rules if kept(rule)):
            names |= set(re.findall(r"palegreen:[\w:]+", expr))
            for selector in re.findall(r'cause=~?"([^"]+)"', expr):
                wanted |= causes & set(selector.split("|"))
    return {"groups": [group | {"rules": some} for group in groups if (some := [*filter(kept, group["rules"])])]}


@cache
def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.load(RULES.read_text(encoding="utf-8"), yaml.CSafeLoader)["groups"]
    return groups


def run(tests: list[dict[str, Any]], folder: Path, rules: Mapping[str, Any] | None = None) -> str:
    """What promtool has to say of the tests with these rules, or all that are shipped; nothing if all pass."""
    groups = _groups() if rules is None else rules["groups"]
    written = RULES if rules is None else folder / "rules.yaml"
    if rules is not None:
        written.write_text(_text(rules), encoding="utf-8")
    # Left to itself promtool takes groups in another order each time, so that values are up to six evaluations old.
    order = {"rule_files": [str(written)], "group_eval_order": [group["name"] for group in groups]}
    files = []
    for every in sorted({test["interval"] for test in tests}):
        some = {"tests": [test for test in tests if test["interval"] == every], "evaluation_interval": every}
        files.append(folder / f"tests-{every}.yaml")
        files[-1].write_text(_text(order | some), encoding="utf-8")
    done = subprocess.run([program("promtool"), "test", "rules", *files], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _text(data: Mapping[str, Any]) -> str:
    text: str = yaml.dump(data, Dumper=yaml.CSafeDumper, width=1 << 30)
    return text
