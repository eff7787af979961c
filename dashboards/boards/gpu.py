"""GPU and node: how full, how hot, how sound, and who uses what."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from palegreen.dashboards import events, links, variables
from palegreen.dashboards.board import Row, board
from palegreen.dashboards.boards import gpu_errors, gpu_users
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    BLUE,
    BYTES,
    CELSIUS,
    COUNT,
    GREEN,
    HERTZ,
    ORANGE,
    RED,
    SHARE,
    WATTS,
    steps,
)
from palegreen.dashboards.panels import Head, Query, series, stats
from palegreen.dashboards.select import GPU, NODE, RATE, WHOLE_GPU
from palegreen.dashboards.tables import Column, rows

UID = "palegreen-gpu"
_ONE = "node, gpu"
_NAME = "{{node}} GPU {{gpu}}"
_OWNER = "node, gpu, namespace, pod, container, unit"
_OWNED = "GPU {{gpu}} {{namespace}} {{pod}} {{container}}{{unit}}"


def dashboard() -> Dashboard:
    """The board."""
    return board(
        UID,
        "Palegreen / GPU and node",
        "Memory, utilisation, throttling and errors of GPUs, and who uses them.",
        variables.gpus(),
        [events.firing(node=True)],
        [
            Row([_answering(), _gpus()], height=9),
            Row([_utilization(), _compute(), _bandwidth()], title="Utilisation, exactly", number=101),
            Row([_memory(), _fragments(), _retries(), _stranded()], title="Memory", number=102),
            Row([_throttled(), _power(), _temperature(), _clock()], title="Power, heat and clocks", number=103),
            *gpu_errors.rows(),
            *gpu_users.rows(),
        ],
    )


def _answering() -> Panel:
    up = f"palegreen_gpu_up{{{GPU}}}"
    return stats(
        Head(
            1,
            "GPUs",
            "GPUs that answer, and those that hang, are lost or have left the bus. Drivers at fault are nodes whose "
            "driver is stuck, or does not fit its library. Worry at any in colour.",
            5,
        ),
        COUNT,
        Query(f"sum({up})", "answer"),
        Query(f"count({up}) - sum({up})", "lost or hung"),
        Query(
            f"sum(palegreen_driver_stuck{{{NODE}}}) + sum(palegreen_driver_library_mismatch{{{NODE}}})",
            "drivers at fault",
        ),
        colors=steps((1, RED)),
        by_name={"answer": steps(base=BLUE)},
    )


def _gpus() -> Panel:
    used, total = f"palegreen_gpu_memory_used_bytes{{{WHOLE_GPU}}}", f"palegreen_gpu_memory_total_bytes{{{WHOLE_GPU}}}"
    where = "node, gpu, uuid"
    return rows(
        Head(
            2,
            "Each GPU",
            "One row for each GPU: how busy it was over 5 minutes, how full its memory is, what it draws of its power "
            "limit, how many degrees are left until it slows down. Worry at full memory without work, and at a small "
            "margin.",
            19,
        ),
        [
            Column("node", "node", link=links.to("palegreen-gpu", node="node")),
            Column("gpu", "GPU", width=60),
            Column("uuid", "uuid", link=links.to("palegreen-gpu", uuid="uuid")),
            Column("name", "model"),
            Column("B", "busy", unit=SHARE, bar=True, steps=steps(base=GREEN)),
            Column("C", "memory", unit=SHARE, bar=True, steps=steps(base=GREEN)),
            Column("D", "of power limit", unit=SHARE, bar=True, steps=steps(base=GREEN)),
            Column("E", "margin", unit=CELSIUS, width=80),
        ],
        Query(f"max by ({where}, name) (palegreen_gpu_info{{{WHOLE_GPU}}})"),
        Query(f"max by ({where}) (palegreen:gpu_utilization{{{GPU}}})"),
        Query(f"max by ({where}) ({used} / {total})"),
        Query(f"max by ({where}) (palegreen_gpu_power_watts{{{GPU}}} / palegreen_gpu_power_limit_watts{{{GPU}}})"),
        Query(f"min by ({where}) (palegreen_gpu_temperature_margin_celsius{{{GPU}}})"),
        sort=("node", False),
    )


def _utilization() -> Panel:
    return series(
        Head(
            3,
            "Busy",
            "Share of 5 minutes in which any kernel ran, from every sample that the driver took, so that nothing "
            "between two scrapes is missed. It says nothing of how full the GPU was: see the next panel.",
            8,
        ),
        SHARE,
        Query(f"max by ({_ONE}) (palegreen:gpu_utilization{{{GPU}}})", _NAME),
        top=1,
    )


def _compute() -> Panel:
    return series(
        Head(
            4,
            "SMs and tensor cores",
            "Share of SMs that had work and of tensor cores that were busy. A busy GPU with few active SMs runs small "
            "kernels; with idle tensor cores it waits for memory, as decoding does.",
            8,
        ),
        SHARE,
        Query(f"max by ({_ONE}) (rate(palegreen_gpu_sm_active_seconds_total{{{GPU}}}{RATE}))", f"SM, {_NAME}"),
        Query(f"max by ({_ONE}) (rate(palegreen_gpu_tensor_active_seconds_total{{{GPU}}}{RATE}))", f"tensor, {_NAME}"),
        top=1,
    )


def _bandwidth() -> Panel:
    return series(
        Head(
            5,
            "Memory bandwidth",
            "Device memory bandwidth in use, as a share of its peak. Decoding lives off it: near 1 more requests in a "
            "batch no longer cost less each.",
            8,
        ),
        SHARE,
        Query(f"max by ({_ONE}) (rate(palegreen_gpu_dram_active_seconds_total{{{GPU}}}{RATE}))", _NAME),
        top=1,
    )


def _memory() -> Panel:
    used, total = (f"palegreen_gpu_memory_{of}_bytes{{{WHOLE_GPU}}}" for of in ("used", "total"))
    return series(
        Head(
            6,
            "Memory in use",
            "Share of the memory that processes hold. Engines take what they are told to at their start, so that a "
            "high share is usual; a share that grows is not.",
            6,
        ),
        SHARE,
        Query(f"max by ({_ONE}) ({used} / {total})", _NAME),
        top=1,
    )


def _fragments() -> Panel:
    return series(
        Head(
            7,
            "Allocator fragmentation",
            "Of processes with PyTorch's allocator and the probe: how much of what is free cannot serve a large "
            "allocation. Worry when it climbs over days: out of memory while memory is free.",
            6,
        ),
        SHARE,
        Query(
            f"max by (namespace, pod, container, kind) (palegreen_allocator_fragmentation_ratio{{{GPU}}})",
            "{{kind}} {{namespace}} {{pod}} {{container}}",
        ),
        line=steps((limit("fragmentation_split"), ORANGE), (limit("fragmentation_external"), RED)),
        top=1,
    )


def _retries() -> Panel:
    where = "namespace, pod, container"
    return series(
        Head(
            8,
            "Allocation retries and out of memory",
            "Allocations that failed at first, after which the allocator gave back its cache, and those that failed "
            "for good. Each retry stalls the process; any error of the second kind ends a request.",
            6,
        ),
        COUNT,
        Query(
            f"sum by ({where}) (increase(palegreen_allocator_retries_total{{{GPU}}}{RATE}))",
            "retries {{namespace}} {{pod}} {{container}}",
        ),
        Query(
            f"sum by ({where}) (increase(palegreen_allocator_ooms_total{{{GPU}}}{RATE}))",
            "out of memory {{namespace}} {{pod}} {{container}}",
        ),
    )


def _stranded() -> Panel:
    return series(
        Head(
            9,
            "Free memory of a node",
            "All free memory of a node and the largest part of it on one GPU. Far apart, a model that would fit in all "
            "of it does not fit anywhere.",
            6,
        ),
        BYTES,
        Query(f"sum by (node) (palegreen_node_gpu_free_memory_bytes{{{NODE}}})", "free {{node}}"),
        Query(f"max by (node) (palegreen_node_gpu_largest_free_memory_bytes{{{NODE}}})", "on one GPU {{node}}"),
    )


def _throttled() -> Panel:
    throttled = f"rate(palegreen_gpu_throttled_seconds_total{{{GPU}}}{RATE})"
    return series(
        Head(
            10,
            "Throttled",
            "Share of time in which clocks were held down, by reason. A power cap may be meant; heat and hardware "
            "slow-down are faults. Requests slow down while utilisation stays high.",
            6,
        ),
        SHARE,
        Query(f"max by (node) ({throttled})", "most of {{node}}"),
        Query(f"max by ({_ONE}, reason) ({throttled}) > 0", "{{reason}} " + _NAME),
        line=steps((limit("throttled"), ORANGE)),
        top=1,
    )


def _power() -> Panel:
    return series(
        Head(
            11,
            "Power",
            "What each board draws. At the limit of the table above, clocks fall.",
            6,
        ),
        WATTS,
        Query(f"max by ({_ONE}) (palegreen_gpu_power_watts{{{GPU}}})", _NAME),
    )


def _temperature() -> Panel:
    return series(
        Head(
            12,
            "Temperature",
            "Of the GPU and of its memory. One GPU much hotter than its neighbours has a fan, airflow or mounting "
            "fault.",
            6,
        ),
        CELSIUS,
        Query(f"max by ({_ONE}, sensor) (palegreen_gpu_temperature_celsius{{{GPU}}})", "{{sensor}} " + _NAME),
        bottom=None,
    )


def _clock() -> Panel:
    return series(
        Head(
            13,
            "SM clock",
            "Present clock. A GPU that computes at a lower clock than its siblings holds a tensor-parallel engine "
            "back.",
            6,
        ),
        HERTZ,
        Query(f'max by ({_ONE}) (palegreen_gpu_clock_hertz{{domain="sm", {GPU}}})', _NAME),
    )
