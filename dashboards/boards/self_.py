"""Palegreen itself: whether what watches is awake, and what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from palegreen.dashboards import events, links, looks, variables
from palegreen.dashboards.board import Row, board
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    BYTES,
    COUNT,
    GREEN,
    ORANGE,
    PER_SECOND,
    RED,
    SECONDS,
    SHARE,
    SINCE,
    steps,
    words,
)
from palegreen.dashboards.panels import Head, Query, series, stats, timeline
from palegreen.dashboards.select import CLUSTER, NODE, RATE, gravity, per_second, quantile
from palegreen.dashboards.tables import Column, rows

UID = "palegreen-self"
_UP = words({"0": ("down", RED), "1": ("up", GREEN)})


def dashboard() -> Dashboard:
    """The board."""
    return board(
        UID,
        "Palegreen / Palegreen itself",
        "Whether sources, taps and evaluators are awake, what they lose, and what they cost.",
        variables.nodes("palegreen_build_info"),
        [events.firing(node=True)],
        [
            Row([_counted(), _blind()], height=9),
            Row([_sources(), _age(), _slow()], title="Sources", number=101),
            Row([_processes(), _restarts(), _lag(), _queue()], title="Evaluators", number=102),
            Row([_received(), _dropped(), _proxied(), _first_byte()], title="Taps", number=103),
            Row([_scoring(), _store(), _oddities(), _exported()], title="Scoring and store", number=104),
            Row([_cpu(), _memory(), _daemons()], title="What it costs", number=105),
        ],
    )


def _counted() -> Panel:
    sources = f"palegreen_source_up{{{NODE}}}"
    return stats(
        Head(
            1,
            "Awake",
            "Daemons that are scraped, sources that cannot be read, processes of evaluators that are not there, and "
            "daemons whose latest configuration was refused. Worry at any in colour: what they watch may be at fault "
            "unseen.",
            6,
        ),
        COUNT,
        Query(f"count(palegreen_build_info{{{NODE}}})", "daemons"),
        Query(f"count({sources}) - sum({sources})", "sources down"),
        Query(
            f"count(palegreen_evaluator_process_up{{{NODE}}}) - sum(palegreen_evaluator_process_up{{{NODE}}})",
            "evaluator processes down",
        ),
        Query(
            f"count(palegreen_config_last_reload_successful{{{NODE}}})"
            f" - sum(palegreen_config_last_reload_successful{{{NODE}}})",
            "configurations refused",
        ),
        colors=steps((1, RED)),
        by_name={"daemons": steps(base=looks.BLUE)},
    )


def _blind() -> Panel:
    chosen = f'verdict="blind", {CLUSTER}, node=~"$node|"'
    return rows(
        Head(
            2,
            "What cannot be seen",
            "Signals that should be there and are not, and what a model still lacks to be ready for production: an "
            "evaluator, canaries, an objective, an owner. Silence of what is listed here is no proof of health.",
            18,
        ),
        [
            Column("cause", "cause"),
            Column("Value", "severity", mappings=looks.severities(), fill=True, width=90),
            Column("owner", "owner", mappings=looks.colored(looks.OWNERS), fill=True, width=90),
            Column("model", "model", link=links.to("palegreen-model", model="model")),
            Column("endpoint", "endpoint"),
            Column("instance_id", "replica", link=links.to("palegreen-model", instance_id="replica")),
            Column("node", "node", link=links.to("palegreen-gpu", node="node")),
        ],
        Query(gravity(chosen, "cause, owner, model, endpoint, instance_id, node")),
        sort=("severity", False),
    )


def _sources() -> Panel:
    return timeline(
        Head(
            3,
            "Sources",
            "Whether the latest reading of each source succeeded in time. A source that is down shows nothing: its "
            "series are absent, not 0.",
            8,
        ),
        Query(f"max by (node, source, target) (palegreen_source_up{{{NODE}}})", "{{source}} {{target}} {{node}}"),
        mappings=_UP,
    )


def _age() -> Panel:
    return series(
        Head(
            4,
            "Age of readings",
            "How old what is shown is. It should be near the interval of the source; a source that hangs keeps its "
            "last readings for a while and ages.",
            8,
        ),
        SECONDS,
        Query(
            f"max by (node, source, target) (palegreen_source_sample_age_seconds{{{NODE}}})",
            "{{source}} {{target}} {{node}}",
        ),
        line=steps((limit("source_stale"), RED)),
    )


def _slow() -> Panel:
    return series(
        Head(
            5,
            "Time of readings",
            "How long the latest reading of each source took. One that passes its deadline counts as failed.",
            8,
        ),
        SECONDS,
        Query(f"max by (node, source) (palegreen_source_duration_seconds{{{NODE}}})", "{{source}} {{node}}"),
    )


def _processes() -> Panel:
    return timeline(
        Head(
            6,
            "Processes of evaluators",
            "Tap, scorer and probe of each evaluator. While the scorer is down nothing is judged.",
            6,
        ),
        Query(f"min by (instance, process) (palegreen_evaluator_process_up{{{NODE}}})", "{{process}} {{instance}}"),
        mappings=_UP,
    )


def _restarts() -> Panel:
    return series(
        Head(
            7,
            "Restarts and failed readings",
            "Processes of evaluators that were started again, by reason, and readings of sources that failed. Memory "
            "as a reason means that the limit is too low for the embedder.",
            6,
        ),
        COUNT,
        Query(
            f"sum by (process, reason) (increase(palegreen_evaluator_restarts_total{{{NODE}}}{RATE}))",
            "{{process}} {{reason}}",
        ),
        Query(f"sum by (source) (increase(palegreen_source_errors_total{{{NODE}}}{RATE}))", "failed: {{source}}"),
    )


def _lag() -> Panel:
    return series(
        Head(
            8,
            "Lag of scoring",
            "How long the record that was scored last had waited. When it grows, the scorer is slower than what is "
            "sampled: lower the rate or give it more CPU.",
            6,
        ),
        SECONDS,
        Query(f"max by (instance) (palegreen_evaluator_lag_seconds{{{NODE}}})", "{{instance}}"),
        line=steps((limit("scorer_lag"), ORANGE)),
    )


def _queue() -> Panel:
    return series(
        Head(
            9,
            "Queue of the tap",
            "Records that wait for the scorer. The queue is bounded: what does not fit is dropped and counted.",
            6,
        ),
        COUNT,
        Query(f"max by (instance) (palegreen_tap_queue_records{{{NODE}}})", "{{instance}}"),
    )


def _received() -> Panel:
    return series(
        Head(
            10,
            "Seen by taps",
            "Exchanges and records that taps saw, and those that were not to be scored, by reason. Nothing at all "
            "while users are served means that the tap sits beside the traffic.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_tap_received_total", NODE, "tap"), "seen: {{tap}}"),
        Query(per_second("palegreen_tap_unsampled_total", NODE, "reason"), "left out: {{reason}}"),
    )


def _dropped() -> Panel:
    return series(
        Head(
            11,
            "Lost by taps",
            "Records that were to be scored and are lost, by reason. A loss never touches serving, but what is judged "
            "is then no fair share.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_tap_dropped_total", NODE, "reason"), "{{reason}}"),
    )


def _proxied() -> Panel:
    return series(
        Head(
            12,
            "Requests through proxies",
            "By status class and by how they ended. Interrupted and error mean that the engine broke off or gave no "
            "answer.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_proxy_requests_total", NODE, "code, ended"), "{{code}} {{ended}}"),
        stacked=True,
    )


def _first_byte() -> Panel:
    return series(
        Head(
            13,
            "Proxy: time to first byte and to the end",
            "p95 as a client of the proxy sees it. The dots are single requests with a trace.",
            6,
        ),
        SECONDS,
        Query(
            quantile(0.95, "palegreen_proxy_time_to_first_byte_seconds", NODE, "endpoint"),
            "first byte {{endpoint}}",
            exemplar=True,
        ),
        Query(
            quantile(0.95, "palegreen_proxy_request_duration_seconds", NODE, "endpoint"),
            "end {{endpoint}}",
            exemplar=True,
        ),
    )


def _scoring() -> Panel:
    return series(
        Head(
            14,
            "Time of scoring",
            "Share of one CPU that scoring takes, by stage. Near 1 in all, the scorer is at its end.",
            6,
        ),
        SHARE,
        Query(per_second("palegreen_evaluator_scoring_seconds_total", NODE, "stage"), "{{stage}}"),
        stacked=True,
    )


def _store() -> Panel:
    return series(
        Head(
            15,
            "Store",
            "Size of each evaluator's store on disk. It is held by retention; when it stops moving, look at the errors "
            "beside.",
            6,
        ),
        BYTES,
        Query(f"max by (instance) (palegreen_store_bytes{{{NODE}}})", "{{instance}}"),
    )


def _odd(counter: str, beside: str) -> str:
    """What a counter rose by; 0 where it is not there yet and an evaluator is."""
    return f"sum(increase({counter}{{{NODE}}}{RATE})) or 0 * count({beside}{{{NODE}}})"


def _oddities() -> Panel:
    return series(
        Head(
            16,
            "What went wrong inside",
            "Samples that could not be stored, checks that raised an error, observations whose labels were too many, "
            "rounds of probes that failed. Any of them is a defect or a wrong setting.",
            6,
        ),
        COUNT,
        Query(_odd("palegreen_store_errors_total", "palegreen_store_bytes"), "samples not stored"),
        Query(_odd("palegreen_check_errors_total", "palegreen_evaluator_lag_seconds"), "errors of checks"),
        Query(_odd("palegreen_label_overflow_total", "palegreen_evaluator_lag_seconds"), "too many labels"),
        Query(
            f'sum(increase(palegreen_probe_rounds_total{{result="failed", {NODE}}}{RATE}))'
            f" or 0 * count(palegreen_evaluator_lag_seconds{{{NODE}}})",
            "failed rounds of probes",
        ),
    )


def _exported() -> Panel:
    return series(
        Head(
            17,
            "Redactions",
            "Places in texts that were redacted, by kind. A fall to nothing after a change of the configuration means "
            "that texts are kept as they are.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_redactions_total", NODE, "kind"), "{{kind}}"),
    )


def _cpu() -> Panel:
    return series(
        Head(
            18,
            "CPU",
            "CPUs that each daemon takes, evaluators by process. The node daemon should stay below a fiftieth of one.",
            7,
        ),
        COUNT,
        Query(
            f"rate(process_cpu_seconds_total{{{NODE}}}{RATE}) and on (instance) palegreen_build_info{{{NODE}}}",
            "{{instance}}",
        ),
        Query(
            per_second("palegreen_evaluator_process_cpu_seconds_total", NODE, "instance, process"),
            "{{process}} {{instance}}",
        ),
        decimals=2,
    )


def _memory() -> Panel:
    return series(
        Head(
            19,
            "Memory",
            "Resident memory of each daemon, evaluators by process. It should be flat over days.",
            7,
        ),
        BYTES,
        Query(
            f"process_resident_memory_bytes{{{NODE}}} and on (instance) palegreen_build_info{{{NODE}}}", "{{instance}}"
        ),
        Query(
            f"max by (instance, process) (palegreen_evaluator_process_resident_memory_bytes{{{NODE}}})",
            "{{process}} {{instance}}",
        ),
    )


def _daemons() -> Panel:
    started = f"process_start_time_seconds{{{NODE}}} and on (instance) palegreen_build_info{{{NODE}}}"
    return rows(
        Head(
            20,
            "Daemons",
            "Which version runs where, since when, and since when its configuration is in force.",
            10,
        ),
        [
            Column("node", "node"),
            Column("instance", "daemon"),
            Column("version", "version", width=80),
            Column("B", "started", unit=SINCE),
            Column("C", "configured", unit=SINCE),
        ],
        Query(f"max by (node, instance, version) (palegreen_build_info{{{NODE}}})"),
        Query(f"1000 * max by (node, instance) ({started})"),
        Query(f"1000 * max by (node, instance) (palegreen_config_last_reload_success_timestamp_seconds{{{NODE}}})"),
        sort=("node", False),
    )
