"""Candidate baselines: after a declared deploy one is fitted to the samples since, and left for a person to promote."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.deploy.deploys import Deploy, Deploys
from palegreen.runtime.exposition import Collected
from palegreen.runtime.yamlfile import ConfigError

log = structlog.get_logger()

_LOOK_EVERY = 5.0  # seconds
_AFTER_DEFECT = 60.0
_PATIENCE = 3600.0  # seconds that a fit may take, at the lowest priority
_TRIES = 5  # of one deploy: samples may be there that do not count, so a fit may ask for more
_FIT = ("-m", "palegreen.cli.main", "baseline", "fit")
_TAKEN = {"redaction", "checks", "drift", "embedder", "scorer_threads"}  # of the configuration, by a fit


class Candidates:
    """Looks after one folder of baselines.

    Args:
        config: the configuration in force.
        deploys: those declared; which of them is settled is kept there.
    """

    def __init__(self, config: Callable[[], EvaluateConfig], deploys: Deploys) -> None:
        self._config = config
        self._deploys = deploys
        self._waiting: int | None = None
        self._stamp: tuple[Path, int] | None = None
        self._tries: tuple[Deploy | None, int] = (None, 0)
        self._said: tuple[Deploy | None, str] = (None, "")

    def show(self, collected: Collected) -> None:
        """Add how many candidates wait."""
        if self._waiting is not None:
            config = self._config()
            collected.add("palegreen_baseline_candidates", self._waiting, config.model, *config.common())

    async def run(self) -> None:
        """Look every few seconds, until it is cancelled."""
        while True:
            pause = _LOOK_EVERY
            try:
                await self._look()
            except Exception:
                log.exception("baseline.fit_defect", effect="it is tried again")
                pause = _AFTER_DEFECT
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        config, deploy = self._config(), self._deploys.latest
        stamp = _stamp(config.baseline)
        if stamp != self._stamp:
            self._stamp = stamp
            self._waiting = await asyncio.to_thread(_waiting, config.baseline) if config.baseline is not None else None
        if deploy is None or deploy.at <= self._deploys.candidate_of or not config.baseline_candidates:
            return
        obstacle = _obstacle(config)
        if obstacle:
            if self._said != (deploy, obstacle):
                self._said = (deploy, obstacle)
                log.info("baseline.no_candidate", cause=obstacle)
            return
        tries = self._tries[1] if self._tries[0] == deploy else 0
        needed = config.candidate_samples + tries * config.candidate_samples // 2
        options = await asyncio.to_thread(_options, config, deploy, needed)
        if options is None:
            return
        if not options:  # the current baseline is of a later time than the deploy
            self._deploys.settled(deploy)
            return
        self._tries = (deploy, tries + 1)
        if await self._fit(config, options) or tries + 1 >= _TRIES:
            self._deploys.settled(deploy)

    async def _fit(self, config: EvaluateConfig, options: list[str]) -> bool:
        """Whether there is a candidate now."""
        with tempfile.TemporaryDirectory(prefix="palegreen-fit-") as folder:
            settings = Path(folder) / "evaluate.json"
            settings.write_text(json.dumps(config.model_dump(mode="json", include=_TAKEN)))
            log.info("baseline.fitting", baselines=str(config.baseline))
            status, out, said = await _run([*options, "--config", str(settings)])
        if status != 0:
            reason = said.splitlines()[-1].removeprefix("palegreen: ") if said else f"status {status}"
            log.warning("baseline.fit_refused", cause=reason, effect="it is tried again with more samples")
            return False
        made, root = Path(out.splitlines()[-1]), config.baseline
        log.info(
            "baseline.candidate",
            baseline=made.name,
            compare=f"palegreen baseline compare {root} {made}",
            promote=f"palegreen baseline promote {made}",
        )
        return True


async def _run(options: list[str]) -> tuple[int, str, str]:
    """Fit in a process that gives way to all others: status, output, what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *_FIT,
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is for the parent alone
    )
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, 19)
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
    try:
        out, said = await asyncio.wait_for(process.communicate(), _PATIENCE)
    except TimeoutError:
        return 1, "", f"it took longer than {_PATIENCE / 3600:g} h"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, out.decode().strip(), said.decode(errors="replace").strip()


def _obstacle(config: EvaluateConfig) -> str:
    """Why no candidate can be fitted; empty if it can."""
    from palegreen.evaluators.baseline.manifest import CURRENT, NAME

    if config.baseline is None:
        return "there is no baseline to be a candidate for: give --baseline"
    if config.store_path is None:
        return "there are no samples to fit one to: give --store"
    if find_spec("sklearn") is None:
        return "a fit needs scikit-learn: pip install 'palegreen[fit]'"
    if (config.baseline / NAME).exists() or not (config.baseline / CURRENT).exists():
        return f"{config.baseline} is one baseline; give the folder of baselines that it lies in"
    if not os.access(config.baseline, os.W_OK | os.X_OK):
        return f"{config.baseline} cannot be written"
    return ""


def _options(config: EvaluateConfig, deploy: Deploy, needed: int) -> list[str] | None:
    """What a fit is called with: None while there are too few samples, nothing where none is wanted.

    Reads files and blocks.
    """
    from palegreen.evaluators.baseline import manifest
    from palegreen.evaluators.store.query import Filter, Reader, StoreError

    if config.baseline is None or config.store_path is None:
        return None
    try:
        current = manifest.load(config.baseline)
        if (current.until or current.created) >= deploy.at:
            return []
        with Reader(config.store_path) as reader:
            count, _ = reader.extent(Filter(since=deploy.at, sampled="rate"))
    except (ConfigError, StoreError) as refused:
        log.debug("baseline.fit_waits", cause=str(refused))
        return None
    if count < needed:
        return None
    since = datetime.fromtimestamp(deploy.at, UTC).isoformat()
    options = [str(config.store_path), "--out", str(config.baseline), "--since", since]
    if current.run_length is not None:
        replicas = str(current.run_length.replicas)
        options += ["--false-alarm-every", current.run_length.declared, "--replicas", replicas]
    return options


def _stamp(root: Path | None) -> tuple[Path, int] | None:
    """Another one whenever a baseline is added or promoted; None where there is no folder."""
    try:
        return (root, root.stat().st_mtime_ns) if root is not None else None
    except OSError:
        return None


def _waiting(root: Path) -> int:
    """Baselines of a folder that were made after the current one."""
    from palegreen.evaluators.baseline import manifest

    if (root / manifest.NAME).exists():
        return 0
    try:
        current = manifest.load(root)
    except ConfigError:
        return 0
    others = 0
    for path in root.glob(f"*/{manifest.NAME}"):
        with suppress(ConfigError):
            others += manifest.load(path.parent).created > current.created
    return others
