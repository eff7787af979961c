"""Engines' own endpoints: Ollama's, TGI's, and `/generate` of vLLM and SGLang."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palegreen.evaluators.wire import message
from palegreen.evaluators.wire.completions import prompts
from palegreen.evaluators.wire.reply import Asked, Chunk, Reply, Usage, error_of
from palegreen.evaluators.wire.shape import count, mapping, numbers, objects, text

_REASONS = {"eos_token": "stop", "stop_sequence": "stop"}


def asked_ollama(request: dict[str, Any]) -> Asked:
    """Request of Ollama's `/api/chat` or `/api/generate`."""
    conversation = message.messages(request.get("messages"))
    if prompt := text(request.get("prompt")):
        conversation.append({"role": "user", "content": prompt})
    if system := text(request.get("system")):
        conversation.insert(0, {"role": "system", "content": system})
    wanted = request.get("format")
    return Asked(
        model=text(request.get("model")),
        prompts=[conversation],
        tools=message.tools(request.get("tools")),
        response_format={"type": "json_object"} if wanted == "json" else message.json_schema(wanted),
    )


def replied_ollama(chunks: Iterable[Chunk]) -> Reply:
    """Response of Ollama: JSON, or a line of JSON a token."""
    reply = Reply()
    for data, end in chunks:
        if "error" in data and (error := error_of(data)):
            reply.error = error
            break
        reply.model = reply.model or text(data.get("model"))
        if not reply.model and "done" not in data:
            continue
        choice = reply.choice(0)
        given = mapping(data.get("message"))
        calls = message.tool_calls(given)
        said = text(given.get("content")) or text(data.get("response"))
        thought = text(given.get("thinking")) or text(data.get("thinking"))
        choice.text.append(said)
        choice.reasoning.append(thought)
        choice.tool_calls.extend(calls)
        if reply.first is None and (said or thought or calls):
            reply.first = end
        if data.get("done") is True:
            choice.finish_reason = text(data.get("done_reason")) or "stop"
            reply.usage = Usage(prompt=count(data.get("prompt_eval_count")), completion=count(data.get("eval_count")))
    return reply


def asked_generate(request: dict[str, Any]) -> Asked:
    """Request of TGI's (`inputs`), vLLM's (`prompt`) or SGLang's (`text`, `input_ids`) `/generate`."""
    given = next((request[key] for key in ("inputs", "prompt", "text", "input_ids") if request.get(key)), None)
    return Asked(model=text(request.get("model")), prompts=prompts(given), echoes="prompt" in request)  # vLLM echoes


def replied_generate(chunks: Iterable[Chunk]) -> Reply:
    """Response of TGI, vLLM or SGLang, by its keys. The latter two repeat the whole text in each chunk."""
    reply = Reply()
    for data, end in chunks:
        if "error" in data and (error := error_of(data)):
            reply.error = error
            break
        if "token" in data or "generated_text" in data:
            _add_tgi(reply, data)
        elif "text" in data:
            _set_text(reply, data)
        if reply.first is None and any(any(choice.text) for choice in reply.choices.values()):
            reply.first = end
    return reply


def _add_tgi(reply: Reply, data: dict[str, Any]) -> None:
    choice = reply.choice(0)
    token, details = mapping(data.get("token")), mapping(data.get("details"))
    if token and token.get("special") is not True:
        choice.text.append(text(token.get("text")))
    tokens = [token] if token else objects(details.get("tokens"))
    choice.add_logprobs(numbers([one.get("logprob") for one in tokens]))
    if isinstance(whole := data.get("generated_text"), str):
        choice.text = [whole]
    if reason := text(details.get("finish_reason")):
        choice.finish_reason = _REASONS.get(reason, reason)
        reply.usage = Usage(completion=count(details.get("generated_tokens")))


def _set_text(reply: Reply, data: dict[str, Any]) -> None:
    given = data["text"]
    for index, whole in enumerate(given if isinstance(given, list) else [given]):
        reply.choice(index).text = [text(whole)]
    info = mapping(data.get("meta_info"))  # SGLang's
    reply.endless = not info
    if info:
        reply.id = reply.id or text(info.get("id"))
        reply.usage = Usage(
            prompt=count(info.get("prompt_tokens")),
            completion=count(info.get("completion_tokens")),
            cached=count(info.get("cached_tokens")),
        )
        reason = info.get("finish_reason")
        reply.choice(0).finish_reason = text(reason) or text(mapping(reason).get("type"))
