"""What came of a fault: who was told what, when, and whether that was right. Nothing here runs or waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palegreen.demo.faults import Fault
from palegreen.demo.pager import Incident

# Budgets that burn belong to the page of what burns them: they are no cause of their own, and no other incident.
_SYMPTOMS = {"quality_objective", "latency_objective", "availability_objective"}
_HEAD = ("fault", "told after", "samples", "cause named", "told to", "replica", "pages", "tickets", "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of the table. `told` counts pages, or tickets where the fault is to make one; `beside` are tickets that a
    page brought along. `problem` is empty where all is as it should be."""

    fault: str
    seconds: float | None = None
    samples: int | None = None
    causes: tuple[str, ...] = ()
    owner: str = ""
    replica: str = ""
    pages: int = 0
    tickets: int = 0
    beside: tuple[str, ...] = ()
    problem: str = ""


def judged(
    name: str,
    fault: Fault,
    number: int,
    began: float,
    incidents: Sequence[Incident],
    samples: int | None,
    numbers: Mapping[str, int],
) -> Outcome:
    """What the incidents that came of a fault of replica `number` say of it, which began at `began` (pager's clock)."""
    expected = fault.expected
    if expected is None:
        raise ValueError(f"nothing is expected of the fault {name}")
    told = [incident for incident in incidents if incident.severity == expected.severity]
    others = [incident for incident in incidents if incident.severity != expected.severity]
    pages = [incident for incident in incidents if incident.severity == "critical"]
    first = told[0] if told else None
    replicas = sorted({number for incident in told for number in replicas_of(incident, numbers)})
    return Outcome(
        name,
        None if first is None else first.opened - began,
        samples,
        tuple(dict.fromkeys(cause for incident in told for cause in incident.of("cause"))),
        "" if first is None else first.owner,
        ", ".join(map(str, replicas)) if expected.of_replica else "of the node",
        len(pages),
        len(incidents) - len(pages),
        tuple(cause for incident in others if incident not in pages for cause in incident.of("cause")),
        "; ".join(_problems(fault, number, told, pages, replicas)),
    )


def replicas_of(incident: Incident, numbers: Mapping[str, int]) -> set[int]:
    """Which replicas of the demo it names, by instance_id or by the address of their evaluator."""
    named = (*incident.of("instance_id"), *incident.of("instance"))
    return {numbers[name] for name in named if name in numbers}


def _problems(
    fault: Fault, number: int, told: Sequence[Incident], pages: Sequence[Incident], replicas: Sequence[int]
) -> list[str]:
    expected = fault.expected
    if expected is None or not told:
        return ["nobody was told"] + [f"a page of {', '.join(page.of('cause'))}" for page in pages]
    problems = []
    if len(told) > 1:
        problems.append(f"told {len(told)} times")
    if expected.severity != "critical" and pages:
        problems.append(f"a page of {', '.join(pages[0].of('cause'))}")
    wrong = {cause for incident in told for cause in incident.of("cause")} - {*expected.causes, *_SYMPTOMS}
    if wrong:
        problems.append(f"not a cause of it: {', '.join(sorted(wrong))}")
    elif not any(cause in expected.causes for cause in told[0].of("cause")):
        problems.append("nothing but a symptom")
    if {incident.owner for incident in told} != {expected.owner}:
        problems.append(f"not told to {expected.owner}")
    if expected.of_replica and list(replicas) != [number]:
        problems.append(f"it was replica {number}")
    return problems


def table(outcomes: Sequence[Outcome], clean: float, incidents_of_clean: Sequence[Incident]) -> list[str]:
    """The outcomes as a table in Markdown, the clean run of `clean` seconds first."""
    pages = sum(incident.severity == "critical" for incident in incidents_of_clean)
    causes = ", ".join(cause for incident in incidents_of_clean for cause in incident.of("cause"))
    said = "nobody was to be told" if incidents_of_clean else "ok"
    tickets = len(incidents_of_clean) - pages
    rows: list[tuple[str, ...]] = [_HEAD]
    rows.append((f"none, for {clean:.0f} s", "", "", causes, "", "", str(pages), str(tickets), said))
    rows += [_row(outcome) for outcome in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _row(outcome: Outcome) -> tuple[str, ...]:
    beside = f" ({', '.join(outcome.beside)})" if outcome.beside else ""
    return (
        outcome.fault,
        "never" if outcome.seconds is None else f"{outcome.seconds:.0f} s",
        "" if outcome.samples is None else str(outcome.samples),
        ", ".join(outcome.causes),
        outcome.owner,
        outcome.replica,
        str(outcome.pages),
        f"{outcome.tickets}{beside}",
        outcome.problem or "ok",
    )
