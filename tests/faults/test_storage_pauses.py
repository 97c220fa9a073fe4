"""A store that refuses or does not answer pauses the job, whoever was using it; no item is charged."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, JsonReader, JsonWriter, io_formats
from skybatch.cli.exits import PAUSED
from skybatch.engine.job import find_job
from skybatch.errors import StorageFailed
from skybatch.formats import copies, stores
from tests.faults.test_publish_stores import StoreBench, is_publishing
from tests.tools.bench import TIMEOUT_S, Bench, end_of
from tests.tools.invariants import nothing_charged
from tests.tools.processes import wait_until
from tests.tools.proxy import Request, Status, running
from tests.tools.servers import use_s3


@dataclass
class Faraway(io_formats.InputReader):
    """Items from a store that is out of reach while there is a file at `path`."""

    def __len__(self) -> int:
        return 20

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        if start_idx >= 10 and Path(self.path).exists():
            raise StorageFailed("s3://far: no answer for 300 s")
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


@dataclass
class FarawayWriter(io_formats.OutputWriter):
    """As Faraway, in upload_batch, reduce_results or cleanup."""

    gate: str
    where: str

    def _pass(self, where: str) -> None:
        if where == self.where and Path(self.gate).exists():
            raise StorageFailed("s3://far: no answer for 300 s")

    def upload_batch(self, results: list[dict[str, Any]], start_idx: int, end_idx: int, job_id: str) -> str:
        if start_idx >= 10:
            self._pass("upload")
        return ""

    def reduce_results(self, job_id: str) -> None:
        self._pass("reduce")

    def cleanup(self, job_id: str) -> None:
        self._pass("cleanup")


def same(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return batch


@pytest.mark.parametrize("where", ["read", "upload", "reduce", "cleanup"])
@pytest.mark.parametrize("executor", ["local", "inline"])
def test_a_reader_s_or_writer_s_storage_pauses_the_job(executor: str, where: str, tmp_path: Path) -> None:
    gate, output = tmp_path / "gate", tmp_path / "out.jsonl"
    gate.touch()
    writers = [JsonWriter(str(output)), FarawayWriter(str(tmp_path / "other"), str(gate), where)]
    reader = Faraway(str(gate) if where == "read" else str(tmp_path / "no gate"))
    with pytest.raises(skybatch.Paused, match="no answer for 300 s") as caught:
        Dataset(reader).map(same, output=writers, batch_size=5, executor=executor, workers=1)
    assert caught.value.exit_code == PAUSED
    job = find_job(caught.value.job_id)
    assert nothing_charged(job.folder.journal)
    assert job.state == ("published" if where == "cleanup" else "paused")
    gate.unlink()
    skybatch.resume(job.id)
    assert job.state == "cleaned" and nothing_charged(job.folder.journal)
    assert len(output.read_text().splitlines()) == 20


REFUSED: dict[str, Callable[[Request], bool]] = {
    "segments": lambda request: request.path.endswith(".seg") and request.method == "PUT",
    "batch files": lambda request: "merged.jsonl/0" in request.path and request.method == "PUT",
    "publishing": is_publishing,
    "cleaning up": lambda request: "delete" in request.query,
}


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.full] if what != "publishing" else []) for what in REFUSED]
)
def test_refused_credentials_pause_the_job_until_there_are_new_ones(
    what: str, moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid: list[str] = []

    def expired(request: Request) -> Status | None:
        return Status(403, "ExpiredToken") if not valid and REFUSED[what](request) else None

    with running(moto, expired) as proxy:
        use_s3(proxy.url, monkeypatch)
        bench = StoreBench(tmp_path, moto_bucket)
        ended = end_of(bench.start())
        assert ended.code == PAUSED, ended
        assert "credentials" in ended.err and f"skybatch resume {bench.job_id}" in ended.err
        assert nothing_charged(bench.job_folder / "journal.db")
        valid.append("new ones")
        bench.succeed(bench.start_resume())
        bench.assert_done()


@pytest.mark.full
def test_a_merge_that_waits_for_its_store_does_not_hold_up_signals(
    moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [True]

    def segments_are_away(request: Request) -> Status | None:
        return Status(503) if away and request.path.endswith(".seg") and request.method == "GET" else None

    with running(moto, segments_are_away) as proxy:
        use_s3(proxy.url, monkeypatch)
        bench = Bench(tmp_path, outputs=["parquet"], store=moto_bucket, mapping_s=0.5)
        process = bench.start()
        wait_until(lambda: proxy.faults() > 0, TIMEOUT_S, "the merge's first request")
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        ended = end_of(process)  # sooner than SKYBATCH_STORAGE_PATIENCE_S
        assert ended.code == 128 + signal.SIGINT and "Traceback" not in ended.err, ended
        away.clear()
        bench.succeed(bench.start_resume())
        bench.check(done=True)


def slowly(batch: list[dict[str, Any]], note: str) -> list[dict[str, Any]]:
    Path(note).touch()
    time.sleep(0.05)
    return batch


def test_credentials_that_expire_while_input_is_read_pause_the_job(
    moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers read by ranges here; from the first mapped batch on, the store refuses."""
    mapped, renewed = tmp_path / "mapped", tmp_path / "renewed"
    source, output = f"{moto_bucket}/in.jsonl", tmp_path / "out.jsonl"
    stores.of(source).put(source, b"".join(b'{"i": %d}\n' % i for i in range(400)))
    monkeypatch.setattr(copies, "SHARE", 0)

    def refused(request: Request) -> Status | None:
        of_input = request.path.endswith("in.jsonl") and request.method == "GET"
        return Status(403, "ExpiredToken") if of_input and mapped.exists() and not renewed.exists() else None

    with running(moto, refused) as proxy:
        use_s3(proxy.url, monkeypatch)
        with pytest.raises(skybatch.Paused, match="credentials") as caught:
            Dataset(JsonReader(source)).map(
                slowly, mapper_args={"note": str(mapped)}, batch_size=5, workers=2, output=JsonWriter(str(output))
            )
        job = find_job(caught.value.job_id)
        assert nothing_charged(job.folder.journal) and job.progress().items_done < 400
        renewed.touch()
        skybatch.resume(job.id)
    assert len(output.read_text().splitlines()) == 400
