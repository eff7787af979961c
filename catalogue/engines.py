"""Engine mappings: the schema of `engine-mappings/*.yaml`, one file an engine, and its loader.

To teach Palegreen an engine, add one file; docs/engines.md explains the fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from palegreen.catalogue.metrics import metrics

Quality = Literal["native", "derived", "proxy", "absent"]
Fold = Literal["sum", "max", "min"]
_QUALITIES: tuple[Quality, ...] = ("native", "derived", "proxy", "absent")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _constraint(value: str) -> str:
    if not re.fullmatch(r"(>=|<=|>|<)\d+(\.\d+)*( *, *(>=|<=|>|<)\d+(\.\d+)*)*", value):
        raise ValueError(f"got {value!r}; allowed: comparisons such as '>=0.9,<0.12'")
    return value


Strings = Annotated[list[str], BeforeValidator(_as_list)]


class Strict(BaseModel):
    """Base of the mapping's models: unknown keys are refused, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class LabelSource(Strict):
    """Value of a canonical label, read from one native label.

    `map` holds shell patterns in order, the first that matches wins and a value that none matches drops the row;
    without `map` the value passes through. `split` makes one row of each part, but for parts that the label
    `unless_in` lists too.
    """

    label: str
    map: dict[str, str] | None = None
    split: str | None = None
    unless_in: str | None = None
    default: str = ""


class Operand(Strict):
    """Which native rows are meant: a sample name (or a histogram's family name) and label conditions.

    In `where`, an empty string stands for an absent label; a leading `!` excludes. `value_label` takes the number
    from a label of an info metric; a label that holds no number gives no row.
    """

    source: str = Field(alias="from")
    where: dict[str, Strings] = {}
    value_label: str | None = None


class Rule(Operand):
    """How native rows become rows of one canonical metric.

    `scale` is a factor; `times`, `over` and `minus` take a second row, the one that agrees on every label both carry.
    `fold` joins what is left of one engine (data-parallel ranks, native labels that are not asked for). `latest`
    keeps the row of the highest value only; `value` replaces the number. `versions` limits the rule to engines that
    say they are of such a version. A `shared` row counts for the whole server, so that it needs no model where there
    are several. `unless` names a source that makes the rule void when it is on the page.
    """

    labels: dict[str, str | LabelSource] = {}
    scale: float = 1.0
    times: Operand | None = None
    over: Operand | None = None
    minus: Operand | None = None
    fold: Fold = "sum"
    latest: bool = False
    value: float | None = None
    versions: Annotated[str, AfterValidator(_constraint)] | None = None
    shared: bool = False
    unless: str | None = None
    quality: Literal["native", "derived", "proxy"] = "native"


class Union(Strict):
    """Rules whose rows are all taken."""

    union: list[Rule]


class MetricRules(Strict):
    """Rules of one canonical metric: `first` takes the first alternative that gives rows, `union` takes all."""

    first: list[Rule | Union] = []
    union: list[Rule] = []

    @model_validator(mode="after")
    def _one_of(self) -> MetricRules:
        if bool(self.first) == bool(self.union):
            raise ValueError("exactly one of `first` and `union` must be given")
        return self

    def alternatives(self) -> Iterator[list[Rule]]:
        """Lists of rules in order of preference."""
        if self.union:
            yield self.union
        for alternative in self.first:
            yield alternative.union if isinstance(alternative, Union) else [alternative]


class Rename(Strict):
    """A regular expression and its replacement, applied to native sample names before anything else."""

    match: str
    to: str

    @model_validator(mode="after")
    def _compiles(self) -> Rename:
        try:
            re.compile(f"(?:{self.match})?").sub(self.to, "")  # an optional match always tries the replacement
        except (re.error, IndexError) as failure:
            raise ValueError(f"{self.match!r} -> {self.to!r} is no replacement: {failure}") from None
        return self


class Recognise(Strict):
    """Which rows of a page belong to the engine, by their native names and by labels they must or must not carry."""

    prefixes: list[str] = []
    names: list[str] = []
    with_labels: list[str] = []
    without_labels: list[str] = []


class Ranks(Strict):
    """Labels that tell apart the processes of one engine.

    `copies` repeat the same requests (tensor, pipeline, expert, context parallel ranks): the lowest is kept for each
    of `parts` (data-parallel ranks), which are folded. Of `restarts` (process ids) the highest is kept, since
    multi-process client libraries keep the files of dead ones.
    """

    parts: list[str] = []
    copies: list[str] = []
    restarts: list[str] = []


class Identity(Strict):
    """Native labels that name the model, and the process where several share one port; the first in use counts."""

    model: list[str] = []
    instance: list[str] = []


class Fact(Strict):
    """A fact from the engine's HTTP API: the path to GET and the keys down to the value."""

    path: str
    keys: list[str | int]


class JsonPage(Strict):
    """A JSON status page read as if it were metrics: one row per item and entry of `samples`."""

    items: str
    labels: dict[str, str]
    samples: dict[str, str]


class Engine(Strict):
    """One inference engine, or a wrapper around others.

    A wrapper `yields` to engines on the same page: of what they give, it gives no `metric`, or none for their `model`.
    Where `starting` stands in what its page refuses with, the engine is loading its model.
    A sample named in `not_a_number` is known to be NaN at times and is absent then; any other NaN spoils the page.
    """

    engine: str
    title: str
    about: str = ""
    path: str = "/metrics"
    path_first: bool = False
    json_page: JsonPage | None = None
    recognise: Recognise
    rename: list[Rename] = []
    inherit: list[str] = []
    yields: Literal["metric", "model"] | None = None
    identity: Identity = Identity()
    ranks: Ranks = Ranks()
    not_a_number: list[str] = []
    starting: str = ""
    facts: dict[Literal["version", "model"], list[Fact]] = {}
    metrics: dict[str, MetricRules] = {}

    @model_validator(mode="after")
    def _declared(self) -> Engine:
        for name, rules in self.metrics.items():
            metric = metrics().get(name)
            if metric is None or not metric.canonical:
                raise ValueError(f"{name} is not a canonical metric of catalogue/metrics.yaml")
            own = set(metric.labels) - _COMMON_LABELS
            for rule in (rule for alternative in rules.alternatives() for rule in alternative):
                if set(rule.labels) != own:
                    raise ValueError(f"{name}: labels must be {sorted(own)}, not {sorted(rule.labels)}")
        return self

    def best_quality(self, metric: str) -> str:
        """Best quality any rule gives the canonical metric; empty where there is no rule."""
        rules = self.metrics.get(metric)
        if rules is None:
            return ""
        return min((r.quality for a in rules.alternatives() for r in a), key=_QUALITIES.index)

    def sources(self) -> Iterator[str]:
        """Native names (after renaming) that the rules read."""
        for rules in self.metrics.values():
            for rule in (rule for alternative in rules.alternatives() for rule in alternative):
                for operand in (rule, rule.times, rule.over, rule.minus):
                    if operand is not None:
                        yield operand.source
                if rule.unless is not None:
                    yield rule.unless


_COMMON_LABELS = {"model", "endpoint", "engine", "instance_id", "namespace", "pod"}


@cache
def engines() -> tuple[Engine, ...]:
    """Every shipped mapping, by name of the engine, with what it inherits filled in."""
    folder = resources.files(__package__).joinpath("engine-mappings")
    texts = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return resolve([Engine.model_validate(yaml.safe_load(f.read_text(encoding="utf-8"))) for f in texts])


def resolve(listed: list[Engine]) -> tuple[Engine, ...]:
    """Fill in inherited rules; a later mapping of the same engine replaces an earlier one.

    Raises ValueError for an unknown name in `inherit`.
    """
    by_name = {engine.engine: engine for engine in listed}
    return tuple(_with_inherited(engine, by_name) for engine in by_name.values())


def _with_inherited(engine: Engine, by_name: dict[str, Engine]) -> Engine:
    rules: dict[str, MetricRules] = {}
    ranks = engine.ranks
    for name in engine.inherit:
        if name not in by_name:
            raise ValueError(f"{engine.engine}: inherits from unknown engine {name}")
        parent = by_name[name]
        for metric, inherited in parent.metrics.items():
            earlier = rules[metric].alternatives() if metric in rules else ()
            rules[metric] = MetricRules(first=[Union(union=u) for u in (*earlier, *inherited.alternatives())])
        ranks = Ranks(
            parts=[*ranks.parts, *parent.ranks.parts],
            copies=[*ranks.copies, *parent.ranks.copies],
            restarts=[*ranks.restarts, *parent.ranks.restarts],
        )
    return engine.model_copy(update={"metrics": rules | engine.metrics, "ranks": ranks})
