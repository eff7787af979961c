"""A board: rows of panels laid out on Grafana's grid of 24 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    RowPanel,
)

from palegreen.dashboards.variables import Variable

WIDTH = 24
SCHEMA_VERSION = 39  # Grafana 10.4's; later ones migrate it
TAG = "palegreen"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels beside each other, wrapped where they pass 24 columns.

    Attributes:
        panels: in reading order.
        height: of each, in units of the grid.
        title: of the heading above them; none for the first row.
        number: the heading's id.
        repeat: the variable for each of whose values the row is there once.
        collapsed: whether a click opens it.
    """

    panels: Sequence[Panel]
    height: int = 8
    title: str = ""
    number: int = 0
    repeat: str = ""
    collapsed: bool = False


def board(
    uid: str,
    title: str,
    about: str,
    variables: Sequence[Variable],
    annotations: Sequence[builders.AnnotationQuery],
    rows: Sequence[Row],
    since: str = "now-6h",
) -> Dashboard:
    """The whole board; each links to the others and takes time and variables along."""
    link = (
        builders.DashboardLink("Palegreen")
        .type(DashboardLinkType.DASHBOARDS)
        .icon("external link")
        .tooltip("The other boards, at the same time and choice")
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )
    built = (
        builders.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags([TAG])
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("1m")
        .variables(list(variables))
        .annotations(list(annotations))
        .links([link])
        .build()
    )
    built.schema_version = SCHEMA_VERSION
    built.panels = _laid_out(rows)
    return built


def _laid_out(rows: Sequence[Row]) -> list[Panel | RowPanel]:
    found: list[Panel | RowPanel] = []
    top = 0
    for row in rows:
        inside: list[Panel] = []
        heading = None
        if row.title:
            heading = RowPanel(
                id_val=row.number,
                title=row.title,
                collapsed=row.collapsed,
                grid_pos=GridPos(x=0, y=top, w=WIDTH, h=1),
                repeat=row.repeat or None,
                panels=[],
            )
            found.append(heading)
            top += 1
        left = 0
        for panel in row.panels:
            place = panel.grid_pos
            assert place is not None  # noqa: S101 - every builder of ours sets it
            if left + place.w > WIDTH:
                left, top = 0, top + row.height
            place.x, place.y, place.h = left, top, row.height
            left += place.w
            inside.append(panel)
        top += row.height
        if heading is not None and row.collapsed:
            heading.panels = inside
        else:
            found += inside
    return found
