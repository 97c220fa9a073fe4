"""The built-in executors, registered like any plugin's."""

from __future__ import annotations

from typing import Any

from skybatch.hookspecs import hookimpl


@hookimpl
def skybatch_executors() -> dict[str, Any]:
    from skybatch.executors.command import CommandExecutor
    from skybatch.executors.dask import DaskExecutor
    from skybatch.executors.gpu import GpuExecutor
    from skybatch.executors.inline import InlineExecutor
    from skybatch.executors.local import LocalExecutor
    from skybatch.executors.ray import RayExecutor
    from skybatch.executors.ssh import SshExecutor

    return {
        "local": LocalExecutor,
        "inline": InlineExecutor,
        "gpu": GpuExecutor,
        "ssh": SshExecutor,
        "command": CommandExecutor,
        "ray": RayExecutor,
        "dask": DaskExecutor,
    }
