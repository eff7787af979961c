"""How a server that we call is verified."""

from __future__ import annotations

import ssl
from pathlib import Path


def verifying(ca_file: Path | None, insecure: bool = False) -> ssl.SSLContext:
    """By the authority in a file, None for the system's; not at all if `insecure`. Raises OSError: the file is none."""
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
