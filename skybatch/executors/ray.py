"""Workers as actors of an existing Ray cluster. Ray places them and adds nodes for them; retries are ours."""

from __future__ import annotations

import importlib.util
import socket
from typing import Any, ClassVar

from skybatch.errors import UsageError
from skybatch.executors.base import ExecutorOptions, Slot, numbered
from skybatch.executors.cluster import Actor, ClusterExecutor, travelling_pipe, whole
from skybatch.executors.connection import LOADER

CONNECT_S = 5.0


class RayExecutor(ClusterExecutor):
    """`workers` actors, wherever Ray places them; without that, as many on each node as its resources allow."""

    name: ClassVar[str] = "ray"
    keys: ClassVar[frozenset[str]] = ClusterExecutor.keys | {"cpus_per_worker", "gpus_per_worker", "ray_resources"}

    @classmethod
    def check(cls, options: ExecutorOptions) -> None:
        """Raise UsageError where Ray is not installed, or its resources are no numbers."""
        if importlib.util.find_spec("ray") is None:
            raise UsageError("executor: ray is not installed; install it with: pip install 'skybatch[ray]'")
        if not whole(options, "cpus_per_worker", 1) and not whole(options, "gpus_per_worker", 0):
            raise UsageError("cpus_per_worker: a worker must ask for something, or any number would fit anywhere")
        if not isinstance(options.options.get("ray_resources", {}), dict):
            raise UsageError("ray_resources: a mapping of Ray's custom resources to numbers")

    def connect(self) -> None:
        """Join as a driver."""
        import ray

        address = self.options.options.get("address", "auto")
        _require_listener(address)
        if not ray.is_initialized():
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                include_dashboard=False,
            )

    def find(self) -> list[Slot]:
        """As many as are asked for, or fit into what the nodes have that are alive."""
        import ray

        if self.options.workers is not None:
            return numbered(self.options.workers)
        wanted, found = self._resources(), []
        cluster: Any = ray  # whose functions say nothing of types
        for node in cluster.nodes():
            if node["Alive"]:
                room = min(int(node["Resources"].get(name, 0) // amount) for name, amount in wanted.items())
                found += [Slot(name=f"{node['NodeID'][:12]}-{n}", place=node["NodeID"]) for n in range(room)]
        return found

    def actor(self, slot: Slot) -> Actor:
        """An actor whose calls may overlap, which is never made again by Ray."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        cls: Any = ray.remote(travelling_pipe("Pipe"))
        wanted = self._resources()
        options = {
            "num_cpus": wanted.pop("CPU", 0),
            "num_gpus": wanted.pop("GPU", 0),
            "resources": wanted,
            "max_concurrency": 4,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if slot.place:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(slot.place, soft=False)

        def make() -> Any:
            handle = cls.options(**options).remote(LOADER)
            ray.get(handle.words.remote())
            return handle

        def call(handle: Any, name: str, *args: Any) -> Any:
            return ray.get(getattr(handle, name).remote(*args))

        return Actor(make, call, lambda handle: ray.kill(handle))

    def _resources(self) -> dict[str, float]:
        asked = {
            "CPU": whole(self.options, "cpus_per_worker", 1),
            "GPU": whole(self.options, "gpus_per_worker", 0),
            **self.options.options.get("ray_resources", {}),
        }
        return {name: amount for name, amount in asked.items() if amount}

    def disconnect(self) -> None:
        """Leave; what we had made there goes with us."""
        import ray

        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError when nobody listens at `HOST:PORT`: Ray itself takes more than a minute to find that out."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_S).close()
