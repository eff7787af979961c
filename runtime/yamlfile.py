"""YAML configuration files: read once, validated by a pydantic model, refused in one line.

Every refusal reads ``FILE:LINE: key.path: problem; allowed: ...``, so that an operator can go to the place
without reading a traceback. Positions come from the nodes of ``yaml.compose``. Anchors and aliases are
refused: nothing here needs them and they let a small file grow without bound.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)
Location = tuple[str | int, ...]

MAX_BYTES = 1 << 20
_PLAIN_TAGS: dict[type[yaml.Node], str] = {
    yaml.MappingNode: "tag:yaml.org,2002:map",
    yaml.SequenceNode: "tag:yaml.org,2002:seq",
}


class ConfigError(ValueError):
    """A configuration that is refused; its text is one line that says where and what is allowed."""


def load(path: Path, model: type[M]) -> M:
    """Read ``path`` and validate it as ``model``; an empty file gives the model's defaults.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not fit the model.
    """
    return Document.read(path).validate(model)


class Document:
    """A parsed file that still knows the line of each key, for checks that a model cannot make alone."""

    def __init__(self, path: Path, root: yaml.MappingNode | None, data: dict[str, Any]) -> None:
        self.path = path
        self.data = data
        self._root = root

    @classmethod
    def read(cls, path: Path) -> Document:
        """Parse ``path``.

        Raises:
            ConfigError: missing, unreadable, larger than ``MAX_BYTES``, not UTF-8, not YAML, a duplicate key,
                an alias, or something other than a mapping at the top.
        """
        text = _read_text(path)
        loader = None
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            if root is None or (isinstance(root, yaml.ScalarNode) and loader.construct_object(root) is None):
                return cls(path, None, {})
            if not isinstance(root, yaml.MappingNode):
                _fail(path, root.start_mark.line + 1, "the file is not a mapping; allowed: key: value lines")
            return cls(path, root, _build_mapping(path, loader, root, ""))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            _fail(path, mark.line + 1 if mark else None, f"not valid YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            _fail(path, line, f"not valid YAML: character {error.character!r} is not allowed")
        except ValueError as error:  # SafeLoader lets a scalar such as 2026-13-45 raise what its type raises
            if isinstance(error, ConfigError):
                raise
            _fail(path, None, f"not valid YAML: {error}")
        except RecursionError:
            _fail(path, None, "not valid YAML: nested too deeply")
        finally:
            if loader is not None:
                loader.dispose()

    def validate(self, model: type[M]) -> M:
        """Return the data as ``model``.

        Raises:
            ConfigError: the first problem by line, with the number of further ones.
        """
        try:
            return model.model_validate(_without_empty_sections(self.data, model))
        except ValidationError as refused:
            found = [(self._place(e["loc"])[1] or 0, describe(model, e), e["loc"]) for e in refused.errors()]
        found.sort(key=lambda item: item[0])
        _, text, location = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise self.error(location, text + more)

    def error(self, location: Location, problem: str) -> ConfigError:
        """A ``ConfigError`` for the key at ``location``; of a missing key the line is its parent's."""
        keys, line = self._place(location)
        return ConfigError(_line(self.path, line, f"{keys}: {problem}" if keys else problem))

    def _place(self, location: Location) -> tuple[str, int | None]:
        """The printable key path and the line of a location; parts that are union tags are left out."""
        node: yaml.Node | None = self._root
        keys, line = "", None
        for depth, part in enumerate(location):
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                keys, line = f"{keys}[{part}]", node.start_mark.line + 1
                continue
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            for key, value in pairs:
                if key.value == str(part):
                    node, line = value, key.start_mark.line + 1
                    keys = f"{keys}.{part}" if keys else str(part)
                    break
            else:
                last = depth == len(location) - 1
                if last and isinstance(part, str) and part != "[key]" and (pairs or self._root is None):
                    keys = f"{keys}.{part}" if keys else part
        return keys, line


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stub has no type
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not supported", mark)
        return super().compose_node(parent, index)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(_line(path, None, f"cannot be read: {reason}")) from None
    if len(raw) > MAX_BYTES:
        _fail(path, None, f"is too large; allowed: at most {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(_line(path, line, "is not text; allowed: UTF-8")) from None


def _build(path: Path, loader: _Loader, node: yaml.Node, at: str) -> Any:
    if isinstance(node, yaml.CollectionNode) and node.tag != _PLAIN_TAGS[type(node)]:
        _fail(path, node.start_mark.line + 1, f"{at}: the YAML tag {node.tag!r} is not supported")
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(path, loader, node, at)
    if isinstance(node, yaml.SequenceNode):
        return [_build(path, loader, item, f"{at}[{n}]") for n, item in enumerate(node.value)]
    return loader.construct_object(node)


def _build_mapping(path: Path, loader: _Loader, node: yaml.MappingNode, at: str) -> dict[str, Any]:
    built: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            _fail(path, line, f"{at or 'top level'}: a key is not text; allowed: plain keys")
        # The text as written: a user called 123 or a key called `on` is a name, not a number or a boolean.
        name = key.value
        where = f"{at}.{name}" if at else name
        if name in lines:
            _fail(path, line, f"{where}: the key is given twice, first on line {lines[name]}")
        lines[name] = line
        built[name] = _build(path, loader, value, where)
    return built


def _without_empty_sections(data: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Leave out sections whose every key is commented out (YAML null), so that their defaults hold."""
    kept = dict(data)
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key not in kept:
            continue
        nested = _models([field.annotation])
        if kept[key] is None and (nested or get_origin(field.annotation) in (list, dict, tuple)):
            del kept[key]
        elif isinstance(kept[key], dict) and nested and get_origin(field.annotation) is not dict:
            kept[key] = _without_empty_sections(kept[key], nested[0])
    return kept


def describe(model: type[BaseModel], error: ErrorDetails) -> str:
    """One error of a validation in our words: what is wrong with the value, and what is allowed."""
    kind, location, message = error["type"], error["loc"], error["msg"]
    if kind == "extra_forbidden":
        allowed = sorted(key for owner in _models(_resolve(model, location[:-1])) for key in _keys(owner))
        close = difflib.get_close_matches(str(location[-1]), allowed, 1)
        hint = f", did you mean {close[0]}?" if close else ""
        return f"unknown key{hint}; allowed: {', '.join(allowed)}"
    if kind == "missing":
        return "the key is required and missing"
    if kind in ("value_error", "assertion_error"):
        return str(error.get("ctx", {}).get("error", message))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"got {_shown(model, error)}; allowed: a mapping"
    if kind in ("list_type", "tuple_type"):
        return f"got {_shown(model, error)}; allowed: a list"
    prefix = "Input should be "
    if message.startswith(prefix):
        return f"got {_shown(model, error)}; allowed: {message.removeprefix(prefix)}"
    return f"got {_shown(model, error)}; {message[:1].lower()}{message[1:]}"


def _shown(model: type[BaseModel], error: ErrorDetails) -> str:
    """The refused value as it may be printed: short, and never a secret."""
    value = error["input"]
    if any(_is_secret(annotation) for annotation in _resolve(model, error["loc"])):
        return "a value that is not shown"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _arms(annotation: Any) -> list[Any]:
    """An annotation's alternatives, without Annotated and unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _arms(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return [arm for option in get_args(annotation) for arm in _arms(option)]
    return [annotation]


def _models(annotations: Sequence[Any]) -> list[type[BaseModel]]:
    arms = [arm for annotation in annotations for arm in _arms(annotation)]
    return [arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)]


def _is_secret(annotation: Any) -> bool:
    return any(arm in (SecretStr, SecretBytes) for arm in _arms(annotation))


def _resolve(model: type[BaseModel], location: Location) -> list[Any]:
    """The annotations that hold at ``location``; a part that leads nowhere (a union's tag) is passed over."""
    current: list[Any] = [model]
    for part in location:
        deeper: list[Any] = []
        for arm in (arm for annotation in current for arm in _arms(annotation)):
            origin, arguments = get_origin(arm), get_args(arm)
            if isinstance(origin, type) and issubclass(origin, Mapping) and arguments:
                deeper.append(arguments[-1])
            elif isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset) and arguments:
                deeper.append(arguments[0])
            elif isinstance(arm, type) and issubclass(arm, BaseModel):
                fields = arm.model_fields.items()
                deeper += [field.annotation for name, field in fields if part in (name, field.alias)]
        current = deeper or current
    return current


def _line(path: Path, line: int | None, text: str) -> str:
    place = f"{path}:{line}" if line else str(path)
    return " ".join(f"{place}: {text}".split())


def _fail(path: Path, line: int | None, text: str) -> NoReturn:
    raise ConfigError(_line(path, line, text)) from None
