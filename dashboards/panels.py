"""Panels: what each kind looks like, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, common, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    AxisPlacement,
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    HeatmapCellLayout,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    Panel,
    ThresholdsMode,
    ValueMapping,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from palegreen.dashboards.looks import NONE, Steps, steps
from palegreen.dashboards.variables import DATASOURCE


@dataclass(frozen=True, slots=True)
class Query:
    """One expression; `legend` names its series, by labels in double braces."""

    expr: str
    legend: str = ""
    exemplar: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """What every panel says of itself.

    Attributes:
        number: its id, never used for another panel of the board again.
        title: of a few words.
        about: what it shows, and when to worry.
        width: of 24 columns.
    """

    number: int
    title: str
    about: str
    width: int


def series(
    head: Head,
    unit: str,
    *queries: Query,
    line: Steps | None = None,
    stacked: bool = False,
    top: float | None = None,
    bottom: float | None = 0,
    log: bool = False,
    decimals: int | None = None,
) -> Panel:
    """Values over time. `line` draws thresholds, `top` and `bottom` hold the axis."""
    panel = (
        timeseries.Panel()
        .unit(unit)
        .line_width(1)
        .fill_opacity(60 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .span_nulls(False)
        .draw_style(GraphDrawStyle.LINE)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .thresholds(bounds(line or steps()))
    )
    if line:
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if top is not None:
        panel = panel.max(top)
    if bottom is not None and not log:
        panel = panel.min(bottom)
    if log:
        panel = panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
    if decimals is not None:
        panel = panel.decimals(decimals)
    return finished(panel, head, [target(query, at) for at, query in enumerate(queries)])


def stats(
    head: Head,
    unit: str,
    *queries: Query,
    colors: Steps,
    mappings: Sequence[ValueMapping] = (),
    graph: bool = False,
    by_name: Mapping[str, Steps] | None = None,
) -> Panel:
    """Single values, each with its name; `by_name` gives some of them colours of their own."""
    panel = (
        stat.Panel()
        .unit(unit)
        .thresholds(bounds(colors))
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.AREA if graph else BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .mappings(list(mappings))
        .no_value("none")
    )
    for name, own in (by_name or {}).items():
        panel = panel.override_by_name(
            name, [DynamicConfigValue(id_val="thresholds", value={"mode": "absolute", "steps": own})]
        )
    return finished(panel, head, [target(query, at, instant=not graph) for at, query in enumerate(queries)])


def bars(head: Head, unit: str, *queries: Query, colors: Steps, top: float | None = None) -> Panel:
    """Present values beside each other, as bars."""
    panel = (
        bargauge.Panel()
        .unit(unit)
        .min(0)
        .thresholds(bounds(colors))
        .display_mode(BarGaugeDisplayMode.BASIC)
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .show_unfilled(True)
    )
    if top is not None:
        panel = panel.max(top)
    return finished(panel, head, [target(query, at, instant=True) for at, query in enumerate(queries)])


def timeline(head: Head, *queries: Query, mappings: Sequence[ValueMapping]) -> Panel:
    """States over time, one row a series; `mappings` say what a number means."""
    panel = (
        statetimeline.Panel()
        .unit(NONE)
        .mappings(list(mappings))
        .thresholds(bounds(steps()))
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .merge_values(True)
        .show_value(VisibilityMode.AUTO)
        .row_height(0.85)
        .line_width(0)
        .fill_opacity(80)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE))
    )
    return finished(panel, head, [target(query, at) for at, query in enumerate(queries)])


def buckets(head: Head, unit: str, query: Query) -> Panel:
    """A histogram over time, in its own buckets."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .fill("dark-orange")
            .scale(HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(AxisPlacement.LEFT).reverse(False))
        .cell_values(heatmap.CellValues().unit("cps"))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(HeatmapCellLayout.LE))
        .show_value(VisibilityMode.NEVER)
        .cell_gap(1)
        .tooltip(heatmap.HeatmapTooltip().mode(TooltipDisplayMode.SINGLE).y_histogram(True))
        .show_legend()
        .unit(unit)
    )
    return finished(panel, head, [target(query, 0).format(PromQueryFormat.HEATMAP)])


def finished(panel: Builder[Panel], head: Head, targets: Sequence[Dataquery]) -> Panel:
    """The panel with what it says of itself and what it asks; its place is found by the board."""
    built = panel.build()
    built.id_val, built.title, built.description = head.number, head.title, head.about
    built.datasource = DATASOURCE
    built.grid_pos = GridPos(w=head.width)
    built.targets = [query.build() for query in targets]
    return built


def target(query: Query, at: int, instant: bool = False) -> Dataquery:
    """A query as Grafana has it; its letter is by its place."""
    found = Dataquery().ref_id(chr(ord("A") + at)).expr(query.expr).datasource(DATASOURCE)
    found = found.legend_format(query.legend or "__auto")
    if query.exemplar:
        found = found.exemplar(True)
    return found.instant() if instant else found.range()


def bounds(levels: Steps) -> ThresholdsConfig:
    """Values from which on a colour holds."""
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(levels)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
