"""What a machine is made of: GPUs, their MIG devices and processes, and events, with numbers that may move."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from palegreen.demo.driver.mig import H100_PROFILES

MAX_MIG_DEVICES: Final = 7

_NO_INSTANCE: Final = 0xFFFFFFFF
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])iB")

ERRORS: Final = {
    "SUCCESS": 0,
    "UNINITIALIZED": 1,
    "INVALID_ARGUMENT": 2,
    "NOT_SUPPORTED": 3,
    "NO_PERMISSION": 4,
    "NOT_FOUND": 6,
    "INSUFFICIENT_POWER": 8,
    "DRIVER_NOT_LOADED": 9,
    "TIMEOUT": 10,
    "IRQ_ISSUE": 11,
    "LIBRARY_NOT_FOUND": 12,
    "CORRUPTED_INFOROM": 14,
    "GPU_IS_LOST": 15,
    "RESET_REQUIRED": 16,
    "OPERATING_SYSTEM": 17,
    "LIB_RM_VERSION_MISMATCH": 18,
    "IN_USE": 19,
    "MEMORY": 20,
    "NO_DATA": 21,
    "INSUFFICIENT_RESOURCES": 23,
    "ARGUMENT_VERSION_MISMATCH": 25,
    "NOT_READY": 27,
    "GPU_NOT_FOUND": 28,
    "INVALID_STATE": 29,
    "UNKNOWN": 999,
}
PROCESS_TYPES: Final = {"compute": 0, "graphics": 1, "mps": 2}
SYSTEM_EVENT: Final = 1 << 32
"""Types of system events are their own numbers times this, to tell them from those of GPUs."""

EVENT_TYPES: Final = {
    "single_bit_ecc": 0x1,
    "double_bit_ecc": 0x2,
    "xid": 0x8,
    "mig_change": 0x100,
    "gpu_unavailable": 0x4000,
    "recovery_action": 0x8000,
    "unbind": 1 * SYSTEM_EVENT,
    "bind": 2 * SYSTEM_EVENT,
}


def _named(table: Mapping[str, int]) -> BeforeValidator:
    """Accept one of the table's names where the driver has a number."""

    def number(value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in table:
            raise ValueError(f"{value!r} is none of {', '.join(table)}")
        return table[value]

    return BeforeValidator(number)


def _call_name(value: str) -> str:
    if not re.fullmatch(r"\*|nvml[A-Z]\w+|field:\d+", value):
        raise ValueError(f"{value!r} is not an NVML function, field:NUMBER or '*'")
    return value


def _wave(value: object) -> object:
    """A plain number or a size such as 80GiB is a wave that stands still."""
    if isinstance(value, dict) and "base" in value:
        return {**value, **{key: _bytes(value[key]) for key in ("base", "amplitude") if key in value}}
    if isinstance(value, bool | int | float | str):
        return {"base": _bytes(value)}
    return value


def _bytes(value: object) -> object:
    if isinstance(value, str) and (size := _SIZE.fullmatch(value)):
        return float(size[1]) * 1024 ** ("KMGT".index(size[2]) + 1)
    return value


def _percent(wave: Wave | None) -> Wave | None:
    if wave and wave.base + wave.amplitude > 100:
        raise ValueError("base and amplitude are more than 100 percent")
    return wave


class Model(BaseModel):
    """A part of a scenario: unknown keys are mistakes, and what is assigned later is checked too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, use_attribute_docstrings=True)


class Wave(Model):
    """A value over time: constant unless it has an amplitude."""

    base: float = Field(allow_inf_nan=False)
    amplitude: float = Field(default=0, ge=0, allow_inf_nan=False)
    period: float = Field(default=60, gt=0, allow_inf_nan=False)
    """Seconds."""
    phase: float = Field(default=0, allow_inf_nan=False)
    """Seconds by which the wave runs ahead."""
    shape: Literal["sine", "square"] = "sine"
    duty: float = Field(default=0.5, gt=0, lt=1)
    """Share of the period in which a square wave is high."""

    @model_validator(mode="after")
    def _never_negative(self) -> Self:
        if self.amplitude > self.base or self.base < 0:
            raise ValueError("the value would be negative")
        return self

    def at(self, seconds: float) -> float:
        """The value that many seconds after the start of the scenario."""
        turn = (seconds + self.phase) / self.period
        swing = math.sin(math.tau * turn) if self.shape == "sine" else 1 if turn % 1 < self.duty else -1
        return self.base + self.amplitude * swing


Signal = Annotated[Wave | None, BeforeValidator(_wave)]
Percent = Annotated[Wave | None, BeforeValidator(_wave), AfterValidator(_percent)]
Error = Annotated[int, _named(ERRORS)]
Call = Annotated[str, AfterValidator(_call_name)]


def _constant(value: float) -> Any:
    return Field(default_factory=lambda: Wave(base=value))


class _Gpm(Model):
    """What the GPU performance monitor sees, in percent."""

    gpm_graphics: Percent = _constant(60)
    gpm_sm: Percent = _constant(45)
    gpm_occupancy: Percent = _constant(25)
    gpm_integer: Percent = _constant(10)
    gpm_tensor: Percent = _constant(20)
    gpm_dram: Percent = _constant(35)
    gpm_fp64: Percent = _constant(0)
    gpm_fp32: Percent = _constant(5)
    gpm_fp16: Percent = _constant(8)


class Process(Model):
    """A process on a GPU."""

    pid: int = Field(gt=0)
    type: Annotated[int, _named(PROCESS_TYPES)] = 0
    """`compute`, `graphics` or `mps`."""
    memory_used: Signal = _constant(1024**3)
    """null: the driver does not tell, as in a container without access."""
    gpu_instance: int = _NO_INSTANCE
    compute_instance: int = _NO_INSTANCE
    gpu_utilization: Percent = _constant(0)
    memory_utilization: Percent = _constant(0)
    encoder_utilization: Percent = _constant(0)
    decoder_utilization: Percent = _constant(0)


class MigDevice(_Gpm):
    """A MIG device: one compute instance that fills one GPU instance."""

    profile: str = "1g.10gb"
    placement: int | None = Field(default=None, ge=0)
    """First memory slice; where the driver would put it if left out."""
    uuid: str = ""
    gpu_instance: int = 0
    compute_instance: int = 0
    memory_used: Signal = _constant(1024**3)
    memory_reserved: Signal = _constant(16 * 1024**2)
    bar1_used: Signal = _constant(1024**2)

    @model_validator(mode="after")
    def _known_profile(self) -> Self:
        if self.profile not in H100_PROFILES:
            raise ValueError(f"profile {self.profile!r} is none of {', '.join(H100_PROFILES)}")
        return self


class Gpu(_Gpm):
    """A GPU, by default a busy H100. Bytes, seconds, watts, joules, MHz, degrees Celsius and percent."""

    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = ""
    serial: str = ""
    pci_bus_id: str = Field(default="", pattern=r"^$|^[0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]$")
    vbios: str = "96.00.89.00.01"
    brand: int = 14
    architecture: int = 9
    compute_major: int = 9
    compute_minor: int = 0
    pci_device_id: int = 0x233010DE
    pci_subsystem_id: int = 0x16C110DE

    memory_total: Signal = _constant(81559 * 1024**2)
    memory_used: Signal = _constant(60 * 1024**3)
    memory_reserved: Signal = _constant(560 * 1024**2)
    bar1_total: Signal = _constant(128 * 1024**3)
    bar1_used: Signal = _constant(8 * 1024**2)

    gpu_utilization: Percent = _constant(70)
    memory_utilization: Percent = _constant(40)
    encoder_utilization: Percent = _constant(0)
    decoder_utilization: Percent = _constant(0)
    jpeg_utilization: Percent = _constant(0)
    ofa_utilization: Percent = _constant(0)

    graphics_clock: Signal = _constant(1755)
    sm_clock: Signal = _constant(1755)
    memory_clock: Signal = _constant(2619)
    video_clock: Signal = _constant(1305)
    max_graphics_clock: Signal = _constant(1980)
    max_sm_clock: Signal = _constant(1980)
    max_memory_clock: Signal = _constant(2619)
    max_video_clock: Signal = _constant(1545)

    reason_gpu_idle: Signal = _constant(0)
    """Clock event reasons: 1 while one holds. Throttle times are the time for which they held."""
    reason_applications_clocks: Signal = _constant(0)
    reason_sw_power_cap: Signal = _constant(0)
    reason_hw_slowdown: Signal = _constant(0)
    reason_sync_boost: Signal = _constant(0)
    reason_sw_thermal: Signal = _constant(0)
    reason_hw_thermal: Signal = _constant(0)
    reason_hw_power_brake: Signal = _constant(0)
    reason_display: Signal = _constant(0)

    temperature: Signal = _constant(52)
    temperature_memory: Signal = _constant(61)
    temperature_shutdown: Signal = _constant(95)
    temperature_slowdown: Signal = _constant(92)
    temperature_memory_max: Signal = _constant(95)
    temperature_gpu_max: Signal = _constant(87)

    power: Signal = _constant(420)
    power_limit: Signal = _constant(700)
    power_limit_default: Signal = _constant(700)
    power_limit_min: Signal = _constant(200)
    power_limit_max: Signal = _constant(700)
    module_power: Signal = None
    energy: Signal = _constant(0)
    """What the counter stands at when the scenario starts; it then integrates `power`."""

    fans: int = 0
    fan_speed: Signal = None
    performance_state: Signal = _constant(0)
    persistence_mode: Signal = _constant(1)
    compute_mode: Signal = _constant(0)
    virtualization_mode: Signal = _constant(0)

    ecc_mode: Signal = _constant(1)
    ecc_dram_corrected_volatile: Signal = _constant(0)
    ecc_dram_corrected_aggregate: Signal = _constant(0)
    ecc_dram_uncorrected_volatile: Signal = _constant(0)
    ecc_dram_uncorrected_aggregate: Signal = _constant(0)
    ecc_sram_corrected_volatile: Signal = _constant(0)
    ecc_sram_corrected_aggregate: Signal = _constant(0)
    ecc_sram_uncorrected_volatile: Signal = _constant(0)
    ecc_sram_uncorrected_aggregate: Signal = _constant(0)
    remapped_rows_correctable: Signal = _constant(0)
    remapped_rows_uncorrectable: Signal = _constant(0)
    remapped_rows_pending: Signal = _constant(0)
    remapped_rows_failure: Signal = _constant(0)
    recovery_action: Signal = _constant(0)

    pcie_tx_rate: Signal = _constant(200e6)
    """Bytes a second; the byte counters integrate the rates."""
    pcie_rx_rate: Signal = _constant(300e6)
    pcie_tx_bytes: Signal = _constant(0)
    pcie_rx_bytes: Signal = _constant(0)
    pcie_replays: Signal = _constant(0)
    pcie_correctable_errors: Signal = _constant(0)
    pcie_fatal_errors: Signal = _constant(0)
    pcie_generation: Signal = _constant(5)
    pcie_width: Signal = _constant(16)
    pcie_max_generation: Signal = _constant(5)
    pcie_max_width: Signal = _constant(16)

    nvlinks: int = Field(default=18, ge=0, le=18)
    nvlink_tx_rate: Signal = _constant(1e9)
    """Bytes a second over all links."""
    nvlink_rx_rate: Signal = _constant(1e9)
    nvlink_errors: Signal = _constant(0)
    fabric_state: Signal = None
    c2c: Signal = None
    mma_stall: Percent = _constant(0)

    gpm: bool = True
    sample_period: float = Field(default=1 / 6, ge=0.01)
    """Seconds between utilisation samples."""
    power_sample_period: float = Field(default=0.1, ge=0.01)
    sample_buffer: int = Field(default=120, ge=1, le=256)
    """Samples of one type that the driver keeps."""

    mig_mode: Signal = _constant(0)
    mig: list[MigDevice] = Field(default_factory=list, max_length=MAX_MIG_DEVICES)
    processes: list[Process] = Field(default_factory=list)

    lost: bool = False
    """The GPU has fallen off the bus: every call says GPU_IS_LOST."""
    hang: bool | list[Call] = False
    """Calls that do not return until the scenario says otherwise; true: all."""
    errors: dict[Call, Error] = Field(default_factory=dict)


class Event(Model):
    """Something the driver reports once to every event set that listens."""

    gpu: int = Field(ge=0)
    type: Annotated[int, _named(EVENT_TYPES)] = EVENT_TYPES["xid"]
    data: int = Field(default=0, ge=0, alias="xid")
    """The XID code, or what the type says: a recovery action, for example."""
    id: int = Field(default=0, ge=0)
    """Rising; one more than the event before if left out. Events with a new id are news."""
    gpu_instance: int = _NO_INSTANCE
    compute_instance: int = _NO_INSTANCE

    model_config = ConfigDict(validate_by_name=True)
