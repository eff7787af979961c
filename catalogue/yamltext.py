"""Generated YAML as text: keys in the order given, texts of several lines as they are, and what occurs twice twice."""

from __future__ import annotations

from typing import Any

import yaml


def document(data: object, head: str) -> str:
    """The file, with `head` as a comment above it."""
    return f"# {head}\n" + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # a method of theirs
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
