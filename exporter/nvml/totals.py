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
class Totals:
    """Integrals, extremes and peaks of one GPU. `activity` and `peaks` are by MIG device, "" for the whole GPU."""

    busy: Integral = field(default_factory=Integral)
    minute: TrailingMinute = field(default_factory=TrailingMinute)
    power: Integral = field(default_factory=Integral)
    throttled: Throttled = field(default_factory=Throttled)
    activity: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    peaks: dict[str, Peak] = field(default_factory=lambda: defaultdict(Peak))
    clock_low: Integral = field(default_factory=Integral)
    losses: dict[str, int] = field(default_factory=lambda: {"lost": 0, "hung": 0})
