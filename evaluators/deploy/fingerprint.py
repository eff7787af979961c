"""Provenance: a hash of what the server says of its weights, from whichever of its own pages answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from threading import Event, Lock
from typing import Any

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.outbound import OutboundError, Request, send
from palegreen.runtime.clienttls import verifying
from palegreen.runtime.exposition import Collected

log = structlog.get_logger()

_TIMEOUT = 5.0  # seconds
_MOST = 1 << 20  # bytes of a page
_ASK_ALL_EVERY = 10  # rounds: a page that is not there is a line in the server's log each time
_NOT_THERE = (404, 405, 501)
_OF_MODEL = ("id", "root", "parent", "max_model_len", "context_length", "revision")
_OF_GGUF = ("n_params", "size", "n_ctx_train", "n_vocab", "n_embd", "vocab_type")
_OF_SGLANG = ("model_path", "tokenizer_path", "weight_version", "preferred_sampling_params")
_OF_TGI = (
    "model_id",
    "model_sha",
    "model_dtype",
    "max_input_tokens",
    "max_input_length",
    "max_total_tokens",
    "version",
)

Facts = dict[str, Any]


class ModelFingerprint:
    """A probe: it asks the upstream, whose URL the configuration has. The last that is known stays while none answers.

    Pages: `/v1/models` (OpenAI's; vLLM, SGLang and llama.cpp say more there), `/props` (llama.cpp), `/get_model_info`
    (SGLang), `/info` (TGI). What changes from start to start, such as `created`, is no part of it.
    """

    name = "model_fingerprint"
    interval = 60.0

    def __init__(self, config: EvaluateConfig) -> None:
        self._base = (config.upstream or "").rstrip("/")
        self._model = config.model
        self._labels = (config.model, *config.common())
        self._facts: dict[str, Facts] = {}  # by page, of those that answered
        self._round = 0
        self._fingerprint = ""
        self._lock = Lock()
        secure = self._base.startswith("https:")
        self._tls = verifying(config.upstream_ca_file, config.upstream_insecure_skip_verify) if secure else None

    def run(self, stopped: Event) -> None:
        """Ask once around."""
        everything = self._round % _ASK_ALL_EVERY == 0 or not self._facts
        self._round += 1
        for page, read in self._pages().items():
            if stopped.is_set():
                return
            if everything or page in self._facts:
                self._ask(page, read)
        said = {page: facts for page, facts in self._facts.items() if facts}
        if said:
            text = json.dumps(said, sort_keys=True).encode(errors="replace")
            fingerprint = sha256(text).hexdigest()[:16]
            with self._lock:
                before, self._fingerprint = self._fingerprint, fingerprint
            if before != fingerprint:
                log.info("model.fingerprint", fingerprint=fingerprint, before=before, pages=", ".join(sorted(said)))

    def show(self, collected: Collected) -> None:
        """Add the fingerprint, if one is known."""
        with self._lock:
            fingerprint = self._fingerprint
        if fingerprint:
            collected.add("palegreen_model_fingerprint_info", 1, *self._labels, fingerprint)

    def _pages(self) -> Mapping[str, Callable[[Any], Facts]]:
        return {"/v1/models": self._models, "/props": _props, "/get_model_info": _sglang, "/info": _tgi}

    def _ask(self, page: str, read: Callable[[Any], Facts]) -> None:
        """What a page says now takes the place of what it said; one that does not answer leaves that as it is."""
        base = self._base.removesuffix("/v1")
        try:
            facts = read(json.loads(send(Request("GET", f"{base}{page}"), _TIMEOUT, self._tls, _MOST)))
        except OutboundError as refused:
            if refused.status in _NOT_THERE:
                self._facts.pop(page, None)
            log.debug("model.fingerprint_unknown", page=page, cause=str(refused))
        except (ValueError, RecursionError) as trouble:
            log.debug("model.fingerprint_unknown", page=page, cause=str(trouble))
        else:
            if facts:
                self._facts[page] = facts

    def _models(self, said: Any) -> Facts:
        """The models of a list; only the one that is watched, if it is named and there."""
        listed = said.get("data") if isinstance(said, dict) else None
        listed = listed if isinstance(listed, list) else []
        entries = {str(each["id"]): each for each in listed if isinstance(each, dict) and "id" in each}
        if self._model in entries:
            entries = {self._model: entries[self._model]}
        return {name: _some(each, _OF_MODEL) | _some(each.get("meta"), _OF_GGUF) for name, each in entries.items()}


def _props(said: Any) -> Facts:
    facts = _some(said, ("model_path", "build_info"))
    template = said.get("chat_template") if isinstance(said, dict) else None
    if isinstance(template, str):
        facts["chat_template"] = sha256(template.encode(errors="replace")).hexdigest()
    settings = said.get("default_generation_settings") if isinstance(said, dict) else None
    return facts | _some(settings, ("n_ctx",)) if facts else {}


def _sglang(said: Any) -> Facts:
    return _some(said, _OF_SGLANG)


def _tgi(said: Any) -> Facts:
    """Of TGI's page alone: other servers have one of this name that says other things."""
    return _some(said, _OF_TGI) if isinstance(said, dict) and "model_id" in said else {}


def _some(said: Any, names: tuple[str, ...]) -> Facts:
    """Those of these facts that are there."""
    return {name: said[name] for name in names if said.get(name) is not None} if isinstance(said, dict) else {}
