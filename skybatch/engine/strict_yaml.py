"""YAML as job and pool files may use it: plain mappings, lists and scalars, every key with its line.

Duplicate keys, anchors, aliases and tags are errors: the first hides a mistake, the others are how YAML is
made to build objects or to grow without bound.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from skybatch.errors import UsageError, nearest

MAX_BYTES = 1 << 20  # no honest job file is larger


class Section(dict[str, Any]):
    """A mapping of the file that knows where it stands, for messages."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file, self.line = file, line
        self.lines: dict[str, int] = {}

    @property
    def folder(self) -> str:
        """The folder that relative paths in it mean: the file's, or the current one of what was given in code."""
        return os.path.dirname(os.path.abspath(self.file))

    def error(self, message: str, key: str | None = None) -> UsageError:
        """A UsageError naming the file and the line of `key`, or of the mapping itself."""
        return UsageError(f"{self.file}:{self.lines.get(key or '', self.line)}: {message}")

    def require_known(self, known: Iterable[str], what: str) -> None:
        """Raise UsageError for a key outside `known`, naming the nearest that is in it."""
        allowed = sorted(known)
        for key in self:
            if key not in allowed:
                listed = ", ".join(allowed)
                raise self.error(
                    f"unknown key {key!r} in {what}{nearest(key, allowed)}; known: {listed}", key
                )

    def text(self, key: str) -> str | None:
        """The string at `key`, None when absent or null."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(f"{key} must be a string, not {value!r}", key)
        return value

    def count(self, key: str, *, least: int = 1) -> int | None:
        """The whole number at `key`, at least `least`; None when absent or null."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(f"{key} must be a whole number of at least {least}, not {value!r}", key)
        return value

    def section(self, key: str) -> Section:
        """The mapping at `key`, empty when absent or null."""
        value = self.get(key)
        if value is None:
            return Section(self.file, self.line)
        if not isinstance(value, Section):
            raise self.error(f"{key} must be a mapping, not {value!r}", key)
        return value


def plain(value: Any) -> Any:
    """The value with ordinary dicts for all sections in it: what leaves the file for someone's constructor or JSON."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def load(path: Path) -> Section:
    """Read a file that holds one mapping; raises UsageError, naming file and line."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if len(text) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES} bytes")
    return parse(text, str(path))


def parse(text: bytes | str, name: str) -> Section:
    """The mapping that `text` holds; `name` stands for the file in messages."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            value = _built(loader, node, name) if node else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{name}:{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{name}: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise UsageError(f"{name}: nested too deeply") from error
    if not isinstance(value, Section):
        raise UsageError(f"{name}: must hold a mapping of keys to values")
    return value


class _Loader(yaml.SafeLoader):
    """Refuses what is refused while composing, before an alias could multiply anything."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not allowed", problem_mark=event.start_mark
            )
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem=f"tags such as {event.tag!r} are not allowed", problem_mark=event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def _built(loader: _Loader, node: yaml.Node, name: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_built(loader, child, name) for child in node.value]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    section = Section(name, node.start_mark.line + 1)
    for key_node, value_node in node.value:
        key, line = _key(loader, key_node), key_node.start_mark.line + 1
        if key in section:
            problem = f"{key!r} is given twice, first in line {section.lines[key]}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        section.lines[key] = line
        section[key] = _built(loader, value_node, name)
    return section


def _key(loader: _Loader, node: yaml.Node) -> str:
    key = loader.construct_object(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(key, str):
        raise yaml.MarkedYAMLError(problem="keys must be strings", problem_mark=node.start_mark)
    return key
