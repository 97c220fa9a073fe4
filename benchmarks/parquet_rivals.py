"""The rivals of the Parquet benchmark: `python -m benchmarks.parquet_rivals NAME INPUT OUTPUT`; JSON is printed.

Each reads a folder of Parquet files, tidies every row and writes a folder of Parquet files, in the way that was
found to be the fastest for it on two cores. The clock runs until the files are written; imports are not in it, the
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
DAFT = {"cls": True, "use_process": True, "batch_size": 16_384, "max_concurrency": CPUS}
RAY = {"batch_size": 16_384}


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
    return {"seconds": time.monotonic() - began, "ready": 0.0}


def _tidied(batch: Any) -> dict[str, Any]:
    """The new columns of an Arrow batch."""
    values = [batch.column(name).to_pylist() for name in ("text", "email", "price", "quantity")]
    return dict(zip(TIDIED, map(list, zip(*map(tidy, *values), strict=True)), strict=True))


def daft(input: str, output: str) -> dict[str, Any]:
    """Daft on its native runner; the function in processes of its own."""
    import daft as engine
    import pyarrow as pa

    Type = engine.DataType
    asked = {**DAFT, **json.loads(os.environ.get("TUNE", "{}"))}
    compression = asked.pop("compression", "zstd")
    single = asked.pop("single", False)
    types = dict(zip(TIDIED, (Type.string(), Type.int64(), Type.string(), Type.float64()), strict=True))

    batch_size = asked.pop("batch_size")

    def tidied(text: Any, email: Any, price: Any, quantity: Any) -> Any:
        values = [series.to_pylist() for series in (text, email, price, quantity)]
        columns = list(zip(*map(tidy, *values), strict=True))
        return pa.StructArray.from_arrays([pa.array(column) for column in columns], names=list(TIDIED))

    if asked.pop("cls"):

        @engine.cls(**asked)
        class Tidy:
            @engine.method.batch(
                return_dtype=Type.struct(types), unnest=True, batch_size=batch_size
            )
            def tidied(self, text: Any, email: Any, price: Any, quantity: Any) -> Any:
                return tidied(text, email, price, quantity)

        call = Tidy().tidied
    else:
        call = engine.func.batch(return_dtype=Type.struct(types), unnest=True, batch_size=batch_size, **asked)(tidied)

    began = time.monotonic()
    engine.set_runner_native(num_threads=CPUS)
    frame = engine.read_parquet(f"{input}/*.parquet")
    frame = frame.select(*KEPT, call(*(engine.col(name) for name in ("text", "email", "price", "quantity"))))
    frame.write_parquet(output, compression=compression, single_file=single)
    return {"seconds": time.monotonic() - began, "ready": 0.0}


def ray(input: str, output: str) -> dict[str, Any]:
    """Ray Data on a Ray of its own."""
    import logging

    import pyarrow as pa
    import ray as engine
    import ray.data

    asked = {**RAY, **json.loads(os.environ.get("TUNE", "{}"))}
    began = time.monotonic()
    store = asked.pop("store", 2 << 30)
    engine.init(
        num_cpus=CPUS,
        object_store_memory=store,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    ready = time.monotonic() - began
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    blocks = asked.pop("blocks", None)
    format = asked.pop("format", "pyarrow")

    def tidied(batch: Any) -> Any:
        return pa.table({name: batch.column(name) for name in KEPT} | _tidied(batch))

    data = ray.data.read_parquet(input, override_num_blocks=blocks)
    data = data.map_batches(tidied, batch_format=format, zero_copy_batch=True, **asked)
    data.write_parquet(output, compression="zstd")
    seconds = time.monotonic() - began
    engine.shutdown()
    return {"seconds": seconds, "ready": ready}


if __name__ == "__main__":
    contenders = {"loop": loop, "daft": daft, "ray": ray}
    print(json.dumps(contenders[sys.argv[1]](*sys.argv[2:])))
