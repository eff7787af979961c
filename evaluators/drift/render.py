"""A replay as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from palegreen.evaluators.drift.alarm import Alarm
from palegreen.evaluators.drift.backtest import Raised, Replay

_SIDES = {
    "response": "like questions get other answers",
    "prompt": "users ask something else",
    "both": "users ask something else, and the answers differ beyond that",
}
_OUTCOMES = {
    "watched": "compared",
    "outside": "with a prompt unlike all of the baseline's",
    "unfit": "without an embedding",
    "kept": "kept for a reason",
    "failed": "failed",
    "tools": "tool calls alone",
    "empty": "empty",
}


def lines(of: Replay) -> Iterator[str]:
    """Alarms with their delay and why, and false alarms expected and seen."""
    counted = ", ".join(f"{times} {_OUTCOMES[result]}" for result, times in of.results.items())
    yield f"baseline {of.baseline.id} of {of.baseline.samples} samples"
    yield f"{of.total} samples: {counted}"
    for remark in of.remarks:
        yield f"note: {remark}"
    yield ""
    if not of.alarms:
        yield silence(of)
    for each in of.alarms:
        yield from alarm(each)
    yield ""
    yield from balance(of)


def silence(of: Replay) -> str:
    """What is said where nothing alarmed."""
    return f"no alarm, but only {of.watched} of {of.total} samples were compared" if of.scant else "no alarm"


def alarm(raised: Raised) -> Iterator[str]:
    """One alarm."""
    of = raised.alarm
    named = f" ({of.id})" if of.id else ""
    what = "pages" if of.pages else "informs"
    yield f"{of.channel} alarm, {what}: at sample {of.sample}{named}"
    for name, value in facts(raised):
        yield f"  {name:<9}{value}"


def facts(raised: Raised) -> Iterator[tuple[str, str]]:
    """What there is to say of an alarm, by name."""
    of = raised.alarm
    delay = of.sample - of.since + 1
    yield "since", f"sample {of.since}, by estimate: seen in {delay} sample{'s' if delay > 1 else ''}"
    yield "until", "the end" if raised.released is None else f"sample {raised.released}"
    yield "why", why(of)
    if of.checks:
        yield "checks", ", ".join(of.checks)
    if of.segment:
        yield "segment", of.segment
    if of.replica:
        yield "replica", of.replica
    if of.moved:
        yield "moved", ", ".join(of.moved)


def why(of: Alarm) -> str:
    """What the alarm says, in words."""
    if of.channel == "check":
        return "checks fail more often, or score lower, than in the baseline"
    return _SIDES[of.side]


def balance(of: Replay) -> Iterator[str]:
    """False pages as expected, and all that there were."""
    pages = sum(each.alarm.pages for each in of.alarms)
    line = f"false pages: one in {of.every:.0f} samples is declared, {of.expected:.3g} expected here"
    daily, seen = of.per_day(of.expected), of.per_day(pages)
    if daily is not None and seen is not None:
        yield f"{line} ({_few(daily)} a day); pages seen: {pages} ({_few(seen)} a day)"
    else:
        yield f"{line}; pages seen: {pages}"
    for channel, said in of.baseline.calibration.items():
        if str(said.get("how", "simulated")) != "simulated":
            yield f"the threshold of the channel {channel} was {said['how']}"


def _few(times: float) -> str:
    """A number of times, in two digits where it is small."""
    return f"{times:.0f}" if times >= 10 else f"{times:.2g}"
