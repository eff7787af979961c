"""Requests that failed: an HTTP status of 400 or more, an error in the middle of a stream, a stream that broke off,
or the finish reason `error`.

Skipped: aborts by the client, and taps that tell neither a status nor an error.
"""

from __future__ import annotations

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import FAILED, View


def check(view: View) -> Outcome | None:
    """Whether the request was answered without an error."""
    sample = view.sample
    if sample.status is not None and sample.status >= 400:
        return Outcome(False, None, f"HTTP status {sample.status}")
    if sample.error or sample.ended == "error" or sample.finish_reason in FAILED:
        return Outcome(False, None, "an error in the response")
    if sample.ended == "interrupted":
        return Outcome(False, None, "the stream broke off")
    if sample.ended == "client_abort" or sample.status is None:
        return None
    return Outcome(True)
