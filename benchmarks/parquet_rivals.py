"""The rivals of the Parquet benchmark: `python -m benchmarks.parquet_rivals NAME INPUT OUTPUT`; JSON is printed.

Each reads a folder of Parquet files, tidies every row and writes a folder of Parquet files, in the way that was
found to be the fastest for it on two cores. The clock runs until the files are on the disk; imports are not in it, the
start of the rival's own processes is. `ready` is how much of `seconds` that start took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.parquet_rows import TIDIED, tidy

CPUS = 2
KEPT = ("id", "country")
TIDIED_FROM = ("text", "email", "price", "quantity")
DAFT_BATCH, RAY_BATCH = 16_384, 65_536
"""Rows in a call of the function: the best of several tried."""


def loop(input: str, output: str, first: str = "0", step: str = "1") -> dict[str, Any]:
    """pyarrow and nothing else, on every `step`th file from `first` on."""
    import pyarrow as pa
    from pyarrow import parquet

    began = time.monotonic()
    for path in sorted(Path(input).iterdir())[int(first) :: int(step)]:
        file, writer = parquet.ParquetFile(path), None
        for batch in file.iter_batches(16_384, use_threads=False):
            table = pa.Table.from_pydict({name: batch.column(name) for name in KEPT} | _tidied(batch))
            writer = writer or parquet.ParquetWriter(Path(output, path.name), table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
    _sync(output)
    return {"seconds": time.monotonic() - began, "ready": 0.0}


def _tidied(batch: Any) -> dict[str, Any]:
    """The new columns of an Arrow batch."""
    values = [batch.column(name).to_pylist() for name in TIDIED_FROM]
    return dict(zip(TIDIED, map(list, zip(*map(tidy, *values), strict=True)), strict=True))


def _sync(output: str) -> None:
    """Make what was written durable, as a job's output is."""
    for path in Path(output).iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def daft(input: str, output: str) -> dict[str, Any]:
    """Daft on its native runner, the function in two processes of its own: in threads it takes twice as long."""
    import daft as engine
    import pyarrow as pa

    kinds = (engine.DataType.string(), engine.DataType.int64(), engine.DataType.string(), engine.DataType.float64())
    type = engine.DataType.struct(dict(zip(TIDIED, kinds, strict=True)))

    class Tidy:
        def tidied(self, text: Any, email: Any, price: Any, quantity: Any) -> Any:
            values = [series.to_pylist() for series in (text, email, price, quantity)]
            columns = [pa.array(column) for column in zip(*map(tidy, *values), strict=True)]
            return pa.StructArray.from_arrays(columns, names=list(TIDIED))

    Tidy.tidied = engine.method.batch(return_dtype=type, unnest=True, batch_size=DAFT_BATCH)(Tidy.tidied)  # type: ignore[method-assign]
    began = time.monotonic()
    engine.set_runner_native(num_threads=CPUS)
    tidied = engine.cls(use_process=True, max_concurrency=CPUS)(Tidy)().tidied
    frame = engine.read_parquet(f"{input}/*.parquet")
    frame = frame.select(*KEPT, tidied(*map(engine.col, TIDIED_FROM)))
    frame.write_parquet(output, compression="zstd")
    _sync(output)
    return {"seconds": time.monotonic() - began, "ready": 0.0}


def ray(input: str, output: str) -> dict[str, Any]:
    """Ray Data on a Ray of its own: Arrow batches without copies, one task a file, no order kept."""
    import logging

    import pyarrow as pa
    import ray as engine
    import ray.data

    def tidied(batch: Any) -> Any:
        return pa.table({name: batch.column(name) for name in KEPT} | _tidied(batch))

    began = time.monotonic()
    engine.init(
        num_cpus=CPUS,
        object_store_memory=2 << 30,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    ready = time.monotonic() - began
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    data = ray.data.read_parquet(input)
    data = data.map_batches(tidied, batch_format="pyarrow", batch_size=RAY_BATCH, zero_copy_batch=True)
    data.write_parquet(output, compression="zstd")
    _sync(output)
    seconds = time.monotonic() - began
    engine.shutdown()
    return {"seconds": seconds, "ready": ready}


if __name__ == "__main__":
    contenders = {"loop": loop, "daft": daft, "ray": ray}
    print(json.dumps(contenders[sys.argv[1]](*sys.argv[2:])))
