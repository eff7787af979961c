"""What field values tell of a GPU: PCIe and NVLink traffic and errors, throttle times, memory temperature, recovery.

Byte counters come from cheap field values where the hardware has them; nvmlDeviceGetPcieThroughput, which blocks for
20 ms, is never called.
"""

from __future__ import annotations

from typing import Any

import pynvml as nvml

from palegreen.exporter.nvml.fields import Field, Fields
from palegreen.runtime.exposition import Collected

_ALL = 0
_NANO = 1e-9
_KIB = 1024.0
_RECOVERY = {
    nvml.NVML_GPU_RECOVERY_ACTION_NONE: "none",
    nvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: "gpu_reset",
    nvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: "node_reboot",
    nvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: "drain_p2p",
    nvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: "drain_and_reset",
}
PCIE_BYTES = {
    "palegreen_gpu_pcie_tx_bytes_total": nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
    "palegreen_gpu_pcie_rx_bytes_total": nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
}
_PCIE_ERRORS = {
    nvml.NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS: "correctable",
    nvml.NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR: "non_fatal",
    nvml.NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR: "fatal",
    nvml.NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR: "receiver",
    nvml.NVML_FI_DEV_PCIE_COUNT_BAD_TLP: "bad_tlp",
    nvml.NVML_FI_DEV_PCIE_COUNT_BAD_DLLP: "bad_dllp",
    nvml.NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED: "naks_received",
    nvml.NVML_FI_DEV_PCIE_COUNT_NAKS_SENT: "naks_sent",
    nvml.NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ: "unsupported_request",
    nvml.NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR: "lcrc",
    nvml.NVML_FI_DEV_PCIE_COUNT_LANE_ERROR: "lane",
}
# Counted by the driver in nanoseconds, so nothing between two looks is lost.
THROTTLE_FIELDS = {
    nvml.NVML_FI_DEV_PERF_POLICY_POWER: "sw_power_cap",
    nvml.NVML_FI_DEV_PERF_POLICY_SYNC_BOOST: "sync_boost",
    nvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN: "sw_thermal",
    nvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: "hw_thermal",
    nvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN: "hw_power_brake",
}
_GPU_FIELDS: tuple[Field, ...] = tuple(
    (identifier, _ALL)
    for identifier in (
        nvml.NVML_FI_DEV_MEMORY_TEMP,
        nvml.NVML_FI_DEV_PCIE_REPLAY_COUNTER,
        nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
        nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
        nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        nvml.NVML_FI_DEV_MMA_STALL_PERCENT,
        nvml.NVML_FI_DEV_NVLINK_LINK_COUNT,
        *_PCIE_ERRORS,
        *THROTTLE_FIELDS,
    )
)
_LINK_ERRORS = {
    nvml.NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS: "malformed_packet",
    nvml.NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS: "buffer_overrun",
    nvml.NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS: "receive",
    nvml.NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS: "receive_remote",
    nvml.NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS: "local_link_integrity",
    nvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS: "transmit_discards",
    nvml.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS: "recovery_failed",
    nvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY: "replay",
    nvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY: "recovery",
    nvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC: "crc",
}
# (exact byte counter of NVLink 5 and newer, data counter in KiB of what came before)
_LINK_BYTES = {
    "palegreen_gpu_nvlink_tx_bytes_total": (
        nvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES,
        nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
    ),
    "palegreen_gpu_nvlink_rx_bytes_total": (
        nvml.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES,
        nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
    ),
}
_MOST_LINKS = 36


class Links:
    """The field values of one GPU in one call, and those of its NVLinks in another."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._gpu = Fields(handle, _GPU_FIELDS)
        self._nvlink = Fields(handle, ())
        self._links_of = 0
        self._count = 0
        self._bytes: dict[int, tuple[float, float]] = {}  # raw value, total

    def publish(self, add: Collected, counted: set[str]) -> dict[str, float]:
        """Add what one GPU has one of; returns the seconds for which the driver says that each reason held the clocks.

        Names of byte counters that are given are added to `counted`. Raises GpuGoneError, as does `nvlinks`.
        """
        fields = {identifier: value for (identifier, _), value in self._gpu.read().items()}
        if nvml.NVML_FI_DEV_PCIE_REPLAY_COUNTER in fields:
            add.add("palegreen_gpu_pcie_replays_total", fields[nvml.NVML_FI_DEV_PCIE_REPLAY_COUNTER])
        for name, identifier in PCIE_BYTES.items():
            if identifier in fields:
                counted.add(name)
                add.add(name, self._unwrapped(identifier, fields[identifier]))
        for identifier, kind in _PCIE_ERRORS.items():
            if identifier in fields:
                add.add("palegreen_gpu_pcie_errors_total", fields[identifier], kind)
        if nvml.NVML_FI_DEV_MEMORY_TEMP in fields:
            add.add("palegreen_gpu_temperature_celsius", fields[nvml.NVML_FI_DEV_MEMORY_TEMP], "memory")
        if nvml.NVML_FI_DEV_MMA_STALL_PERCENT in fields:
            add.add("palegreen_gpu_tensor_stall_ratio", fields[nvml.NVML_FI_DEV_MMA_STALL_PERCENT] / 100)
        if nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION in fields:
            action = int(fields[nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
            for number, name in _RECOVERY.items():
                add.add("palegreen_gpu_recovery_action", action == number, name)
            if action not in _RECOVERY:
                add.add("palegreen_gpu_recovery_action", 1, f"code_{action}")
        self._count = min(int(fields.get(nvml.NVML_FI_DEV_NVLINK_LINK_COUNT, 0)), _MOST_LINKS)
        return {THROTTLE_FIELDS[i]: value * _NANO for i, value in fields.items() if i in THROTTLE_FIELDS}

    def _unwrapped(self, identifier: int, raw: float) -> float:
        """The total behind a counter that nvml.h says may wrap: at 32 bits PCIe gets there within a second or two."""
        before, total = self._bytes.get(identifier, (raw, raw))
        step = raw - before
        if step < 0:
            step = step % 2**32 if (identifier, _ALL) in self._gpu.narrow else raw
        self._bytes[identifier] = raw, total + step
        return total + step

    def nvlinks(self, add: Collected) -> None:
        """Add traffic and errors of each NVLink; eighteen have over two hundred fields, so this is read less often."""
        if self._count != self._links_of:
            wanted = [identifier for pair in _LINK_BYTES.values() for identifier in pair] + list(_LINK_ERRORS)
            self._nvlink = Fields(self._handle, [(i, link) for link in range(self._count) for i in wanted])
            self._links_of = self._count
        values = self._nvlink.read()
        for link in range(self._count):
            for name, (exact, kibibytes) in _LINK_BYTES.items():
                if (exact, link) in values:
                    add.add(name, values[exact, link], str(link))
                elif (kibibytes, link) in values:
                    add.add(name, values[kibibytes, link] * _KIB, str(link))
            for identifier, kind in _LINK_ERRORS.items():
                if (identifier, link) in values:
                    add.add("palegreen_gpu_nvlink_errors_total", values[identifier, link], str(link), kind)
