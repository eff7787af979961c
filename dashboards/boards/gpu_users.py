"""GPU and node: who uses what, and what room is left."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Panel

from palegreen.dashboards import links
from palegreen.dashboards.board import Row
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    BYTES,
    COUNT,
    GREEN,
    ORANGE,
    PER_SECOND,
    SHARE,
    steps,
)
from palegreen.dashboards.panels import Head, Query, bars, series
from palegreen.dashboards.select import CLUSTER, GPU, NODE, RATE, per_second
from palegreen.dashboards.tables import Column
from palegreen.dashboards.tables import rows as table

_ONE = "node, gpu"
_NAME = "{{node}} GPU {{gpu}}"
_OWNER = "node, gpu, namespace, pod, container, unit"
_OWNED = "GPU {{gpu}} {{namespace}} {{pod}} {{container}}{{unit}}"


def rows() -> list[Row]:
    """Users of GPUs, and room for more of them."""
    return [
        Row([_users(), _owners(), _busy(), _starved(), _behind()], title="Who uses it", number=105),
        Row([_mig(), _slots(), _network()], title="MIG, room and network", number=106),
    ]


def _users() -> Panel:
    return table(
        Head(
            19,
            "Replicas of each GPU",
            "Which replica runs on which GPU, where it is known. A click opens the model.",
            8,
        ),
        [
            Column("uuid", "GPU"),
            Column("model", "model", link=links.to("palegreen-model", model="model")),
            Column("endpoint", "endpoint"),
            Column("instance_id", "replica", link=links.to("palegreen-model", instance_id="replica")),
        ],
        Query(f'max by (uuid, model, endpoint, instance_id) (palegreen:replica_gpu{{{CLUSTER}, uuid=~"$uuid"}})'),
        sort=("GPU", False),
    )


def _owners() -> Panel:
    return series(
        Head(
            20,
            "Memory by owner",
            "Device memory of each container or unit, from its own processes, so that those that share a GPU differ.",
            8,
        ),
        BYTES,
        Query(f"sum by ({_OWNER}) (palegreen_container_gpu_memory_used_bytes{{{GPU}}})", _OWNED),
        stacked=True,
    )


def _busy() -> Panel:
    return series(
        Head(
            21,
            "Busy by owner",
            "Share of time in which kernels of each container or unit ran. A neighbour that takes its turns makes an "
            "engine slow without a sign of its own.",
            8,
        ),
        SHARE,
        Query(per_second("palegreen_container_gpu_busy_seconds_total", GPU, _OWNER), _OWNED),
    )


def _starved() -> Panel:
    where = "namespace, pod, container, unit"
    return series(
        Head(
            22,
            "Users of GPUs that wait for CPU",
            "Share of time in which tasks of a user of a GPU waited for a CPU, or were held back by its quota. A "
            "starved tokenizer looks like a slow GPU.",
            12,
        ),
        SHARE,
        Query(
            f"max by ({where}) (rate(palegreen_container_pressure_seconds_total"
            f'{{resource="cpu", kind="some", {NODE}}}{RATE}))',
            "waits {{namespace}} {{pod}} {{container}}{{unit}}",
        ),
        Query(
            f"max by ({where}) (rate(palegreen_container_cpu_throttled_periods_total{{{NODE}}}{RATE})"
            f" / (rate(palegreen_container_cpu_periods_total{{{NODE}}}{RATE}) > 0))",
            "quota {{namespace}} {{pod}} {{container}}{{unit}}",
        ),
        top=1,
    )


def _behind() -> Panel:
    return series(
        Head(
            23,
            "Behind its siblings",
            "How far each GPU of an engine is below the median of the engine's GPUs, by clock and by work. One that "
            "stays behind holds all of them back.",
            12,
        ),
        SHARE,
        Query(f"max by ({_ONE}, signal) (palegreen_gpu_group_deficit_ratio{{{GPU}}})", "{{signal}} " + _NAME),
        line=steps((limit("straggler_deficit"), ORANGE)),
        top=1,
    )


def _mig() -> Panel:
    return bars(
        Head(
            24,
            "MIG instances that could be created",
            "By profile, on all GPUs that are chosen. None of a profile while memory is free means that instances lie "
            "unfavourably. Absent without root.",
            8,
        ),
        COUNT,
        Query(f"sum by (profile) (palegreen_mig_creatable_instances{{{GPU}}})", "{{profile}}"),
        colors=steps((1, GREEN), base=ORANGE),
    )


def _slots() -> Panel:
    return table(
        Head(
            25,
            "Room for models",
            "How many more replicas of each declared model fit on each node.",
            8,
        ),
        [
            Column("node", "node"),
            Column("model_size", "model"),
            Column("A", "fit", unit=COUNT, steps=steps((1, GREEN), base=ORANGE)),
        ],
        Query(f"max by (node, model_size) (palegreen_node_gpu_model_slots{{{NODE}}})"),
        sort=("fit", False),
    )


def _network() -> Panel:
    return series(
        Head(
            26,
            "Network errors",
            "Errors and drops of RDMA ports and network cards, by kind. Worry at any steady rate where engines of "
            "several nodes work together.",
            8,
        ),
        PER_SECOND,
        Query(
            f"max by (node, device, port, type) (rate(palegreen_network_port_errors_total{{{NODE}}}{RATE}))",
            "{{type}} {{device}} {{node}}",
        ),
    )
