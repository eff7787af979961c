"""What is added up about one GPU while the daemon runs; it outlives the GPU's absences."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pynvml as nvml

from palegreen.exporter.nvml.integral import Integral, TrailingMinute
from palegreen.exporter.peak import Peak

# nvml.h nvmlClocksEventReason*; idle, application clocks and none hold nothing down.
THROTTLES = (
    ("sw_power_cap", nvml.nvmlClocksEventReasonSwPowerCap),
    ("hw_slowdown", nvml.nvmlClocksEventReasonHwSlowdown),
    ("sync_boost", nvml.nvmlClocksEventReasonSyncBoost),
    ("sw_thermal", nvml.nvmlClocksEventReasonSwThermalSlowdown),
    ("hw_thermal", nvml.nvmlClocksEventReasonHwThermalSlowdown),
    ("hw_power_brake", nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown),
    ("display_clock", nvml.nvmlClocksEventReasonDisplayClockSetting),
)
_LONGEST = 5.0  # seconds between two looks at the reasons; a longer time counts for none


class Throttled:
    """Seconds in which a throttle reason was seen at both ends of the time between two looks."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((reason for reason, _ in THROTTLES), 0.0)
        self.mask = 0
        self.known = False
        self._at: float | None = None

    def observe(self, now: float, mask: int) -> None:
        """Add the time since the last look; `now` in seconds."""
        elapsed = now - self._at if self._at is not None else 0.0
        both = mask & self.mask
        if both and elapsed <= _LONGEST:
            for reason, bit in THROTTLES:
                if both & bit:
                    self.seconds[reason] += elapsed
        self._at, self.mask, self.known = now, mask, True


@dataclass(slots=True)
class Activity:
    """One metric of GPM, added up; `at` is when it was read last, in monotonic seconds."""

    total: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class Totals:
    """Integrals, extremes and peaks of one GPU. `activity` and `peaks` are by MIG device, "" for the whole GPU.

    `counted` names what the driver has counted itself at any time: what we add up instead never takes its place, since
    a counter that changes its source looks like one that was reset.
    """

    busy: Integral = field(default_factory=Integral)
    minute: TrailingMinute = field(default_factory=TrailingMinute)
    power: Integral = field(default_factory=Integral)
    throttled: Throttled = field(default_factory=Throttled)
    activity: dict[str, dict[int, Activity]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Activity)))
    peaks: dict[str, Peak] = field(default_factory=lambda: defaultdict(Peak))
    clock_low: float = 0.0
    counted: set[str] = field(default_factory=set)
    losses: dict[str, int] = field(default_factory=lambda: {"lost": 0, "hung": 0})

    def keep_devices(self, present: set[str]) -> None:
        """Forget MIG devices that are gone; instances that are made anew have new UUIDs."""
        for by_device in (self.activity, self.peaks):
            for gone in by_device.keys() - present - {""}:
                del by_device[gone]
