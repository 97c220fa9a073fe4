"""A worker that maps nothing, and tells of the place it is in: for `skybatch pool check`."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any, Dict

from skybatch.worker.gpus import devices
from skybatch.worker.serve import Channel

TOLD = ("orjson", "pyarrow", "pillow", "numpy", "torch", "transformers", "vllm")
"""Distributions whose versions are told, where they are installed."""


def answer(channel: Channel) -> None:
    """Tell what is here, then answer pings until told to stop."""
    channel.send({"op": "ready", "facts": facts()})
    while True:
        frame = channel.receive()
        if frame is None or frame["op"] in ("stop", "drain"):
            return
        if frame["op"] == "ping":
            channel.send({"op": "pong", "id": frame["id"]})


def facts() -> Dict[str, Any]:
    """This machine and Python, as JSON."""
    free = os.statvfs(os.getcwd())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "host": os.uname().nodename,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable,
        "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free": free.f_bavail * free.f_frsize,
        "versions": _versions(),
        "gpus": [each for each in devices() if visible is None or each["uuid"] in visible.split(",")],
    }


def _versions() -> Dict[str, str]:
    found: Dict[str, str] = {}
    for name in TOLD:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found
