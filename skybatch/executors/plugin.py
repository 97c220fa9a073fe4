"""The built-in executors, registered like any plugin's."""

from __future__ import annotations

from typing import Any

from skybatch.executors import built_in
from skybatch.hookspecs import hookimpl


@hookimpl
def skybatch_executors() -> dict[str, Any]:
    return {name: built_in.load(name) for name in built_in.PLACES}
