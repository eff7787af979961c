"""GPU and node: what is broken."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Panel

from palegreen.dashboards.board import Row
from palegreen.dashboards.limits import limit
from palegreen.dashboards.looks import (
    BYTES_PER_SECOND,
    COUNT,
    GREEN,
    ORANGE,
    PER_SECOND,
    RED,
    steps,
    words,
)
from palegreen.dashboards.panels import Head, Query, series
from palegreen.dashboards.select import GPU, RATE, per_second
from palegreen.dashboards.tables import Column
from palegreen.dashboards.tables import rows as table

_ONE = "node, gpu"
_NAME = "{{node}} GPU {{gpu}}"


def rows() -> list[Row]:
    """Errors of GPUs and of their links."""
    return [
        Row([_xid(), _ecc(), _links(), _traffic(), _health()], title="Errors", number=104),
    ]


def _xid() -> Panel:
    return series(
        Head(
            14,
            "XID errors",
            "Errors that the driver reported, by code and class. Those of the class application are a process' own "
            "fault; hardware and needs_reset ask for the node to be drained.",
            6,
        ),
        COUNT,
        Query(
            f"sum by ({_ONE}, xid, class) (increase(palegreen_gpu_xid_errors_total{{{GPU}}}{RATE}))",
            "{{xid}} {{class}} " + _NAME,
        ),
    )


def _ecc() -> Panel:
    return series(
        Head(
            15,
            "ECC errors",
            "Memory errors in this time, by type. Corrected ones are harmless while they are few; uncorrected ones "
            "lose work and can corrupt results.",
            6,
        ),
        COUNT,
        Query(f"sum by ({_ONE}, type) (increase(palegreen_gpu_ecc_errors_total{{{GPU}}}{RATE}))", "{{type}} " + _NAME),
    )


def _links() -> Panel:
    return series(
        Head(
            16,
            "PCIe and NVLink errors",
            "Packets that had to be sent again, and errors of NVLinks. A link that repeats itself is slow, and a "
            "tensor-parallel engine with it.",
            6,
        ),
        PER_SECOND,
        Query(per_second("palegreen_gpu_pcie_replays_total", GPU, _ONE), f"PCIe, {_NAME}"),
        Query(per_second("palegreen_gpu_nvlink_errors_total", GPU, f"{_ONE}, type"), "NVLink {{type}}, " + _NAME),
        line=steps((limit("link_errors"), ORANGE)),
    )


def _traffic() -> Panel:
    return series(
        Head(
            17,
            "PCIe and NVLink traffic",
            "Bytes a second in both directions. Steady PCIe traffic while decoding means that weights or cache are "
            "swapped.",
            6,
        ),
        BYTES_PER_SECOND,
        Query(
            f"sum by ({_ONE}) (rate(palegreen_gpu_pcie_rx_bytes_total{{{GPU}}}{RATE})"
            f" + rate(palegreen_gpu_pcie_tx_bytes_total{{{GPU}}}{RATE}))",
            f"PCIe, {_NAME}",
        ),
        Query(
            f"sum by ({_ONE}) (rate(palegreen_gpu_nvlink_rx_bytes_total{{{GPU}}}{RATE})"
            f" + rate(palegreen_gpu_nvlink_tx_bytes_total{{{GPU}}}{RATE}))",
            f"NVLink, {_NAME}",
        ),
    )


def _health() -> Panel:
    wrong = words({"0": ("no", GREEN), "1": ("yes", RED)})
    return table(
        Head(
            18,
            "What each GPU needs",
            "Whether the driver asks for a reset or a reboot, whether memory rows wait for one or could not be "
            "replaced, and how often the GPU stopped answering.",
            24,
        ),
        [
            Column("node", "node"),
            Column("gpu", "GPU", width=60),
            Column("A", "driver asks for action", mappings=wrong),
            Column("B", "row remap pending", mappings=wrong),
            Column("C", "row remap failed", mappings=wrong),
            Column("D", "rows replaced", unit=COUNT),
            Column("E", "times lost", unit=COUNT, steps=steps((1, ORANGE))),
        ],
        Query(f'max by ({_ONE}) (palegreen_gpu_recovery_action{{action!="none", {GPU}}})'),
        Query(f"max by ({_ONE}) (palegreen_gpu_row_remap_pending{{{GPU}}})"),
        Query(f"max by ({_ONE}) (palegreen_gpu_row_remap_failure{{{GPU}}})"),
        Query(f"sum by ({_ONE}) (palegreen_gpu_remapped_rows{{{GPU}}})"),
        Query(f"sum by ({_ONE}) (palegreen_gpu_losses_total{{{GPU}}})"),
        sort=("times lost", True),
    )
