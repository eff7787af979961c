"""Declared deploys: a change of a marker, of the pod template, of the weights that the server reports, or a request."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.deploy import memory
from palegreen.evaluators.deploy.request import parsed
from palegreen.runtime.exposition import Collected, Readings
from palegreen.runtime.tally import Tally

log = structlog.get_logger()

MARKERS = ("system_fingerprint", "prompt", "served_model", "model_fingerprint", "pod_template")
REQUEST = "request"
QUIET = 600.0
"""Seconds in which a further deploy of the same cause and replica is none: chatter must not storm."""
_KEPT = 20
_MOST_CAUSES = 1000
_FREE = frozenset({"model", "endpoint", "instance_id"})
_FINGERPRINT = "palegreen_model_fingerprint_info"
_SHOWN = re.compile(r'fingerprint="([0-9a-f]+)"')


class Deploy(NamedTuple):
    """One declared deploy; `at` is epoch seconds, `what` is hashes, or the revision of a request."""

    at: float
    cause: str
    model: str
    endpoint: str
    replica: str
    what: str


class Deploys:
    """All that the evaluator knows of deploys. Its parent process has one; it outlives scorers, by a file beside the
    store also the parent.

    Args:
        config: the configuration in force.
        declared: told of each, so that the scorer knows.
        clock: epoch seconds.
    """

    def __init__(
        self,
        config: Callable[[], EvaluateConfig],
        declared: Callable[[Deploy], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._declared = declared
        self._clock = clock
        self._tally = Tally((), {}, free=_FREE)
        self._lately: dict[tuple[str, ...], float] = {}
        said = memory.read(memory.beside(config().store_path))
        self._markers: dict[str, Any] = _as(dict, said.get("markers"))
        self._known: dict[str, str] = _as(dict, said.get("known"))  # by marker, of those seen here
        self._candidate_of = float(_as(float, said.get("candidate_of")))
        self._deploys = list(_read(_as(list, said.get("deploys"))))
        self._changed = False
        self._trouble = ""
        for cause in (*MARKERS, REQUEST):  # there from the start, so that increase() sees the first
            self._tally.count("palegreen_deploys_total", *self._labels(*self._names()), cause, by=0)
        for deploy in self._deploys:
            self._stamp(deploy)

    @property
    def latest(self) -> Deploy | None:
        """The last one."""
        return max(self._deploys, default=None)

    @property
    def candidate_of(self) -> float:
        """Time of the deploy for which a candidate baseline was made, or was given up; 0 for none."""
        return self._candidate_of

    def settled(self, deploy: Deploy) -> None:
        """No candidate is wanted for this deploy any more."""
        self._candidate_of, self._changed = deploy.at, True

    def known(self) -> dict[str, Any]:
        """What a scorer gets at its start."""
        return {"markers": self._markers, "deploys": [deploy._asdict() for deploy in self._deploys]}

    def hear(self, header: dict[str, Any]) -> None:
        """What a child tells, see `palegreen.evaluators.deploy.talk`."""
        match header:
            case {"kind": "marker"}:
                about = (header["model"], header["endpoint"], header["replica"])
                self._moved(header["at"], header["marker"], about, header["what"])
            case {"kind": "markers"}:
                self._markers, self._changed = header["state"], True

    def look(self, shown: Iterable[Readings]) -> None:
        """Compare the pod template and the fingerprint that a child shows with those known."""
        lines = "".join(readings.lines.get(_FINGERPRINT, "") for readings in shown)
        fingerprint = _SHOWN.search(lines)
        self._compare("pod_template", self._config().pod_template_hash)
        self._compare("model_fingerprint", fingerprint[1] if fingerprint else "")

    async def posted(self, body: bytes) -> tuple[int, str]:
        """Answer `POST /-/deploy`: status and one line."""
        try:
            request = parsed(body)
        except ValueError as refused:
            return 400, str(refused)
        about = f" of revision {request.revision}" if request.revision else ""
        what = {key: value for key, value in request.model_dump().items() if value}
        deploy = Deploy(self._clock(), REQUEST, *self._names(), request.revision)
        if not self._declare(deploy, **what):
            return 200, f"a deploy{about} was declared in the last {QUIET / 60:g} minutes: nothing is added"
        return 200, f"a deploy{about} is declared at {_said(deploy.at)}"

    def show(self, collected: Collected) -> None:
        """Add the series."""
        collected.include(self._tally.readings())

    def save(self) -> None:
        """Write what has changed to the file beside the store, if there is one."""
        path = memory.beside(self._config().store_path)
        if not self._changed or path is None:
            return
        self._changed = False
        said = self.known() | {"known": self._known, "candidate_of": self._candidate_of}
        trouble = memory.write(path, said)
        if trouble and trouble != self._trouble:
            log.warning("deploy.memory_unwritten", path=str(path), cause=trouble, effect="a restart forgets deploys")
        self._trouble = trouble

    def _compare(self, marker: str, value: str) -> None:
        before = self._known.get(marker, "")
        if not value or value == before:
            return
        self._known[marker], self._changed = value, True
        if before:
            self._moved(self._clock(), marker, self._names(), f"{before} -> {value}")

    def _moved(self, at: float, marker: str, about: tuple[str, str, str], what: str) -> None:
        model, endpoint, replica = about
        labels = self._labels(model, endpoint, replica)
        self._tally.count("palegreen_marker_changes_total", *labels, marker)
        self._tally.set("palegreen_marker_changed_timestamp_seconds", at, *labels, marker)
        self._declare(Deploy(at, marker, model, endpoint, replica, what), what=what)

    def _declare(self, deploy: Deploy, **what: str) -> bool:
        """Whether it is a deploy of its own, and none that follows on another of its kind at once."""
        kind = (deploy.cause, deploy.replica, deploy.what if deploy.cause == REQUEST else "")
        last = self._lately.get(kind)
        if last is not None and deploy.at < last + QUIET:
            log.debug("deploy.quiet", cause=deploy.cause, replica=deploy.replica)
            return False
        self._lately.pop(kind, None)
        self._lately[kind] = deploy.at
        if len(self._lately) > _MOST_CAUSES:
            del self._lately[next(iter(self._lately))]
        self._deploys = [*self._deploys[1 - _KEPT :], deploy]
        self._changed = True
        labels = self._labels(deploy.model, deploy.endpoint, deploy.replica)
        self._tally.count("palegreen_deploys_total", *labels, deploy.cause)
        self._stamp(deploy)
        log.info("deploy.declared", cause=deploy.cause, replica=deploy.replica, at=_said(deploy.at), **what)
        self._declared(deploy)
        return True

    def _stamp(self, deploy: Deploy) -> None:
        labels = self._labels(deploy.model, deploy.endpoint, deploy.replica)
        self._tally.set("palegreen_deploy_timestamp_seconds", deploy.at, *labels)
        if deploy.cause != REQUEST:
            self._tally.set("palegreen_marker_changed_timestamp_seconds", deploy.at, *labels, deploy.cause)

    def _labels(self, model: str, endpoint: str, replica: str) -> tuple[str, ...]:
        config = self._config()
        return model, endpoint, replica, config.namespace, config.pod

    def _names(self) -> tuple[str, str, str]:
        """Model, endpoint and replica that this evaluator is beside."""
        config = self._config()
        return config.model, config.endpoint, config.identity()


def _said(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat("T", "seconds")


def _as(kind: type[Any], value: object) -> Any:
    return value if isinstance(value, kind) else kind()


def _read(said: list[Any]) -> Iterable[Deploy]:
    """Deploys of a file; one that is not whole is left out."""
    for each in said:
        if isinstance(each, dict) and set(each) == set(Deploy._fields) and isinstance(each["at"], float):
            yield Deploy(**each)
