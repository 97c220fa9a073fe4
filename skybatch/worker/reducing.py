"""Custom reduce and cleanup, in a process of their own: what they do wrong cannot reach the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skybatch.formats import batchfiles, staging, storage
from skybatch.worker.frames import Frame
from skybatch.worker.serve import Channel
from skybatch.worker.session import load_code


def reduce_outputs(channel: Channel, config: Frame) -> None:
    """Carry out `reduce` and `cleanup` frames, one output each, until told to stop.

    `reduced` says whether the writer wrote its own path (held back at `staged`) or put files elsewhere.
    """
    job_id: str = config["job_id"]
    _, _, writers = load_code(config)
    batchfiles.set_catalogue(job_id, lambda: _catalogue(config["catalogue"]))
    channel.send({"op": "ready"})
    while (frame := channel.receive()) is not None and frame["op"] != "stop":
        writer: Any = writers[frame["output"]]
        if frame["op"] == "reduce":
            storage.use_scratch(batchfiles.scratch(writer.path, job_id))
            with staging.held_back(writer.path, frame["staged"]) as held:
                writer.reduce_results(job_id)
            channel.send({"op": "reduced", "staged": held.written})
        else:
            storage.use_scratch(None)
            writer.cleanup(job_id)
            channel.send({"op": "cleaned"})


def _catalogue(path: str) -> Iterator[batchfiles.Stretch]:
    with open(path, encoding="ascii") as file:
        for line in file:
            start, end, size, nonce = line.split()
            yield batchfiles.Stretch(int(start), int(end), int(size), nonce)
