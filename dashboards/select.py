"""Label selectors: which series a board shows, as its variables say.

A variable at *All* is `.*`, which also matches series without the label: a Prometheus of one cluster, a replica that is
in no namespace, a target without a node. A chosen cluster brings series without that label along: where it is a label
of targets, recorded series lack it.
"""

from __future__ import annotations

from palegreen.dashboards.looks import SEVERITIES

CLUSTER = 'cluster=~"$cluster|"'
MODEL = f'{CLUSTER}, namespace=~"$namespace", model=~"$model", endpoint=~"$endpoint"'
"""Of all replicas of a model."""
REPLICA = f'{MODEL}, instance_id=~"$instance_id"'
TAP = f'{CLUSTER}, namespace=~"$namespace", endpoint=~"$endpoint", instance_id=~"$instance_id"'
"""Of an evaluator before it knows the model."""
CAUSE = f'{CLUSTER}, namespace=~"$namespace|", model=~"$model|", endpoint=~"$endpoint|", instance_id=~"$instance_id|"'
"""Causes of what is chosen, and those of nodes, which carry no model."""
NODE = f'{CLUSTER}, node=~"$node"'
GPU = f'{NODE}, uuid=~"$uuid"'
WHOLE_GPU = f'{GPU}, mig=""'

RATE = "[$__rate_interval]"


def per_second(metric: str, selector: str, by: str = "") -> str:
    """Rate of a counter, added up by these labels if there are any."""
    rate = f"rate({metric}{{{selector}}}{RATE})"
    return f"sum by ({by}) ({rate})" if by else rate


def gravity(selector: str, by: str) -> str:
    """Of each active cause the rank of its severity, the gravest 0."""
    ranked = (
        f'{rank} + 0 * palegreen:cause_active{{severity="{severity}", {selector}}}'
        for rank, severity in enumerate(SEVERITIES)
    )
    return f"min by ({by}) ({' or '.join(ranked)})"


def quantile(level: float, metric: str, selector: str, by: str) -> str:
    """A quantile of a histogram; `by` has to tell apart what has buckets of its own."""
    return f"histogram_quantile({level}, {per_second(f'{metric}_bucket', selector, f'le, {by}')})"


def ratio(part: str, whole: str) -> str:
    """A share, absent where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"
