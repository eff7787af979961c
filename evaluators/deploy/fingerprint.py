"""Provenance: a hash of what the server says of its weights, from whichever of its own pages answer."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.client import HTTPException
from threading import Event, Lock
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import structlog

from palegreen.evaluators.config import EvaluateConfig
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
        secure = [HTTPSHandler(context=_tls(config))] if self._base.startswith("https:") else []
        self._opener = build_opener(ProxyHandler({}), _NoRedirect(), *secure)

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
            request = Request(f"{base}{page}", headers={"accept": "application/json"})  # noqa: S310 - an http(s) URL
            with self._opener.open(request, timeout=_TIMEOUT) as response:
                body = response.read(_MOST + 1)
            facts = read(json.loads(body)) if len(body) <= _MOST else {}
        except HTTPError as refused:
            refused.close()
            if refused.code in _NOT_THERE:
                self._facts.pop(page, None)
        except (URLError, OSError, HTTPException, ValueError, RecursionError) as trouble:
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


class _NoRedirect(HTTPRedirectHandler):
    """A page that is elsewhere is not this server's."""

    def redirect_request(self, *_: Any) -> None:
        return None


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


def _tls(config: EvaluateConfig) -> ssl.SSLContext:
    """How an https upstream is verified, as by the proxy."""
    context = ssl.create_default_context(cafile=config.upstream_ca_file)
    if config.upstream_insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
