"""A day on which nothing is wrong: nobody is told anything but what informs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.quietday import day
from support.ruletests import run


@pytest.mark.parametrize("seed", [11])
def test_a_healthy_day_with_a_rolling_deployment_fires_nothing_and_the_fault_after_it_does(
    seed: int, tmp_path: Path
) -> None:
    series = day(seed)
    told = 'count by (alertname) (count_over_time(ALERTS{alertstate="firing",severity=~"critical|warning"}[1d]))'
    test = {
        "name": "a quiet day",
        "interval": "1m",
        "input_series": [
            {"series": name, "values": " ".join("_" if value is None else repr(value) for value in values)}
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {"expr": told, "eval_time": "1440m", "exp_samples": []},
            {
                "expr": 'count(ALERTS{alertname="PalegreenGpuLost",alertstate="firing",node="n0"})',
                "eval_time": "1465m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            },
        ],
    }
    assert run([test], tmp_path) == ""
