"""Every boundary of a job, one after the other: the engine or a worker dies there, or the disk fails; all comes right.

A sample of them is taken, another one every day; EVERY_BOUNDARY=1 takes them all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.test_publish_stores import StoreBench
from tests.tools.bench import Bench, end_of
from tests.tools.boundaries import EVERY, PAUSED, attacked, recover, that_can_fail
from tests.tools.servers import s3_bucket

OUTPUTS = ["json", "yaml", "shards", "texts", "parquet"]
STEP, STEP_OF_RECOVERIES, STEP_OF_WORKERS, STEP_OF_STORE = 41, 101, 31, 31


def job(folder: Path) -> Bench:
    return Bench(folder, items=40, outputs=OUTPUTS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    bench = job(tmp_path_factory.mktemp("undisturbed"))
    bench.succeed(bench.start())
    return job_outputs(bench)


def job_outputs(bench: Bench) -> dict[str, bytes]:
    return bench.outputs()


@pytest.mark.full
def test_an_engine_that_dies_at_any_boundary(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    numbers = []
    for number, bench, ended in attacked(job, tmp_path, STEP):
        assert ended.code == -9, ended
        assert recover(bench, undisturbed)
        numbers.append(number)
    print(f"{len(numbers)} boundaries up to the {numbers[-1]}th")
    assert numbers[-1] > 200


@pytest.mark.full
def test_a_recovery_that_dies_at_any_boundary_too(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    deaths = 0
    for number, bench, ended in attacked(job, tmp_path, STEP_OF_RECOVERIES):
        assert ended.code == -9, ended
        again = 1 + number % 29  # where a job was nearly done, its recovery may pass fewer
        while not recover(bench, undisturbed, failpoint=f"*:{again}"):
            again += 29 if not EVERY else 7
            deaths += 1
    assert deaths


@pytest.mark.full
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO"])
def test_a_disk_that_fails_at_any_boundary(fault: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    whole, trace = job(tmp_path / "whole"), tmp_path / "trace"
    whole.succeed(whole.start(env={"SKYBATCH_FAILPOINT_TRACE": str(trace)}))
    for number, bench, ended in attacked(job, tmp_path, STEP, fault, last=that_can_fail(trace)):
        if ended.code == 0:
            assert bench.outputs() == undisturbed  # what failed there did not matter
            continue
        assert ended.code == PAUSED, (number, ended)
        assert "Traceback" not in ended.err, (number, ended)
        assert recover(bench, undisturbed)


@pytest.mark.full
def test_a_worker_that_dies_at_any_boundary(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    for number in range(1, 1000, 1 if EVERY else STEP_OF_WORKERS):
        bench = job(tmp_path / str(number))
        latch = tmp_path / f"{number}.once"
        environment = {"SKYBATCH_WORKER_FAILPOINT": f"*:{number}", "SKYBATCH_WORKER_FAILPOINT_ONCE": str(latch)}
        ended = end_of(bench.start(env=environment))
        assert ended.code == 0, (number, ended)
        assert bench.outputs() == undisturbed
        if not latch.exists():
            assert number > 10
            return


@pytest.mark.full
def test_an_engine_that_dies_at_any_step_of_a_store(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_store(folder: Path) -> StoreBench:
        with s3_bucket(moto, monkeypatch) as bucket:
            return StoreBench(folder, bucket, outputs=["json", "zipped", "merged", "shards"])

    whole = in_store(tmp_path / "undisturbed")
    whole.succeed(whole.start())
    for _, bench, ended in attacked(in_store, tmp_path, STEP_OF_STORE, where="store.*"):
        assert isinstance(bench, StoreBench) and ended.code == -9, ended
        bench.succeed(bench.start_resume() if any(bench.home.glob("jobs/*/spec.json")) else bench.start())
        assert bench.objects() == whole.objects()
