"""The variables at the head of each board."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import (
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from palegreen.dashboards.select import CLUSTER, NODE

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
ALL = VariableOption(selected=True, text="All", value="$__all")

Variable = Builder[VariableModel]


def datasource() -> Variable:
    """Which Prometheus, Mimir or Thanos."""
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def of(name: str, label: str, metric: str, selector: str = "", *, one: bool = False, hidden: bool = False) -> Variable:
    """The values of a label; several can be chosen, and all of them are at first, unless it is to be `one`."""
    query = f"label_values({metric}{{{selector}}}, {name})" if selector else f"label_values({metric}, {name})"
    found = (
        builders.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if hidden:
        found = found.hide(VariableHide.HIDE_VARIABLE)
    if not one:
        found = found.multi(True).include_all(True).all_value(".*").current(ALL)
    return found


def replicas(metric: str = "palegreen:replica") -> list[Variable]:
    """What chooses replicas, the wider first."""
    chosen = CLUSTER
    found = [datasource(), of("cluster", "Cluster", "palegreen_build_info")]
    for name, label in (
        ("namespace", "Namespace"),
        ("model", "Model"),
        ("endpoint", "Endpoint"),
        ("instance_id", "Replica"),
    ):
        found.append(of(name, label, metric, chosen))
        chosen += f', {name}=~"${name}"'
    return found


def gpus() -> list[Variable]:
    """What chooses nodes and their GPUs."""
    return [*nodes("palegreen_gpu_up"), of("uuid", "GPU", "palegreen_gpu_up", NODE)]


def nodes(metric: str) -> list[Variable]:
    """What chooses nodes."""
    return [datasource(), of("cluster", "Cluster", "palegreen_build_info"), of("node", "Node", metric, CLUSTER)]
