"""An index that answers over HTTP: requests by template, ids by their place in the answer."""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import quote

from palegreen.evaluators.outbound import OutboundError, Request, send
from palegreen.evaluators.probes.retrieval_config import HttpSearch
from palegreen.evaluators.probes.retrieval_search import Found, Question, SearchError, found
from palegreen.runtime.clienttls import verifying
from palegreen.runtime.headersfile import read_headers
from palegreen.runtime.yamlfile import ConfigError

_EACH = "[*]"


class HttpIndex:
    """Searches by HTTP as configured; timeouts are in seconds, that of exact search apart.

    Raises:
        ConfigError: a file that is named cannot be used; one line.
    """

    def __init__(self, config: HttpSearch, name: str, timeout: float, exact_timeout: float) -> None:
        self._config = config
        self._name = name
        self._timeouts = {False: timeout, True: exact_timeout}
        self._headers()
        try:
            self._context = verifying(config.ca_file) if config.ca_file is not None else None
        except OSError as failure:
            raise ConfigError(f"retrieval {name}: ca_file {config.ca_file} cannot be used: {failure}") from None

    def __call__(self, question: Question, k: int, exact: bool) -> Found:
        """Ask once. Raises SearchError."""
        try:
            body = send(self._request(question, k, exact), self._timeouts[exact], self._context)
        except OutboundError as failure:
            raise SearchError("timeout" if failure.late else "failed", str(failure)) from None
        except ConfigError as failure:  # the headers' file, read anew each time since keys are rotated
            raise SearchError("failed", str(failure)) from None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise SearchError("unreadable", "the answer is no JSON") from None
        config = self._config
        scores = pick(answer, config.scores) if config.scores else None
        vector = pick(answer, config.query_vector) if config.query_vector else None
        return found(pick(answer, config.ids), scores, vector)

    def _request(self, question: Question, k: int, exact: bool) -> Request:
        config = self._config
        vector = None if question.vector is None else question.vector.tolist()
        values = {"$text": question.text or None, "$vector": vector, "$k": k, "$exact": exact}
        url, body = config.url, config.sent
        if exact:
            url, body = config.exact_url or url, config.exact_body or body
        # not sampled: a traced index must not count the probe's searches among those of users
        headers = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00", **self._headers()}
        if body is None:
            return Request(config.method, _url(url, values), headers)
        headers["content-type"] = "application/json"
        return Request(config.method, _url(url, values), headers, json.dumps(filled(body, values)).encode())

    def _headers(self) -> dict[str, str]:
        file = self._config.headers_file
        return read_headers(file, f"retrieval {self._name}: headers_file") if file is not None else {}


def filled(template: Any, values: dict[str, Any]) -> Any:
    """A template with values in place of texts that are a placeholder; `$text` may stand inside of a text too."""
    if isinstance(template, dict):
        return {key: filled(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(value, values) for value in template]
    if not isinstance(template, str):
        return template
    return values[template] if template in values else template.replace("$text", values["$text"] or "")


def pick(answer: Any, path: str) -> Any:
    """What stands at a path: keys between dots, `[*]` for each entry of a list (`hits.hits[*]._id`). None: nothing."""
    head, each, tail = path.partition(_EACH)
    for key in filter(None, head.split(".")):
        answer = answer.get(key) if isinstance(answer, dict) else None
    if not each or answer is None:
        return answer
    return [pick(entry, tail.removeprefix(".")) for entry in answer] if isinstance(answer, list) else None


def _url(template: str, values: dict[str, Any]) -> str:
    said = {"$text": values["$text"] or "", "$k": str(values["$k"]), "$exact": str(values["$exact"]).lower()}
    for placeholder, value in sorted(said.items(), key=lambda pair: pair[0] == "$text"):  # last: it may hold the others
        template = template.replace(placeholder, quote(value, safe=""))
    return template
