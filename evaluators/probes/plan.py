"""The probes that the section `canary` asks for."""

from __future__ import annotations

from pathlib import Path

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.canary import Canary
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import Replica
from palegreen.evaluators.probes.compare import Embed
from palegreen.evaluators.probes.probe import Probe
from palegreen.evaluators.probes.progress import Progress
from palegreen.evaluators.probes.reference import Reference, load
from palegreen.evaluators.taps.passing import last_passed
from palegreen.runtime.yamlfile import ConfigError


def canaries(config: EvaluateConfig, embed: Embed, queue: Path) -> list[Probe]:
    """None without the section. Raises ConfigError, one line."""
    canary = config.canary
    if canary is None:
        return []
    replica = Replica.of(config, canary)
    found: list[Probe] = []
    reference = _reference(config)
    if reference is not None:
        found.append(Canary(config, canary, reference, Chat(replica, priority=canary.priority), embed))
    if canary.forward_progress:
        model = canary.model or (reference.model if reference is not None else config.model)
        chat = Chat(replica, priority=canary.priority, detailed=False)
        found.append(Progress(config, canary, chat, model, passing=lambda: last_passed(queue)))
    return found


def _reference(config: EvaluateConfig) -> Reference | None:
    if config.canary is None or config.canary.reference is None:
        return None
    reference, expected = load(config.canary.reference), config.canary.model
    if expected and expected != reference.model:
        raise ConfigError(
            f"canary.reference {config.canary.reference}: is of the model {reference.model!r}, canary.model is"
            f" {expected!r}; record one of this model"
        )
    return reference
