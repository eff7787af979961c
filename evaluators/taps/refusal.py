"""Responses of the proxy's own, where upstream gives none."""

from __future__ import annotations

import json
from http import HTTPStatus


def refusal(status: int, problem: str, kind: str) -> bytes:
    """One in the shape of OpenAI's errors, after which the connection ends."""
    error = {"message": f"palegreen proxy: {problem}", "type": kind, "param": None, "code": str(status)}
    body = json.dumps({"error": error}).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
