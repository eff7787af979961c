"""Recording rules in Prometheus's own engine: `promtool test rules` on series that a test makes."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from palegreen.runtime.exposition import Readings
from support.tools import program

Result = dict[tuple[tuple[str, str], ...], float]


class Recording:
    """Series as Prometheus would have them after scrapes at a fixed interval."""

    def __init__(self) -> None:
        self._scrapes = 0
        self._series: dict[str, dict[int, str]] = defaultdict(dict)

    def scrape(self, pages: Sequence[Readings]) -> None:
        """What all targets show now; a target that is down shows nothing."""
        for page in pages:
            for lines in page.lines.values():
                for line in lines.splitlines():
                    series, _, value = line.rpartition(" ")
                    self._series[series][self._scrapes] = value
        self._scrapes += 1

    def series(self, name: str, values: Sequence[float]) -> None:
        """One series by hand."""
        self._series[name] = {at: repr(float(value)) for at, value in enumerate(values)}
        self._scrapes = max(self._scrapes, len(values))

    def input_series(self) -> list[dict[str, str]]:
        return [
            {"series": series, "values": " ".join(values.get(at, "_") for at in range(self._scrapes))}
            for series, values in self._series.items()
        ]


def evaluate(
    folder: Path, rules: str, recording: Recording, scraped: str, interval: str, asked: Sequence[tuple[str, str]]
) -> list[Result]:
    """Results of `asked`, each an expression and a time since the first scrape, with the rules evaluated all along."""
    (folder / "rules.yaml").write_text(rules, encoding="utf-8")
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": interval,
        "tests": [
            {
                "interval": scraped,
                "input_series": recording.input_series(),
                # asked one too many, as promtool says what it got only where that is not what is expected
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": time,
                        "exp_samples": [{"labels": 'not{that="one"}', "value": 1}],
                    }
                    for expression, time in asked
                ],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.dump(test, Dumper=yaml.CSafeDumper, width=1 << 30), encoding="utf-8")
    done = subprocess.run(
        [program("promtool"), "test", "rules", "test.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    got = re.findall(r"^\s+got: ?(.*)$", done.stdout + done.stderr, re.MULTILINE)
    assert len(got) == len(asked), done.stdout + done.stderr
    return [_result(line) for line in got]


def _result(line: str) -> Result:
    found = re.findall(r"\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\} (\S+?)(?:,|$)", line)
    return {
        tuple(sorted((k, v) for k, v in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels) if k != "__name__")): float(
            value
        )
        for labels, value in found
    }


def by(result: Result, *labels: str) -> Mapping[tuple[str, ...] | str, float]:
    """A result by the values of some labels; by the value alone where it is one label."""
    pairs = {tuple(dict(key).get(label, "") for label in labels): value for key, value in result.items()}
    assert len(pairs) == len(result)
    return {key[0]: value for key, value in pairs.items()} if len(labels) == 1 else pairs  # type: ignore[return-value]
