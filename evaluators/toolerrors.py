"""Whether the answer of a tool reports an error. In doubt it does not."""

from __future__ import annotations

import re
from typing import Any

import orjson

_TRUE = frozenset({"iserror", "is_error", "haserror", "has_error"})
_FALSE = frozenset({"success", "succeeded", "ok"})
_ERROR = frozenset({"error", "errors", "exception", "error_message", "errormessage", "traceback"})
_NOTHING = ("none", "None", "null", "0", "no error")
_STATUS = frozenset({"status", "type"})
_FAILED = frozenset({"error", "failure", "exception"})  # "failed" is what a job that was asked for may be
_EXIT = frozenset({"exit_code", "exitcode", "exit_status", "returncode", "return_code"})
_HTTP = frozenset({"status_code", "statuscode", "http_status"})

_BEGINS = re.compile(
    r"[\s<\[(*`\"'❌⚠️-]*"
    r"(?:(?:[A-Za-z_]\w*\.)*[A-Za-z_]*(?:Error|Exception)\b\s*[:>\]]|(?:tool_use_error|tool_error)>|"
    r"(?:error|fatal|exception|failure)\s*[:>\]]|error (?:executing|calling|running|invoking|while|occurred)\b|"
    r"traceback \(most recent call last\)|command failed\b|(?:tool|command|request|call) failed\b|"
    r"an (?:\w+ )?error occurred\b|panic: )",
    re.IGNORECASE,
)
_EXITED = re.compile(
    r"(?:^|\b(?:process|command|script|program) |\breturned non-zero )"
    r"(?:(?:exited with|returned) )?(?:non-zero )?exit(?:ed)?[ _-]?(?:code|status)[:= ]*-?[1-9]\d{0,9}\b|"
    r"\bexited with (?:code|status)[:= ]*-?[1-9]\d{0,9}\b",
    re.IGNORECASE | re.MULTILINE,
)
_EDGE = 400  # characters at the beginning and at the end in which a process says how it exited


def reports_error(content: str) -> bool:
    """Whether a tool's answer is an error: JSON that says so by a usual key, or text that begins or ends so."""
    text = content.strip()
    if text[:1] in ("{", "["):
        try:
            return _says_error(orjson.loads(text))
        except orjson.JSONDecodeError:
            pass
    if _BEGINS.match(text[:_EDGE]):
        return True
    return any(_EXITED.search(edge) for edge in (text[:_EDGE], text[-_EDGE:]))


def _says_error(value: Any) -> bool:
    """Of a list of parts one is enough only if there are no others."""
    if isinstance(value, list):
        return len(value) == 1 and _says_error(value[0])
    if not isinstance(value, dict):
        return False
    return any(_is_error(key.lower(), said) for key, said in value.items())


def _is_error(key: str, said: Any) -> bool:
    if key in _ERROR:
        return bool(said) and said not in _NOTHING
    if key in _STATUS:
        return isinstance(said, str) and said.lower() in _FAILED
    if isinstance(said, bool):
        return (said and key in _TRUE) or (not said and key in _FALSE)
    return isinstance(said, int) and ((key in _EXIT and said != 0) or (key in _HTTP and said >= 400))
