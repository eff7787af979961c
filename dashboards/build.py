"""The boards as files: what is committed in `generated/` and written by `palegreen dashboards build`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from palegreen.dashboards.boards import gpu, model, overview, quality, self_

BOARDS = (overview, model, gpu, quality, self_)


def build() -> Mapping[str, bytes]:
    """Each board's JSON by its uid; the same bytes at every call."""
    return MappingProxyType({board.UID: _bytes(board.dashboard()) for board in BOARDS})


def _bytes(dashboard: object) -> bytes:
    plain: dict[str, Any] = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    # Newer than Grafana 10.4; where it is known, it would hide links and annotations in a menu.
    for shown in (*plain["links"], *plain["annotations"]["list"]):
        shown.pop("placement", None)
    return (json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
