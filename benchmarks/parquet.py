"""Parquet to Parquet with a function of each row: against pyarrow alone, Daft and Ray Data.

The rivals get a Python environment of their own, made beside the project's at the first run. The clock of a job runs
from `map()` entered, of Daft and Ray Data from their start, of the loops from exec; all until the output is durable.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import environments, harness
from benchmarks.harness import Figure, Settings
from benchmarks.parquet_rows import TIDIED, columns

ROWS, FILES, BATCH_SIZE = 1_000_000, 8, 1024
REQUIREMENTS = ("ray[data]==2.60.0", "daft==0.7.26")
ENVIRONMENT = Path(__file__).parents[1] / ".venv-rivals"
RIVALS = {
    "loop": ("one bare pyarrow process", 1.0),
    "loops": ("two bare pyarrow processes", 1.6),
    "daft": ("Daft", 1.0),
    "ray": ("Ray Data", 1.0),
}
"""What each is called, and how much of its time ours may take."""


def run(settings: Settings) -> Iterator[Figure]:
    """Whole jobs. On less than a hundredth of the data, rivals that are not installed yet are left out."""
    rows = int(ROWS * settings.scale)
    input = _input(settings.folder / "in", rows)
    output = settings.folder / "out.parquet"
    binary = environments.python(ENVIRONMENT, REQUIREMENTS, install=settings.scale >= 0.01)
    expected: list[Any] = []

    def ours() -> Any:
        measured = harness.job(
            settings.folder / "home",
            reader=["ParquetReader", {"path": str(input)}],
            writer=["ParquetWriter", {"path": str(output)}],
            mapper="tidy_rows",
            batch_size=BATCH_SIZE,
        )
        expected[:] = expected or [_table(output, sort=False)]
        assert _table(output, sort=False).equals(expected[0])
        return measured

    def loop(processes: int) -> Callable[[], Any]:
        return lambda: _loop(input, _emptied(settings.folder / "loop"), processes, expected[0])

    def rival(name: str) -> Callable[[], Any]:
        return lambda: _rival(name, str(binary), input, _emptied(settings.folder / name), expected[0])

    contenders = {"ours": ours, "loop": loop(1), "loops": loop(2)}
    contenders |= {name: rival(name) for name in ("daft", "ray") if binary is not None}
    found = dict(zip(contenders, harness.interleaved(settings.repeats, *contenders.values()), strict=True))
    seconds = {name: harness.median(results) for name, results in found.items()}
    for name, (what, at_most) in RIVALS.items():
        if name in found:
            details: dict[str, Any] = {"ours": seconds["ours"], name: seconds[name], "rows": rows}
            if harness.median(found[name], "ready"):
                details["without its start"] = harness.median([_running(result) for result in found[name]])
            yield Figure(
                benchmark="parquet",
                what=f"time of a whole job over that of {what}",
                value=seconds["ours"] / seconds[name],
                unit="x",
                at_most=at_most,
                details=details,
            )


def _input(folder: Path, rows: int) -> Path:
    """A folder of files, which all contenders read in parallel."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir()
    edges = [rows * number // FILES for number in range(FILES + 1)]
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        parquet.write_table(pa.table(columns(end - start, start)), folder / f"{number}.parquet", compression="zstd")
    return folder


def _loop(input: Path, output: Path, processes: int, expected: Any) -> Any:
    began = time.monotonic()
    module = ("-m", "benchmarks.parquet_rivals", "loop", str(input), str(output))
    started = [harness.python(*module, str(first), str(processes)) for first in range(processes)]
    for process in started:
        harness.answer(process)
    seconds = time.monotonic() - began
    assert _table(output, sort=True).equals(expected)
    return {"seconds": seconds, "ready": 0.0}


def _rival(name: str, binary: str, input: Path, output: Path, expected: Any) -> Any:
    measured = harness.answer(
        harness.python("-m", "benchmarks.parquet_rivals", name, str(input), str(output), binary=binary)
    )
    assert _table(output, sort=True).equals(expected)
    return measured


def _running(measured: Any) -> Any:
    return {"seconds": measured["seconds"] - measured["ready"]}


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _table(path: Path, *, sort: bool) -> Any:
    """What was written, in one order of columns, types and, where asked for, rows."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {"id": pa.int64(), "country": pa.string()}
    types |= dict(zip(TIDIED, (pa.string(), pa.int64(), pa.string(), pa.float64()), strict=True))
    table = parquet.read_table(path).select(list(types)).cast(pa.schema(types)).combine_chunks()
    return table.sort_by("id") if sort else table
