"""Workers as actors of an existing Dask cluster, pinned to its workers. Retries are ours."""

from __future__ import annotations

import importlib.util
import re
from typing import Any, ClassVar

from skybatch.errors import UsageError
from skybatch.executors.base import ExecutorOptions, Slot
from skybatch.executors.cluster import Actor, ClusterExecutor, travelling_pipe, whole
from skybatch.executors.connection import LOADER

CONNECT_S = 15


class DaskExecutor(ClusterExecutor):
    """One worker for each thread of each Dask worker; `workers_per_node` sets another number."""

    name: ClassVar[str] = "dask"
    keys: ClassVar[frozenset[str]] = ClusterExecutor.keys | {"workers_per_node"}

    def __init__(self, options: ExecutorOptions) -> None:
        self._client: Any = None
        self._nodes: dict[str, str] = {}  # addresses, by the name of the slot
        super().__init__(options)

    @classmethod
    def check(cls, options: ExecutorOptions) -> None:
        """Raise UsageError where Dask is not installed, or no address is given."""
        if importlib.util.find_spec("distributed") is None:
            raise UsageError("executor: distributed is not installed; install it with: pip install 'skybatch[dask]'")
        if not isinstance(options.options.get("address"), str):
            raise UsageError("address: where the scheduler is, as tcp://10.0.0.1:8786")
        whole(options, "workers_per_node", 1, least=1)

    def connect(self) -> None:
        """Join as a client."""
        import distributed

        library: Any = distributed  # whose functions say nothing of types
        address = self.options.options["address"]
        self._client = library.Client(address, timeout=CONNECT_S, set_as_default=False)

    def find(self) -> list[Slot]:
        """Those of the workers that the scheduler knows."""
        known = self._client.scheduler_info(n_workers=-1)["workers"]
        nodes, found = {}, []
        for address, worker in sorted(known.items()):
            each = whole(self.options, "workers_per_node", worker["nthreads"], least=1)
            for number in range(each):
                name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{address.partition('://')[2]}-{number}")
                nodes[name] = address
                found.append(Slot(name=name, place=address))
        self._nodes = nodes
        return found[: self.options.workers]

    def actor(self, slot: Slot) -> Actor:
        """An actor on the slot's node and no other."""
        client, address = self._client, self._nodes[slot.name]

        def make() -> Any:
            kind = travelling_pipe("AsyncPipe")
            future = client.submit(kind, LOADER, actor=True, workers=[address], pure=False, retries=0)
            with client.as_current():  # in this thread alone: the process may have a client of its own
                return future.result(), future

        def call(handle: Any, name: str, *args: Any) -> Any:
            with client.as_current():
                return getattr(handle[0], name)(*args).result()

        return Actor(make, call, lambda handle: handle[1].release())

    def disconnect(self) -> None:
        """Leave; what we had made there goes with us."""
        if self._client is not None:
            self._client.close()
