"""`palegreen demo --script`: a clean run, then fault after fault, and a table of who was told what, and when."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from palegreen.demo.ending import Ending
from palegreen.demo.faults import FAULTS, Fault
from palegreen.demo.injecting import Faults
from palegreen.demo.outcome import Outcome, judged, replicas_of, table
from palegreen.demo.pager import Incident, Incidents
from palegreen.demo.replica import Replica
from palegreen.demo.screen import say
from palegreen.demo.stage import Stage

CLEAN = 40.0
"""Seconds of the clean run for each fault; it goes on in the end for as long as faults were there longer."""
PATIENCE = 180.0
"""Seconds until a fault must have been told."""
_HOLD = 15.0  # seconds that a fault goes on after it was told, so that whatever else is told of it comes
_OVER = 300.0  # seconds until it must be over once the fault is
_LASTING = 3  # faults back that an incident may come of
_PROGRESS = 20.0  # seconds between lines that say how far it is


@dataclass(slots=True)
class Played:
    """A fault of a replica that was `asked` for and there from `began` to `ended`, on the pager's clock."""

    name: str
    fault: Fault
    number: int
    asked: float
    began: float
    ended: float = 0.0
    samples: int | None = None

    def fits(self, incident: Incident, named: Set[int]) -> bool:
        """Whether its owner is to be told of it under that verdict, and of this replica if any is named."""
        return _way(self.fault) == (incident.owner, incident.verdict) and (not named or self.number in named)


def blamed(incident: Incident, played: Sequence[Played], numbers: Mapping[str, int]) -> Played | None:
    """Which fault an incident came of: the last that fits, as the one before may not be over yet; else the last of a
    replica that is named; else the last. None before the first."""
    named = replicas_of(incident, numbers)
    before = [each for each in played if each.asked <= incident.opened][-_LASTING:][::-1]
    fitting = [each for each in before if each.fits(incident, named)]
    return next(iter([*fitting, *(each for each in before if each.number in named), *before]), None)


def order(names: Sequence[str], replicas: int) -> list[tuple[str, int]]:
    """Which fault comes on which replica (from 0): two of a verdict not on one, as its evidence lasts, nor two that
    follow each other, as one may silence the other."""
    found: list[tuple[str, int]] = []
    so_far: Counter[str] = Counter()
    for name in names:
        verdict = _way(FAULTS[name])[1]
        found.append((name, (replicas - 1 - so_far[verdict] - 2 * (verdict == "slow")) % replicas))
        so_far[verdict] += 1
    return found


def play(names: Sequence[str], stage: Stage, faults: Faults, incidents: Incidents, asked: Ending) -> bool:
    """Play it and print the table; whether each fault was told once, to the right owner, and the clean run never."""
    script = _Script(stage, faults, incidents, asked)
    clean = CLEAN * len(names)
    say(f"script   {clean:.0f} s without a fault, then {', '.join(names)}")
    script.wait(f"without a fault, for {clean:.0f} s", clean, lambda: False)
    quiet = incidents.told()
    for at, (name, which) in enumerate(order(names, len(stage.replicas)), 1):
        script.suffer(f"{at} of {len(names)}: {name}", name, stage.replicas[which])
    script.wait("until all is over", _OVER, lambda: not script.pending())
    before, there = len(incidents.told()), sum(played.ended - played.began for played in script.played)
    if there > clean:
        script.wait(f"without a fault, for {there - clean:.0f} s more", there - clean, lambda: False)
        clean = there
    # Tickets may come late of what was: a baseline from before the last deployment, a replica that was restarted.
    quiet += [incident for incident in incidents.told()[before:] if incident.severity == "critical"]
    outcomes = script.outcomes(incidents.told(), quiet)
    say("")
    for line in table(outcomes, clean, quiet):
        say(line)
    return not quiet and not any(outcome.problem for outcome in outcomes)


class _Script:
    def __init__(self, stage: Stage, faults: Faults, incidents: Incidents, asked: Ending) -> None:
        self.played: list[Played] = []
        self._stage, self._faults, self._incidents, self._asked = stage, faults, incidents, asked

    def suffer(self, title: str, name: str, replica: Replica) -> None:
        """Bring a fault about, wait until somebody is told, and end it."""
        fault = FAULTS[name]
        if self._in_the_way(fault):
            self.wait(
                f"before {title}: until what {_told(fault)} was told before is over",
                _OVER,
                lambda: not self._in_the_way(fault),
            )
        asked = self._incidents.clock()
        done, said = self._faults.answer(f"{name} {replica.number}")
        say(f"script   {title}: {said}")
        played = Played(name, fault, replica.number, asked, self._incidents.clock())
        self.played.append(played)
        if done and self.wait(f"{title}: until {_told(fault)} is told", PATIENCE, lambda: self._of(played)):
            played.samples = replica.quality.since()
            self.wait(title, _HOLD, lambda: False)
        _, said = self._faults.answer(f"none {replica.number}")
        if fault.expected and fault.expected.verdict == "weird":
            replica.forget()
        played.ended = self._incidents.clock()
        say(f"script   {title} is over: {said}")

    def wait(self, what: str, seconds: float, done: Callable[[], object]) -> bool:
        """Wait for something, for so many seconds at most, and show how it goes; whether it came."""
        begun = shown = time.monotonic()
        while time.monotonic() - begun < seconds:
            self._asked.check()
            for line in self._incidents.news():
                say(line)
            for replica in self._stage.replicas:
                for line in replica.quality.alarms():
                    say(f"{replica.number} {line}")
            if done():
                return True
            if time.monotonic() - shown >= _PROGRESS:
                shown = time.monotonic()
                pages = len(self._incidents.told())
                say(f"script   {what}: {shown - begun:.0f} s; {pages} told so far, {len(self.open())} not over")
            time.sleep(0.5)
        return False

    def open(self) -> list[Incident]:
        """What is not over."""
        return [incident for incident in self._incidents.told() if incident.closed is None]

    def pending(self) -> list[Incident]:
        """Pages that are not over, and tickets that a fault was to make; others may stay."""
        return [
            incident
            for incident in self.open()
            if incident.severity == "critical" or any(incident in self._of(played) for played in self.played)
        ]

    def outcomes(self, incidents: Sequence[Incident], quiet: Sequence[Incident]) -> list[Outcome]:
        """Each fault with what came of it."""
        mine = [
            (blamed(incident, self.played, self._stage.numbers), incident)
            for incident in incidents
            if incident not in quiet
        ]
        return [
            judged(
                played.name,
                played.fault,
                played.number,
                played.began,
                [incident for whose, incident in mine if whose is played],
                played.samples,
                self._stage.numbers,
            )
            for played in self.played
        ]

    def _of(self, played: Played) -> list[Incident]:
        expected = played.fault.expected
        return [
            incident
            for incident in self._incidents.told()
            if incident.opened >= played.asked
            and expected
            and incident.severity == expected.severity
            and played.fits(incident, replicas_of(incident, self._stage.numbers))
        ]

    def _in_the_way(self, fault: Fault) -> bool:
        """Whether what is told of it would be added to what is not over yet, or silence it, or be silenced by it."""
        expected, before = fault.expected, self.played[-1].fault.expected if self.played else None
        if (expected and expected.alone) or (before and before.alone):
            return any(incident.severity == "critical" for incident in self.open())
        return any(
            (incident.owner, incident.verdict) == _way(fault) and expected and incident.severity == expected.severity
            for incident in self.open()
        )


def _way(fault: Fault) -> tuple[str, str]:
    return (fault.expected.owner, fault.expected.verdict) if fault.expected else ("", "")


def _told(fault: Fault) -> str:
    return fault.expected.owner if fault.expected else ""
