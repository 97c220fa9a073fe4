"""Clusters of two nodes on this machine, each in a process of its own.

    python -m tests.tools.clusters ray|dask

prints the address, then heeds `kill` (a node is gone, with all that ran there) and `add` on stdin, until that ends.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

import pytest

from tests.tools.bench import ROOT


def needs(module: str) -> pytest.MarkDecorator:
    """Skip where a cluster's library is not installed."""
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


class Cluster:
    """A cluster that runs within the `with` block."""

    def __init__(self, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.tools.clusters", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self.address = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("answer "):
                return line.split(maxsplit=1)[1].strip()
        raise AssertionError("the cluster did not come up")

    def tell(self, what: str) -> None:
        """`kill` or `add`; done when this returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._answer()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def _ray() -> tuple[Any, Any]:
    from ray.cluster_utils import Cluster as RayCluster

    cluster: Any = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1)]
    print("answer", cluster.address, flush=True)

    def heed(what: str) -> None:
        if what == "kill":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        else:
            nodes.append(cluster.add_node(num_cpus=1))

    return heed, cluster.shutdown


def _dask() -> tuple[Any, Any]:
    from distributed import Client, LocalCluster

    cluster: Any = LocalCluster(n_workers=0, dashboard_address=None)  # type: ignore[no-untyped-call]
    options = ["--nthreads=1", "--no-nanny", "--no-dashboard", "--local-directory", tempfile.mkdtemp()]
    words = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, *options]
    nodes = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for _ in range(2)]
    with Client(cluster) as client:
        client.wait_for_workers(2)  # type: ignore[no-untyped-call]
    print("answer", cluster.scheduler_address, flush=True)

    def heed(what: str) -> None:
        if what == "add":
            nodes.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        else:
            nodes.pop().kill()

    def close() -> None:
        for node in nodes:
            node.kill()
        cluster.close()

    return heed, close


def main(kind: str) -> None:
    heed, close = {"ray": _ray, "dask": _dask}[kind]()
    for line in sys.stdin:
        heed(line.strip())
        print("answer done", flush=True)
    close()


if __name__ == "__main__":
    main(sys.argv[1])
