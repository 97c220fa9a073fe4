"""Jobs from Parquet to Parquet: the same bytes whatever happens to the engine and however the work was cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet as pq

from skybatch.formats import stores
from tests.tools.bench import Bench

JOB = {"reader": "parquet", "outputs": ["parquet"]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The outputs of each mapper when nothing happens to the job."""
    found = {}
    for mapper in ("enrich", "widen"):
        bench = Bench(tmp_path_factory.mktemp(mapper), mapper=mapper, **JOB)
        bench.succeed(bench.start())
        found[mapper] = bench.outputs()
    return found


@pytest.mark.parametrize(
    ("mapper", "failpoint"),
    [
        pytest.param("enrich", "after-commit:4", marks=pytest.mark.full),
        ("widen", "merging:2"),
        pytest.param("widen", "before-publish", marks=pytest.mark.full),
    ],
)
def test_a_killed_job_is_resumed_to_the_same_file(
    mapper: str, failpoint: str, tmp_path: Path, undisturbed: dict[str, dict[str, bytes]]
) -> None:
    bench = Bench(tmp_path, mapper=mapper, **JOB)
    bench.crash(bench.start(failpoint=failpoint))
    bench.succeed(bench.start_resume())
    bench.check(done=True)
    assert bench.outputs() == undisturbed[mapper]


@pytest.mark.full
def test_retries_sizes_of_batches_and_numbers_of_workers_leave_no_trace(
    tmp_path: Path, undisturbed: dict[str, dict[str, bytes]]
) -> None:
    for number, options in enumerate(({"mapper": "stumble"}, {"batch_size": 7, "workers": 1}, {"batch_size": 999})):
        bench = Bench(tmp_path / str(number), **JOB, **options)
        bench.succeed(bench.start())
        assert bench.outputs() == undisturbed["enrich"]


def test_a_column_that_comes_late_is_null_before(tmp_path: Path, undisturbed: dict[str, dict[str, bytes]]) -> None:
    (tmp_path / "rows.parquet").write_bytes(undisturbed["widen"]["rows.parquet"])
    file = pq.ParquetFile(tmp_path / "rows.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(4)] == [32, 32, 32, 24]
    rows = file.read().to_pylist()
    assert [row["id"] for row in rows] == list(range(120))
    assert rows[89] == {"id": 89, "word": "item 7921", "parity": 1.0, "late": None}
    assert rows[91] == {"id": 91, "word": "item 8281", "parity": 0.5, "late": [91]}


@pytest.mark.full
def test_a_job_from_store_to_store_has_the_same_file(
    tmp_path: Path, moto_bucket: str, undisturbed: dict[str, dict[str, bytes]]
) -> None:
    bench = Bench(tmp_path, mapper="widen", store=moto_bucket, **JOB)
    bench.succeed(bench.start())
    assert stores.of(moto_bucket).read(f"{moto_bucket}/out/rows.parquet") == undisturbed["widen"]["rows.parquet"]
