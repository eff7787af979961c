"""Tables: values that belong together in one row, joined by Grafana's transformations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeValueMode,
    TableBarGaugeCellOptions,
    TableCellBackgroundDisplayMode,
    TableColoredBackgroundCellOptions,
    TableColorTextCellOptions,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    ValueMapping,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from palegreen.dashboards.looks import NONE, Steps, steps
from palegreen.dashboards.panels import Head, Query, bounds, finished, target


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        field: a label, or the letter of the query whose value it is.
        title: at its head.
        unit: of a value.
        mappings: words and colours for values.
        steps: colours from values on.
        link: where a click leads.
        bar: whether a value is drawn as a bar from 0 to 1.
        fill: whether colours are behind the text.
        decimals: of a value.
        width: in pixels.
    """

    field: str
    title: str
    unit: str = ""
    mappings: Sequence[ValueMapping] = ()
    steps: Steps | None = None
    link: str = ""
    bar: bool = False
    fill: bool = False
    decimals: int | None = None
    width: int = 0


def rows(head: Head, columns: Sequence[Column], *queries: Query, sort: tuple[str, bool]) -> Panel:
    """Present values: one row for each set of labels that the queries share. `sort`: title, and whether descending."""
    panel = (
        table.Panel()
        .unit(NONE)
        .thresholds(bounds(steps()))
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .filterable(True)
        .show_header(True)
        .sort_by([common.TableSortByFieldState().display_name(sort[0]).desc(sort[1])])
        .transformations(_joined(columns, len(queries)))
    )
    for column in columns:
        if properties := _properties(column):
            panel = panel.override_by_name(column.title, properties)
    targets = [target(query, at, instant=True).format(PromQueryFormat.TABLE) for at, query in enumerate(queries)]
    return finished(panel, head, targets)


def matrix(head: Head, query: Query, row: str, column: str, value: str, mappings: Sequence[ValueMapping]) -> Panel:
    """One label by another, the value of a third in each cell."""
    layout = {"columnField": column, "rowField": row, "valueField": value, "emptyValue": "null"}
    panel = (
        table.Panel()
        .unit(NONE)
        .thresholds(bounds(steps(base="text")))
        .mappings(list(mappings))
        .cell_options(TableColorTextCellOptions())
        .filterable(True)
        .show_header(True)
        .transformations([DataTransformerConfig(id_val="groupingToMatrix", options=layout)])
    )
    return finished(panel, head, [target(query, 0, instant=True).format(PromQueryFormat.TABLE)])


def _joined(columns: Sequence[Column], queries: int) -> list[DataTransformerConfig]:
    """Queries side by side, then the columns that are wanted, in their order and under their titles."""
    names = [_source(column, queries) for column in columns]
    found = [DataTransformerConfig(id_val="merge", options={})] if queries > 1 else []
    kept = DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": names}})
    ordered = DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {},
            "indexByName": {name: at for at, name in enumerate(names)},
            "renameByName": {name: column.title for name, column in zip(names, columns, strict=True)},
        },
    )
    return [*found, kept, ordered]


def _source(column: Column, queries: int) -> str:
    """The name of a column's field once the queries are joined; of a single query the value has no letter."""
    if len(column.field) > 1:
        return column.field
    return f"Value #{column.field}" if queries > 1 else "Value"


def _properties(column: Column) -> list[DynamicConfigValue]:
    found: dict[str, object] = {}
    if column.unit:
        found["unit"] = column.unit
    if column.decimals is not None:
        found["decimals"] = column.decimals
    if column.mappings:
        found["mappings"] = list(column.mappings)
    if column.steps:
        found["thresholds"] = bounds(column.steps).build()
    if column.bar:
        found |= {"min": 0, "max": 1}
        found["custom.cellOptions"] = TableBarGaugeCellOptions(
            mode=BarGaugeDisplayMode.BASIC, value_display_mode=BarGaugeValueMode.TEXT
        )
    elif column.fill:
        found["custom.cellOptions"] = TableColoredBackgroundCellOptions(mode=TableCellBackgroundDisplayMode.BASIC)
    elif column.mappings or column.steps:
        found["custom.cellOptions"] = TableColorTextCellOptions()
    if column.width:
        found["custom.width"] = column.width
    if column.link:
        found["links"] = [{"title": f"Open: {column.title}", "url": column.link}]
    return [DynamicConfigValue(id_val=name, value=value) for name, value in found.items()]
