"""Model: what users of one model feel, and what its engines do."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from palegreen.dashboards import events, looks, variables
from palegreen.dashboards.board import Row, board
from palegreen.dashboards.boards import model_latency
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    BLUE,
    COUNT,
    GRAY,
    GREEN,
    ORANGE,
    PER_SECOND,
    RED,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    YELLOW,
    steps,
)
from palegreen.dashboards.panels import Head, Query, bars, series, timeline
from palegreen.dashboards.select import REPLICA, per_second, ratio
from palegreen.dashboards.tables import matrix

UID = "palegreen-model"
_SERVICE = "endpoint, engine"
_ENGINE = f'engine="$engine", {REPLICA}'
_STATES = {"starting": (1, YELLOW), "ready": (2, GREEN), "sleeping": (3, BLUE), "draining": (4, GRAY), "dead": (5, RED)}
_PROGRESS = {
    "progress": (1, GREEN), "saturated": (2, ORANGE), "hung": (3, RED),
    "down": (4, RED), "loading": (5, YELLOW), "unknown": (6, GRAY),
}  # fmt: skip
_QUALITIES = {"native": GREEN, "derived": BLUE, "proxy": YELLOW, "absent": GRAY}


def dashboard() -> Dashboard:
    """The board."""
    engines = variables.of("engine", "Engine", "palegreen_engine_metric_supported", REPLICA)
    return board(
        UID,
        "Palegreen / Model",
        "Latency, throughput, queue, cache and state of the replicas of a model.",
        [*variables.replicas(), engines],
        [events.firing(), events.deployments(), events.baselines()],
        [
            Row([_verdicts(), _first_token()]),
            *model_latency.rows(),
            Row([_requests(), _tokens(), _finished(), _refused()], title="Load", number=103),
            Row([_cache(), _preempted(), _prefix(), _lengths()], title="KV cache and lengths", number=104),
            Row([_utilization(), _saturation(), _speculation()], title="How full", number=105),
            Row([_states(), _progress(), _loading()], title="Start and progress", number=106),
            Row([_supported()], height=12, title="What the engines tell", number=107, collapsed=True),
        ],
    )


def _verdicts() -> Panel:
    parts = " or ".join(
        f'{bit} * palegreen:verdict{{verdict="{name}", {REPLICA}}}' for name, (bit, _) in looks.VERDICTS.items()
    )
    return timeline(
        Head(
            1,
            "Verdict of each replica",
            "Each replica over time: well, or what is wrong with it. The overview says which causes hold.",
            12,
        ),
        Query(f"sum by (endpoint, instance_id) ({parts})", "{{endpoint}} {{instance_id}}"),
        mappings=looks.verdicts(),
    )


def _first_token() -> Panel:
    return model_latency.quantiles(
        2,
        "Time to first token",
        "From the arrival of a request to its first token, for each endpoint and kind of engine, as buckets of engines "
        "differ. Worry when p95 leaves its usual band or p99 parts from it: some users wait, the mean does not show "
        "it.",
        "palegreen_engine_time_to_first_token_seconds",
        12,
        (0.5, 0.95, 0.99),
    )


def _requests() -> Panel:
    return series(
        Head(
            11,
            "Requests running and waiting",
            "Requests in execution and those that wait, of each replica. A queue at one replica alone means that load "
            "is spread unevenly; one that grows at a calm GPU means that something else is full.",
            6,
        ),
        COUNT,
        Query(f"sum by (instance_id) (palegreen_engine_requests_running{{{REPLICA}}})", "running {{instance_id}}"),
        Query(f"sum by (instance_id) (palegreen_engine_requests_waiting{{{REPLICA}}})", "waiting {{instance_id}}"),
    )


def _tokens() -> Panel:
    return series(
        Head(
            12,
            "Tokens",
            "Prompt tokens read and tokens generated a second. Prompts are counted with those from the prefix cache "
            "where the engine does not tell them apart.",
            6,
        ),
        TOKENS_PER_SECOND,
        Query(per_second("palegreen_engine_generation_tokens_total", REPLICA, "endpoint"), "generated {{endpoint}}"),
        Query(
            per_second("palegreen_engine_prompt_tokens_total", REPLICA, "endpoint, source"),
            "prompt, {{source}} {{endpoint}}",
        ),
    )


def _finished() -> Panel:
    return series(
        Head(
            13,
            "How requests end",
            "Requests finished a second, by reason. Worry when length grows (answers are cut), when abort grows (users "
            "or their clients give up), and at any error.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_engine_requests_finished_total", REPLICA, "finish_reason"), "{{finish_reason}}"),
        stacked=True,
    )


def _refused() -> Panel:
    failed = f'code_class=~"4xx|5xx", {REPLICA}'
    return series(
        Head(
            14,
            "Refused and failed",
            "Requests that were refused before they were queued, and responses of the engine's server with an error. "
            "5xx and refusals are what users notice first.",
            6,
        ),
        PER_SECOND,
        Query(
            per_second("palegreen_engine_requests_rejected_total", REPLICA, "endpoint, reason"), "refused: {{reason}}"
        ),
        Query(per_second("palegreen_engine_http_responses_total", failed, "code_class"), "HTTP {{code_class}}"),
        stacked=True,
    )


def _cache() -> Panel:
    return series(
        Head(
            15,
            "KV cache in use",
            "Share of the KV cache in use. Near 1 running requests are thrown out and begin anew: latency rises while "
            "the GPU looks busy and well. Worry above the line for more than minutes.",
            6,
        ),
        SHARE,
        Query(f"max by (instance_id) (palegreen_engine_kv_cache_usage_ratio{{{REPLICA}}})", "{{instance_id}}"),
        line=steps((limit("kv_usage"), RED)),
        top=1,
    )


def _preempted() -> Panel:
    return series(
        Head(
            16,
            "Preemptions",
            "Running requests thrown out of the KV cache a second. Their work is done again: at any steady rate the "
            "cache is too small for the load.",
            6,
        ),
        PER_SECOND,
        Query(
            per_second("palegreen_engine_preemptions_total", REPLICA, "instance_id, kind"), "{{kind}} {{instance_id}}"
        ),
        line=steps((limit("preemptions"), ORANGE)),
    )


def _prefix() -> Panel:
    hits = per_second("palegreen_engine_prefix_cache_hit_tokens_total", REPLICA, "instance_id")
    asked = per_second("palegreen_engine_prefix_cache_query_tokens_total", REPLICA, "instance_id")
    return series(
        Head(
            17,
            "Prefix cache hits",
            "Share of prompt tokens that were found in the prefix cache. A fall means other prompts, another routing, "
            "or a cache that is too small; the time to first token rises with it.",
            6,
        ),
        SHARE,
        Query(ratio(hits, asked), "{{instance_id}}"),
        top=1,
    )


def _lengths() -> Panel:
    def mean(of: str) -> str:
        metric = f"palegreen_engine_request_{of}_tokens"
        return ratio(
            per_second(f"{metric}_sum", REPLICA, "endpoint"), per_second(f"{metric}_count", REPLICA, "endpoint")
        )

    return series(
        Head(
            18,
            "Length of prompts and answers",
            "Mean tokens of a prompt and of an answer. When these grow, latency and the use of the cache grow without "
            "a fault of the engine.",
            6,
        ),
        COUNT,
        Query(mean("prompt"), "prompt {{endpoint}}"),
        Query(mean("generation"), "answer {{endpoint}}"),
    )


def _utilization() -> Panel:
    return series(
        Head(
            19,
            "Utilisation of its GPUs",
            "Exact mean utilisation of the GPUs of each replica, over 5 minutes. A long queue beside a low utilisation "
            "says that GPUs are not what is missing.",
            8,
        ),
        SHARE,
        Query(f"max by (instance_id) (palegreen:replica_utilization{{{REPLICA}}})", "{{instance_id}}"),
        top=1,
    )


def _saturation() -> Panel:
    return series(
        Head(
            20,
            "Saturation",
            "How near each replica is to what it can take. One near 1 beside others that are calm is unevenly loaded.",
            8,
        ),
        SHARE,
        Query(f"max by (instance_id) (palegreen:saturation{{{REPLICA}}})", "{{instance_id}}"),
        top=1,
    )


def _speculation() -> Panel:
    accepted = per_second("palegreen_engine_spec_accepted_tokens_total", REPLICA, "instance_id")
    drafted = per_second("palegreen_engine_spec_draft_tokens_total", REPLICA, "instance_id")
    return series(
        Head(
            21,
            "Speculative tokens accepted",
            "Share of proposed tokens that were accepted. A fall makes decoding slower; after a change of the model "
            "the draft model may no longer fit it.",
            8,
        ),
        SHARE,
        Query(ratio(accepted, drafted), "{{instance_id}}"),
        top=1,
    )


def _coded(metric: str, states: dict[str, tuple[int, str]]) -> str:
    return " or ".join(
        f'{number} * (max by (instance_id) ({metric}{{state="{state}", {REPLICA}}}) == 1)'
        for state, (number, _) in states.items()
    )


def _states() -> Panel:
    return timeline(
        Head(
            22,
            "State of the engine",
            "What each engine says of itself. Starting, draining and sleeping are states, not failures; dead is one.",
            8,
        ),
        Query(_coded("palegreen_engine_state", _STATES), "{{instance_id}}"),
        mappings=looks.words({str(number): (state, color) for state, (number, color) in _STATES.items()}),
    )


def _progress() -> Panel:
    return timeline(
        Head(
            23,
            "Does it make tokens",
            "What the canaries find when they ask the engine itself. Hung means that it makes tokens for nobody, "
            "whatever its health page says; saturated means that others get theirs.",
            8,
        ),
        Query(_coded("palegreen_engine_progress", _PROGRESS), "{{instance_id}}"),
        mappings=looks.words({str(number): (state, color) for state, (number, color) in _PROGRESS.items()}),
    )


def _loading() -> Panel:
    return bars(
        Head(
            24,
            "Latest start, by phase",
            "How long each phase of the latest start took, the slowest replica of each. Worry when a phase is much "
            "longer than it was: a cold artifact cache, a slow disk, a compilation that was cached before.",
            8,
        ),
        SECONDS,
        Query(
            f"max by (phase, engine) (palegreen_engine_model_load_duration_seconds{{{REPLICA}}})",
            "{{phase}} ({{engine}})",
        ),
        colors=steps(base=BLUE),
    )


def _supported() -> Panel:
    return matrix(
        Head(
            25,
            "What each kind of engine tells",
            "Where a metric comes from: native, derived from others, a proxy near what is meant, or absent. Panels "
            "above are empty for an engine where it is absent. A metric that turns absent after an upgrade was "
            "renamed.",
            24,
        ),
        Query(f"max by (metric, engine, quality) (palegreen_engine_metric_supported{{{REPLICA}}})"),
        row="metric",
        column="engine",
        value="quality",
        mappings=looks.colored(_QUALITIES),
    )
