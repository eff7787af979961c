"""What a record is taken to be of where it does not say so itself."""

from __future__ import annotations

from typing import NamedTuple


class Defaults(NamedTuple):
    """Values for samples that carry none: `--model`, `--endpoint` and the label instance_id."""

    model: str = ""
    endpoint: str = ""
    replica: str = ""
