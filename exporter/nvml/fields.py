"""Field values (nvmlDeviceGetFieldValues): many numbers in one call into an array that is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pynvml as nvml

from palegreen.exporter.nvml.binding import ASK_AGAIN, entry_point, succeeded, will_not_answer
from palegreen.exporter.nvml.samples import member

Field = tuple[int, int]  # id (NVML_FI_DEV_*) and scope: a link's number, else 0


class Fields:
    """A fixed set of fields of one GPU; those that it does not support are left out of the array for a while.

    `narrow` holds the fields that came as 32 bits at the last reading.
    """

    def __init__(self, handle: Any, wanted: Sequence[Field], clock: Callable[[], float] = time.monotonic) -> None:
        self._function = entry_point("nvmlDeviceGetFieldValues")
        self._handle = handle
        self._wanted = wanted
        self._clock = clock
        self._array: Any = None
        self.narrow: set[Field] = set()
        self._ask_all_at = 0.0

    def read(self) -> dict[Field, float]:
        """Value by field, of those that were answered. Raises GpuGoneError."""
        if self._function is None or not self._wanted:
            return {}
        if self._clock() >= self._ask_all_at:
            self._array, self._ask_all_at = self._prepared(self._wanted), self._clock() + ASK_AGAIN
        if not len(self._array) or not succeeded(self._function(self._handle, len(self._array), self._array)):
            return {}
        values: dict[Field, float] = {}
        self.narrow.clear()
        refused: set[Field] = set()
        for item in self._array:
            field = (item.fieldId, item.scopeId)
            if item.nvmlReturn == nvml.NVML_SUCCESS:
                name = member(item.valueType)
                if name is None:
                    continue
                values[field] = float(getattr(item.value, name))
                if name == "uiVal":
                    self.narrow.add(field)
            elif will_not_answer(item.nvmlReturn):
                refused.add(field)
        if refused:
            asked = [(item.fieldId, item.scopeId) for item in self._array]
            self._array = self._prepared([field for field in asked if field not in refused])
        return values

    def _prepared(self, fields: Sequence[Field]) -> Any:
        array = (nvml.c_nvmlFieldValue_t * len(fields))()
        for item, (identifier, scope) in zip(array, fields, strict=True):
            item.fieldId, item.scopeId = identifier, scope
        return array
