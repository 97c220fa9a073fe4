"""Our own executors keep the contract that others are held to."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from skybatch.testing import ExecutorSuite
from tests.tools.clusters import Cluster, needs
from tests.tools.sshd import Hosts, needs_sshd

pytestmark = pytest.mark.full


class TestLocal(ExecutorSuite):
    """Processes of this machine."""

    pool = {"executor": "local", "workers": 2}  # noqa: RUF012


class TestCommand(ExecutorSuite):
    """Processes behind a command line."""

    pool = {"executor": "command", "workers": 2, "options": {"command": f"nice {sys.executable}"}}  # noqa: RUF012


class TestCommandRelayed(ExecutorSuite):
    """The same, with this machine reading and writing for them."""

    pool = {  # noqa: RUF012
        "executor": "command",
        "workers": 2,
        "options": {"command": f"nice {sys.executable}", "shared": False},
    }


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    found = Hosts(tmp_path_factory.mktemp("hosts"), 2)
    yield found
    found.stop()


@needs_sshd
class TestSsh(ExecutorSuite):
    """Hosts."""

    @pytest.fixture(autouse=True)
    def _pool(self, hosts: Hosts) -> None:
        own = {"hosts": hosts.names, "ssh_config": str(hosts.config), "python": sys.executable}
        self.pool = {"executor": "ssh", "workers": 1, "options": own}


@pytest.fixture(scope="module")
def dask() -> Iterator[Cluster]:
    with Cluster("dask") as cluster:
        yield cluster


@needs("distributed")
class TestDask(ExecutorSuite):
    """Dask's workers; Ray's need a driver whose warnings are errors here, and have tests of their own."""

    @pytest.fixture(autouse=True)
    def _pool(self, dask: Cluster) -> None:
        self.pool = {"executor": "dask", "options": {"address": dask.address}}
