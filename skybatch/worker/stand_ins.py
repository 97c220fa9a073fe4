"""Names of skybatch that a worker elsewhere cannot have, as its Python is old or bare, and needs none of.

A module that travels to a worker as source imports what it uses on the engine's machine too: readers, `Dataset`, ...
There they are real. Here they may be named and inherited from, and whoever uses one is told why it does not work.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from skybatch.errors import MapperError

allowed = False
"""Whether names that cannot be had may be stood in for: in workers elsewhere alone."""


def named(home: str, name: str) -> Any:
    """What module `home` calls `name`, or a stand-in. Raises whatever the import raises where none are allowed."""
    try:
        return getattr(importlib.import_module(home), name)
    except (ImportError, TypeError) as error:
        if not allowed:
            raise
        return _stand_in(name, error)


def module(name: str) -> Any:
    """The module `skybatch.NAME`, as `named`."""
    try:
        return importlib.import_module(f"skybatch.{name}")
    except (ImportError, TypeError) as error:
        if not allowed:
            raise
        return _Missing(f"skybatch.{name}", error)


def _stand_in(name: str, error: Exception) -> Any:
    return _missing_class(name, error) if name[0].isupper() else _Missing(f"skybatch.{name}", error)


def _missing_class(name: str, error: Exception) -> type:
    def refuse(cls: type, *args: Any, **kwargs: Any) -> Any:
        raise _why(f"skybatch.{name}", error)

    return type(name, (), {"__new__": refuse})


class _Missing:
    """A function or module; as a decorator it changes nothing."""

    def __init__(self, name: str, error: Exception) -> None:
        self._name, self._error = name, error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return args[0]
        raise _why(self._name, self._error)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self._name}.{name}", self._error)


def _why(name: str, error: Exception) -> MapperError:
    version = "%d.%d" % sys.version_info[:2]
    return MapperError(f"{name} cannot be used in this worker, whose Python {version} lacks what it needs: {error}")
