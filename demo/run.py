"""The whole loop on one machine: replicas with evaluators, node daemon, Prometheus, Alertmanager, traffic, and a live
summary or a script of faults. It stops it all."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from palegreen.demo import control, watching
from palegreen.demo.ending import Ending, ending
from palegreen.demo.faults import FAULTS
from palegreen.demo.injecting import Faults
from palegreen.demo.live import Live, scrape
from palegreen.demo.pager import Incidents, Pager
from palegreen.demo.peers import EVERY, Peers
from palegreen.demo.replica import Replica
from palegreen.demo.screen import Screen, say
from palegreen.demo.script import play
from palegreen.demo.stage import REPLICAS, Stage, build
from palegreen.demo.started import DemoError, Started


def run(
    engine_url: str | None,
    port: int,
    seconds: float | None,
    requests_per_second: float,
    *,
    alerts: bool = True,
    script: Sequence[str] = (),
) -> bool:
    """Run until interrupted, for `seconds`, or until the script of faults is over; whether that went well.

    Raises DemoError.
    """
    well = True
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(ending())
        temporary = tempfile.TemporaryDirectory(prefix="palegreen-demo-", ignore_cleanup_errors=True)
        started = stack.enter_context(Started(Path(stack.enter_context(temporary)), asked))
        try:
            stage = build(started, engine_url, port, requests_per_second)
            incidents = Incidents(stage.numbers)
            if alerts:
                _watch(stack, started, stage, incidents, needed=bool(script))
            faults = Faults(stage.replicas, started.folder)
            if stack.enter_context(control.listening(faults.answer)):
                say(f"faults   palegreen demo fault {'|'.join(FAULTS)}")
            for replica in stage.replicas:
                stack.callback(replica.stop)
                stack.enter_context(replica.traffic)
            if script:
                well = play(script, stage, faults, incidents, asked)
            else:
                _follow(stage.live, stage.replicas, faults, incidents, seconds, asked)
        except KeyboardInterrupt:
            well = not script
        say("")
        say("stopping what was started")
    return well


def _watch(stack: contextlib.ExitStack, started: Started, stage: Stage, incidents: Incidents, needed: bool) -> None:
    """Prometheus, Alertmanager and a pager; without them the demo goes on, but a script cannot."""
    if reason := watching.missing(lambda text: say(f"alerts   {text}")):
        if needed:
            raise DemoError(f"a script needs Prometheus and Alertmanager; {reason}")
        say(f"alerts   none, without Prometheus and Alertmanager ({reason})")
        return
    pager = stack.enter_context(Pager(incidents))
    urls = watching.watch(started, stage.targets, pager.url)
    say(f"rules    {urls.prometheus}/alerts")
    say(f"alerts   {urls.alertmanager}")


def _follow(
    live: Live, replicas: Sequence[Replica], faults: Faults, incidents: Incidents, seconds: float | None, asked: Ending
) -> None:
    """Show what the metrics say, the answers with what the checks found, and alarms, until `seconds` are over."""
    say("sending a little traffic through the proxies; Ctrl-C stops everything")
    screen = Screen()
    ends = None if seconds is None else time.monotonic() + seconds
    peers, looked = Peers(), time.monotonic()
    over = False
    while not over:
        time.sleep(1)
        asked.check()
        over = ends is not None and time.monotonic() >= ends
        if over or screen.due():
            totals = [replica.traffic.totals() for replica in replicas]
            answers, failed = sum(each.ok for each in totals), sum(each.failed for each in totals)
            stay, faults.said = [*faults.said, *incidents.news()], []
            if len(replicas) >= REPLICAS and time.monotonic() - looked >= EVERY:
                looked = time.monotonic()
                with contextlib.suppress(OSError):  # one of them does not answer: next time
                    stay += filter(None, [peers.look([scrape(replica.quality.url) for replica in replicas])])
            summary = [f"serving  {live.line()} | traffic: {answers} answers, {failed} failed"]
            for replica in replicas:
                named = f"{replica.number} " if len(replicas) > 1 else ""
                stay += [f"{named}{line}" for line in replica.quality.news()]
                summary.append(f"quality  {named and f'replica {named}'}{replica.quality.line()}")
            screen.show(stay, summary)
