"""What the demo asks: short questions, which a small model answers in form if not in fact, and a few for single checks.

A healthy run is mostly green. What is not has a reason that can be seen: an answer that is cut at its limit of tokens,
and whatever the model makes of a passage and of JSON.
"""

from __future__ import annotations

from typing import Any

from palegreen.demo.traffic import PROMPTS, Prompt

MAX_TOKENS = 128
"""Room for nearly every answer in one sentence (37 tokens on average by the packaged model)."""

_EACH = 6  # of the short questions come between two of the others
_PASSAGE = (
    "The Marlin 4 kettle holds 17 decilitres, boils in 210 seconds, costs 49 euros and is guaranteed for 36 months."
)
_COUNTRY = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("country", "capital", "language")},
    "required": ["country", "capital", "language"],
}


def _chat(system: str, user: str, **fields: Any) -> Prompt:
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": user}], **fields}


def _about_the_passage(question: str) -> Prompt:
    """A question with what was retrieved for it, which `metadata` tells the evaluator."""
    asked = f"{question}\n\nPassage: {_PASSAGE}"
    return _chat("Answer from the passage, in one sentence.", asked, metadata={"contexts": _PASSAGE})


def _as_json(country: str) -> Prompt:
    schema = {"type": "json_schema", "json_schema": {"name": "country", "schema": _COUNTRY}}
    return _chat("Answer in JSON.", f"Describe {country}: country, capital, language.", response_format=schema)


_OTHERS = (
    _as_json("Japan"),
    _about_the_passage("How long is the kettle guaranteed?"),
    _chat("You tell stories.", "Tell me a story about a lighthouse.", max_tokens=48),
    _as_json("Peru"),
    _about_the_passage("What does the kettle cost in dollars, and how heavy is it?"),
    _chat("Answer in JSON.", "List ten rivers.", response_format={"type": "json_object"}, max_tokens=32),
)


def _mixed() -> list[Prompt]:
    short = [_chat("Answer in one short sentence.", question) for question in PROMPTS]
    mixed: list[Prompt] = []
    for number, other in enumerate(_OTHERS):
        mixed += [*short[number * _EACH : (number + 1) * _EACH], other]
    return mixed


QUESTIONS = tuple(_mixed())
