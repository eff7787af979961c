"""Files whose content is pinned: an embedder is only what its hash says."""

from __future__ import annotations

import hashlib
from pathlib import Path

from palegreen.evaluators.embed.embedder import EmbedderError

ASSETS = Path(__file__).parent / "assets"
"""What is shipped with the package; its README names sources, licences and hashes."""


def verified(path: Path, sha256: str, remedy: str) -> bytes:
    """The content of a file with this hash (hex). Raises EmbedderError that ends in `remedy`."""
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise EmbedderError(f"{path} cannot be read: {failure.strerror}; {remedy}") from failure
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise EmbedderError(f"{path} has the sha256 {found[:16]}..., expected {sha256[:16]}...; {remedy}")
    return content


def asset(name: str, sha256: str) -> bytes:
    """A file of the package. Raises EmbedderError."""
    return verified(ASSETS / name, sha256, "install palegreen again")


def geometry(*parts: str) -> str:
    """Digest of an embedder made of parts: the hashes of its files and what else decides where a text lies."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
