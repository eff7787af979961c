"""What an index is asked: queries of a file, or prompts of the evaluator's own store."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from palegreen.evaluators.probes.retrieval_search import Question, SearchError, as_vector
from palegreen.evaluators.store.query import Filter, Reader, StoreError
from palegreen.runtime.yamlfile import ConfigError

Draw = Callable[[int], list[Question]]
"""So many questions of the next round."""
_NEWEST = 256  # samples of the store out of which a round is drawn
_MOST = 100_000
_FORMAT = '{"text": ...}, {"vector": [...]} or both'


class QueriesError(Exception):
    """There is nothing to ask in this round; one line."""


def of_file(path: Path, origin: str) -> list[Question]:
    """The queries of a file of JSON lines. Raises ConfigError, one line that begins with `origin`."""
    questions = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    questions.append(_question(line, f"{origin}: {path} line {number}"))
                if len(questions) > _MOST:
                    raise ConfigError(f"{origin}: {path} has more than {_MOST} queries; allowed: up to that")
    except OSError as failure:
        raise ConfigError(f"{origin}: {path} cannot be read: {failure.strerror}") from None
    if not questions:
        raise ConfigError(f"{origin}: {path} has no query; allowed: one a line, {_FORMAT}")
    return questions


def in_turn(questions: list[Question], seed: int) -> Draw:
    """Every question once in an order of the seed, then all of them again in another."""

    def order() -> Iterator[Question]:
        chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
        while True:
            yield from chance.sample(questions, len(questions))

    following = order()
    return lambda count: [next(following) for _ in range(min(count, len(questions)))]


def of_store(path: Path, seed: int) -> Draw:
    """Prompts of the newest samples, each text once; drawn by chance. Drawing raises QueriesError."""
    chance = random.Random(seed)  # noqa: S311

    def draw(count: int) -> list[Question]:
        try:
            with Reader(path) as reader:
                samples = reader.newest(Filter(sampled="rate"), _NEWEST)
        except StoreError as failure:
            raise QueriesError(str(failure)) from None
        texts = sorted({text for sample in samples if (text := _prompt(sample.record))})
        if not texts:
            raise QueriesError(f"{path}: no prompt is stored yet")
        return [Question(_key(text), text, None) for text in chance.sample(texts, min(count, len(texts)))]

    return draw


def _question(line: bytes, origin: str) -> Question:
    try:
        said = orjson.loads(line)
        text = said.get("text") or ""
        vector = as_vector(said["vector"]) if said.get("vector") is not None else None
    except orjson.JSONDecodeError:
        raise ConfigError(f"{origin} is no JSON; allowed: {_FORMAT}") from None
    except AttributeError:
        raise ConfigError(f"{origin} is no object; allowed: {_FORMAT}") from None
    except SearchError as refused:
        raise ConfigError(f"{origin}: {refused}; allowed: {_FORMAT}") from None
    if not isinstance(text, str) or not (text.strip() or vector is not None):
        raise ConfigError(f"{origin} has neither text nor vector; allowed: {_FORMAT}")
    return Question(_key(text) + (_key(vector.tobytes().hex()) if vector is not None else ""), text, vector)


def _prompt(record: dict[str, Any]) -> str:
    """The last thing that the user said."""
    messages = record.get("messages") or []
    said = (message.get("content") for message in reversed(messages) if message.get("role") == "user")
    text = next(said, "")
    return text.strip() if isinstance(text, str) else ""


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
