"""A day on which nothing is wrong: three replicas, day and night, bursts, a rolling deployment at noon, two restarts.

`day()` gives every series by minute, None where it is not there. In the half hour after the day a GPU is lost, so that
rules that never fire are not taken for quiet ones.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

DAY = 24 * 60
MINUTES = DAY + 30
_ROLL = 12 * 60  # the rolling deployment begins
_STEP = 8  # minutes between two replicas
_NODE_RESTART, _EVALUATOR_RESTART = 3 * 60, 18 * 60
_CHECKS = {"truncated": 0.03, "refusal": 0.02, "json_schema": 0.01, "repetition": 0.004, "empty_context": 0.03}
_LE = {"0.25": 0.55, "1.0": 0.9, "2.5": 0.97, "10.0": 0.997, "40.0": 1.0, "+Inf": 1.0}

Series = dict[str, list[float | None]]


def day(seed: int = 11) -> Series:
    """All series, by their selectors."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(MINUTES)
    load = 0.55 - 0.45 * np.cos(2 * math.pi * (minutes - 180) / DAY)  # 0.1 at three in the night, 1 at three after noon
    bursts = np.zeros(MINUTES)
    for start in rng.integers(0, MINUTES, 20):
        bursts[start : start + 3] = 1
    found: Series = {}
    for number in range(6):
        begin, end = _life(number)
        node = f"n{number % 3}"
        found |= _engine(rng, "abcdef"[number], node, load, bursts, begin, end)
        found |= _evaluator(rng, "abcdef"[number], node, load, begin, end)
    for number in range(3):
        found |= _gpu(rng, number, load, bursts)
    return found


def _life(number: int) -> tuple[int, int]:
    """From when to when a replica is there: d, e, f replace a, b, c one after the other."""
    turn = _ROLL + (number % 3) * _STEP
    return (0, turn + 6) if number < 3 else (turn, MINUTES)


def _engine(
    rng: np.random.Generator,
    pod: str,
    node: str,
    load: NDArray[np.float64],
    bursts: NDArray[np.float64],
    begin: int,
    end: int,
) -> Series:
    labels = (
        f'model="llama",endpoint="chat",engine="vllm",instance_id="prod/{pod}",namespace="prod",pod="{pod}",'
        f'node="{node}",instance="{node}:9450"'
    )
    new, old = begin > 0, end < MINUTES
    ready = begin + 5 if new else 0
    leaves = end - 2 if old else MINUTES
    there = np.arange(MINUTES)
    serving = (there >= ready) & (there < leaves)
    requests = rng.poisson(load * 40 * (1 + 2 * bursts)) * serving
    finished = np.cumsum(requests)
    running = np.minimum(32, rng.poisson(load * 12 * (1 + 2 * bursts))) * serving
    waiting = np.where(bursts > 0, rng.poisson(8 * load), rng.poisson(0.3 * load)) * serving
    supported = f"palegreen_engine_metric_supported{{{labels}"
    series = {
        f"palegreen_engine_requests_running{{{labels}}}": running,
        f'palegreen_engine_requests_waiting{{{labels},reason="capacity"}}': waiting,
        f"palegreen_engine_kv_cache_usage_ratio{{{labels}}}": np.clip(0.15 + 0.6 * load + 0.2 * bursts, 0, 0.96)
        * serving,
        f'palegreen_engine_preemptions_total{{{labels},kind="recompute"}}': np.cumsum(rng.poisson(0.4 * bursts * load)),
        f"palegreen_engine_generation_tokens_total{{{labels}}}": np.cumsum(requests * 180),
        f'palegreen_engine_prompt_tokens_total{{{labels},source="all"}}': np.cumsum(requests * 600),
        f'palegreen_engine_requests_finished_total{{{labels},finish_reason="stop"}}': finished - finished // 60,
        f'palegreen_engine_requests_finished_total{{{labels},finish_reason="abort"}}': finished // 100,
        f'palegreen_engine_requests_finished_total{{{labels},finish_reason="error"}}': finished // 2000,
        f"palegreen_engine_time_to_first_token_seconds_count{{{labels}}}": finished,
        f'palegreen_engine_state{{{labels},state="starting"}}': (there < ready).astype(float),
        f'palegreen_engine_state{{{labels},state="ready"}}': serving.astype(float),
        f'palegreen_engine_state{{{labels},state="draining"}}': (there >= leaves).astype(float),
        f'{supported},metric="palegreen_engine_kv_cache_usage_ratio",quality="native"}}': 1.0 * serving,
        f'{supported},metric="palegreen_engine_lora_slots",quality="absent"}}': 0.0 * serving,
        f'palegreen_engine_gpu_info{{{labels},uuid="GPU-{node}",mig=""}}': np.ones(MINUTES),
    }
    for bound, share in _LE.items():
        series[f'palegreen_engine_time_to_first_token_seconds_bucket{{{labels},le="{bound}"}}'] = np.floor(
            finished * share
        )
    return {name: _between(values, begin, end) for name, values in series.items()}


def _evaluator(
    rng: np.random.Generator, pod: str, node: str, load: NDArray[np.float64], begin: int, end: int
) -> Series:
    place = f'endpoint="chat",instance_id="prod/{pod}",namespace="prod",pod="{pod}",node="{node}",instance="{pod}:9451"'
    labels = f'model="llama",{place}'
    there = np.arange(MINUTES)
    serving = (there >= (begin + 5 if begin else 0)) & (there < (end - 2 if end < MINUTES else MINUTES))
    sampled = rng.poisson(load * 6) * serving
    counts: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(MINUTES))
    failed = np.zeros(MINUTES)
    for check, share in _CHECKS.items():
        fails = rng.binomial(sampled, share)
        failed = np.maximum(failed, fails)
        counts[f'palegreen_quality_checks_total{{{labels},check="{check}",result="fail"}}'] = np.cumsum(fails)
        counts[f'palegreen_quality_checks_total{{{labels},check="{check}",result="pass"}}'] = np.cumsum(sampled - fails)
    counts[f'palegreen_quality_samples_total{{{labels},tap="proxy",sampled="rate",result="fail"}}'] = np.cumsum(failed)
    counts[f'palegreen_quality_samples_total{{{labels},tap="proxy",sampled="rate",result="pass"}}'] = np.cumsum(
        sampled - failed
    )
    counts[f'palegreen_tap_received_total{{{place},tap="proxy"}}'] = np.cumsum(rng.poisson(load * 40) * serving)
    counts[f'palegreen_canary_runs_total{{{labels},canary="capital",result="pass"}}'] = np.cumsum(
        (there % 5 == 0) & serving
    )
    counts[f'palegreen_canary_runs_total{{{labels},canary="capital",result="error"}}'] = np.cumsum(
        rng.random(MINUTES) < 0.002
    )
    if pod == "d":  # its evaluator is started again: counters begin anew
        for name, values in counts.items():
            counts[name] = np.where(there >= _EVALUATOR_RESTART, values - values[_EVALUATOR_RESTART], values)
    series: dict[str, NDArray[np.float64]] = {
        **counts,
        f'palegreen_drift_score_ratio{{{labels},channel="response"}}': np.clip(rng.gamma(4, 0.07, MINUTES), 0, 0.9),
        f'palegreen_drift_score_ratio{{{labels},channel="prompt"}}': np.clip(rng.gamma(4, 0.07, MINUTES), 0, 0.9),
        f'palegreen_drift_score_ratio{{{labels},channel="check"}}': np.clip(rng.gamma(2, 0.07, MINUTES), 0, 0.9),
        f'palegreen_drift_alarm{{{labels},channel="response"}}': np.zeros(MINUTES),
        f'palegreen_baseline_info{{{labels},baseline="b1",embedder="minilm",evaluator_version="0.1"}}': np.ones(
            MINUTES
        ),
        f'palegreen_model_fingerprint_info{{{labels},fingerprint="11aa"}}': np.ones(MINUTES),
        f'palegreen_evaluator_process_up{{process="scorer",node="{node}",instance="{pod}:9451"}}': np.ones(MINUTES),
        f'palegreen_evaluator_lag_seconds{{node="{node}",instance="{pod}:9451"}}': 0.2 * np.ones(MINUTES),
        f'palegreen_build_info{{version="0.1",node="{node}",instance="{pod}:9451",job="evaluators"}}': np.ones(MINUTES),
        f'up{{node="{node}",instance="{pod}:9451",job="evaluators"}}': np.ones(MINUTES),
    }
    if begin:
        series[f"palegreen_deploy_timestamp_seconds{{{labels}}}"] = np.full(MINUTES, 60.0 * begin)
        series[f'palegreen_deploys_total{{{labels},cause="pod_template"}}'] = np.ones(MINUTES)
    found = {name: _between(values, begin, end) for name, values in series.items()}
    if pod == "d":
        for name, values in found.items():
            if not name.startswith("up{"):
                values[_EVALUATOR_RESTART - 1] = None
            else:
                values[_EVALUATOR_RESTART - 1] = 0.0
    return found


def _gpu(rng: np.random.Generator, number: int, load: NDArray[np.float64], bursts: NDArray[np.float64]) -> Series:
    node = f"n{number}"
    at = f'node="{node}",instance="{node}:9450"'
    gpu = f'uuid="GPU-{node}",gpu="0",mig="",{at}'
    port = 'device="eth0",port="",kind="ethernet",type="rx_dropped"'
    busy = np.clip(0.2 + 0.7 * load + 0.1 * bursts + rng.normal(0, 0.05, MINUTES), 0, 1)
    there = np.arange(MINUTES)
    lost = (there >= DAY + 5) & (number == 0)
    series: dict[str, NDArray[np.float64]] = {
        f"palegreen_gpu_up{{{gpu}}}": 1.0 * ~lost,
        f"palegreen_gpu_busy_seconds_total{{{gpu}}}": np.cumsum(60 * busy),
        f"palegreen_gpu_sampled_seconds_total{{{gpu}}}": 60.0 * there,
        f"palegreen_gpu_utilization_ratio{{{gpu}}}": busy,
        f"palegreen_gpu_memory_used_bytes{{{gpu}}}": np.full(MINUTES, 7e10),
        f"palegreen_gpu_memory_total_bytes{{{gpu}}}": np.full(MINUTES, 8.5e10),
        f"palegreen_gpu_memory_peak_1h_bytes{{{gpu}}}": np.full(MINUTES, 7e10),
        f'palegreen_gpu_throttled_seconds_total{{{gpu},reason="sw_power_cap"}}': np.cumsum(
            20 * load * rng.random(MINUTES)
        ),
        f'palegreen_gpu_throttled_seconds_total{{{gpu},reason="hw_thermal"}}': np.cumsum(1.0 * bursts),
        f'palegreen_gpu_xid_errors_total{{{gpu},xid="31",class="application"}}': 1.0 * (there > 600),
        f'palegreen_gpu_ecc_errors_total{{{gpu},type="corrected",location="dram"}}': np.floor(there / 400),
        f"palegreen_driver_gpus{{{at}}}": np.ones(MINUTES),
        f'palegreen_source_up{{source="nvml",target="",{at}}}': np.ones(MINUTES),
        f'palegreen_source_up{{source="engine",target="http://{node}:8000",{at}}}': 1.0 * (rng.random(MINUTES) > 0.003),
        f'palegreen_source_sample_age_seconds{{source="nvml",target="",{at}}}': rng.random(MINUTES),
        f"palegreen_network_port_errors_total{{{port},{at}}}": np.floor(there / 30),
        f'palegreen_build_info{{version="0.1",{at},job="nodes"}}': np.ones(MINUTES),
        f'up{{{at},job="nodes"}}': np.ones(MINUTES),
        f"palegreen_config_last_reload_successful{{{at}}}": np.ones(MINUTES),
    }
    if number == 1:  # the daemon is started again: a scrape is missing, what it counts begins anew
        for name, values in series.items():
            if "_total{" in name:
                series[name] = np.where(there >= _NODE_RESTART, values - values[_NODE_RESTART], values)
    found = {name: _between(values, 0, MINUTES) for name, values in series.items()}
    for name, values in found.items():
        if number == 1:
            values[_NODE_RESTART - 1] = 0.0 if name.startswith("up{") else None
        if (
            number == 0
            and name.startswith(("palegreen_gpu_", "palegreen_gpu_busy"))
            and not name.startswith("palegreen_gpu_up")
        ):
            values[DAY + 5 :] = [None] * (MINUTES - DAY - 5)
    return found


def _between(values: NDArray[np.float64], begin: int, end: int) -> list[float | None]:
    return [round(float(value), 6) if begin <= minute < end else None for minute, value in enumerate(values)]
