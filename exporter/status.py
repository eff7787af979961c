"""What the node daemon says of itself over HTTP."""

from __future__ import annotations

from html import escape

from palegreen.exporter.snapshot import Snapshots
from palegreen.exporter.source import State
from palegreen.runtime.app import page


class NodeStatus:
    """Health of the snapshot and of every source."""

    def __init__(self, snapshots: Snapshots, version: str) -> None:
        self._snapshots = snapshots
        self._version = version
        self.body = snapshots.body

    def stuck(self) -> str:
        """Whether nothing is rendered any more."""
        return "nothing has been rendered for 30 s; see the log" if self._snapshots.stuck else ""

    def waiting(self) -> str:
        """Sources that have not been read yet."""
        waiting = [_named(state) for state in self._snapshots.states if not state.tried]
        if waiting or not self._snapshots.rendered:
            return f"not read yet: {', '.join(waiting) or 'anything'}"
        return ""

    def page(self) -> str:
        """Each source with its state, age and cause."""
        rows = [_row(state) for state in self._snapshots.states]
        heads = ("source", "what", "state", "age", "took")
        return page(f"Palegreen node {self._version}", heads, rows, "no sources are configured")


def _row(state: State) -> str:
    word = "up" if state.up else "waiting" if not state.tried else "down"
    cause = "" if state.up else f"<br>{escape(state.error)}"
    age = "" if state.age is None else f"{state.age:.1f} s"
    return (
        f"<tr><td>{escape(_named(state))}</td><td>{escape(state.about)}</td>"
        f"<td class={word}>{word}{cause}</td><td>{age}</td><td>{state.duration * 1000:.1f} ms</td></tr>"
    )


def _named(state: State) -> str:
    return f"{state.name} {state.target}".strip()
