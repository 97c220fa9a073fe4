"""The built-in executors by name. A job imports its own alone: some need a good part of the standard library."""

from __future__ import annotations

import importlib
from typing import Any

PLACES = {
    "local": "local:LocalExecutor",
    "inline": "inline:InlineExecutor",
    "gpu": "gpu:GpuExecutor",
    "ssh": "ssh:SshExecutor",
    "command": "command:CommandExecutor",
    "ray": "ray:RayExecutor",
    "dask": "dask:DaskExecutor",
}


def load(name: str) -> Any:
    """The class of one of them."""
    module, _, attribute = PLACES[name].partition(":")
    return getattr(importlib.import_module(f"skybatch.executors.{module}"), attribute)
