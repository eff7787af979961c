"""What a decoder says of bytes that it cannot read."""

from __future__ import annotations


class WireError(ValueError):
    """A record that cannot be decoded; one line that names what and where, and never quotes the text."""
