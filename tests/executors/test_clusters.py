"""Jobs on real clusters of two nodes, Ray's and Dask's."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.bench import Bench, Ended, end_of
from tests.tools.clusters import Cluster, needs
from tests.tools.pages import shown_pool
from tests.tools.processes import wait_until

pytestmark = pytest.mark.full
OUTPUTS = ["json", "yaml", "texts", "parquet"]
PAUSED = 75


@pytest.fixture(
    params=[pytest.param("ray", marks=needs("ray")), pytest.param("dask", marks=needs("distributed"))], scope="module"
)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def cluster(kind: str) -> Iterator[Cluster]:
    with Cluster(kind) as running:
        yield running


def pool(kind: str, cluster: Cluster, **options: Any) -> dict[str, Any]:
    """A pool of all the cluster has."""
    return {"executor": kind, "options": {"address": cluster.address, **options}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), outputs=OUTPUTS)
    bench.succeed(bench.start())
    return bench.outputs()


def cli(bench: Bench, *arguments: str) -> Ended:
    """Run the command."""
    return end_of(bench.spawn(["-m", "skybatch.cli", *arguments]))


@pytest.mark.parametrize("shared", [None, False], ids=["direct", "relayed"])
def test_outputs_are_those_of_local_workers(
    kind: str, cluster: Cluster, tmp_path: Path, undisturbed: dict[str, bytes], shared: bool | None
) -> None:
    options = {} if shared is None else {"shared": shared}
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, mapping_s=0.02, pool=pool(kind, cluster, **options))
    bench.succeed(bench.start())
    assert bench.outputs() == undisturbed


def test_the_page_s_pool_is_run(kind: str, cluster: Cluster, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, pool=shown_pool(kind, address=cluster.address))
    bench.succeed(bench.start())
    assert bench.outputs() == undisturbed


def test_both_nodes_are_used_and_told(kind: str, cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job", items=600, mapping_s=0.2, pool=pool(kind, cluster))
    process = bench.start()
    bench.wait_for_note("ranges.log", count=3)
    wait_until(lambda: ready(bench) == 2, 60, "two workers")
    process.terminate()
    assert end_of(process).code == 128 + signal.SIGTERM


def ready(bench: Bench) -> int:
    """How many workers are at work."""
    workers = json.loads(cli(bench, "status", bench.job_id, "--json").out)["workers"]
    return sum(worker["state"] == "ready" for worker in workers)


def test_workers_end_with_a_killed_engine_and_another_goes_on(kind: str, cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job", items=240, mapping_s=0.1, pool=pool(kind, cluster))
    process = bench.start()
    bench.wait_for_note("ranges.log", count=5)
    process.kill()
    process.communicate()
    time.sleep(6)
    seen = len(bench.notes("ranges.log"))
    time.sleep(1)
    assert len(bench.notes("ranges.log")) == seen  # nobody maps any more
    ended = cli(bench, "resume", bench.job_id, "--pool", "local")
    assert ended.code == 0, ended
    assert bench.outputs() == whole(tmp_path)


def whole(tmp_path: Path) -> dict[str, bytes]:
    """What 240 items come to."""
    bench = Bench(tmp_path / "whole", items=240)
    bench.succeed(bench.start())
    return bench.outputs()


def test_check_tells_of_every_slot(kind: str, cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job")
    file = bench.folder / "pool.yaml"
    file.write_text(json.dumps(pool(kind, cluster)))
    assert cli(bench, "pool", "apply", str(file), "--pool", "cluster").code == 0
    ended = cli(bench, "pool", "check", "cluster", "--json")
    assert ended.code == 0, ended
    assert [one["error"] for one in json.loads(ended.out)] == [None, None]


def test_a_node_that_dies_leaves_its_work_to_others_and_one_that_joins_is_used(kind: str, tmp_path: Path) -> None:
    options = {"shared": False} if kind == "dask" else {}
    with Cluster(kind) as cluster:
        bench = Bench(tmp_path / "job", items=600, mapping_s=0.2, pool=pool(kind, cluster, **options))
        process = bench.start()
        bench.wait_for_note("ranges.log", count=10)
        wait_until(lambda: ready(bench) == 2, 60, "two workers")
        cluster.tell("kill")
        wait_until(lambda: ready(bench) == 1, 60, "one worker")
        cluster.tell("add")
        wait_until(lambda: ready(bench) == 2, 60, "two workers")
        bench.succeed(process)
    local = Bench(tmp_path / "whole", items=600)
    local.succeed(local.start())
    assert bench.outputs() == local.outputs()
    assert json.loads(cli(bench, "errors", bench.job_id, "--json").out) == []


def test_a_cluster_that_is_not_there_pauses_the_job(kind: str, tmp_path: Path) -> None:
    asked = {"executor": kind, "options": {"address": "tcp://127.0.0.1:9" if kind == "dask" else "127.0.0.1:9"}}
    ended = end_of(Bench(tmp_path / "job", pool=asked).start())
    assert ended.code == PAUSED, ended
    assert "no worker can be started" in ended.err and "resume" in ended.err
