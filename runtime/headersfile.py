"""A file of HTTP headers, `NAME: VALUE` a line: secrets stay out of the configuration."""

from __future__ import annotations

from pathlib import Path

from palegreen.runtime.yamlfile import ConfigError


def read_headers(path: Path, what: str) -> dict[str, str]:
    """The headers by lower-case name. Raises ConfigError, one line that begins with `what` and quotes none of them."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{what} {path} cannot be used: {failure}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if line.strip() and not (colon and name.strip()):
            raise ConfigError(f"{what} {path} line {number}: allowed: NAME: VALUE")
        if line.strip():
            found[name.strip().lower()] = value.strip()
    return found
