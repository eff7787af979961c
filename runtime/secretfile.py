"""A secret that is a file: it stays out of configurations and logs, and may be rotated."""

from __future__ import annotations

from pathlib import Path


def read_secret(path: Path, what: str) -> str:
    """The secret in a file, to be read anew before each use; `what` it is called. Raises OSError and ValueError."""
    secret = path.read_bytes().strip()
    if not secret or any(not 0x21 <= byte <= 0x7E for byte in secret):  # the message must not hold what was read
        raise ValueError(f"{path} does not hold a {what}; allowed: one line of ASCII without blanks")
    return secret.decode()
