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
from pathlib import Path
from typing import Any

import yaml

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


def run(promtool: Path, rules: Path, tests: list[dict[str, Any]], folder: Path) -> str:
    """What promtool has to say of the tests; nothing if all pass."""
    # Left to itself promtool takes groups in another order each time, so that values are up to six evaluations old.
    order = [group["name"] for group in yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]]
    files = []
    for every in sorted({test["interval"] for test in tests}):
        some = {"tests": [test for test in tests if test["interval"] == every], "evaluation_interval": every}
        files.append(folder / f"tests-{every}.yaml")
        files[-1].write_text(yaml.safe_dump({"rule_files": [str(rules)], "group_eval_order": order} | some))
    done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
