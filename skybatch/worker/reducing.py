"""Custom reduce and cleanup, in a process of their own: what they do wrong cannot reach the engine."""

from __future__ import annotations

from collections.abc import Iterator

from skybatch.errors import name_place
from skybatch.formats import batchfiles, staging, storage
from skybatch.formats.base import OutputWriter
from skybatch.worker.frames import Frame
from skybatch.worker.loading import load_code
from skybatch.worker.serve import Channel


def reduce_outputs(channel: Channel, config: Frame) -> None:
    """Carry out `reduce` and `cleanup` frames, one output each, until told to stop.

    `reduced` says whether the writer wrote its own path (held back at `staged`), and whether others through `utils`.
    """
    job_id: str = config["job_id"]
    _, _, writers = load_code(config)
    batchfiles.set_catalogue(job_id, lambda: read_catalogue(config["catalogue"]))
    channel.send({"op": "ready"})
    while (frame := channel.receive()) is not None and frame["op"] != "stop":
        channel.send(carry_out(writers[frame["output"]], job_id, frame))


def carry_out(writer: OutputWriter, job_id: str, frame: Frame) -> Frame:
    """Carry out one frame; the answer to it."""
    try:
        if frame["op"] != "reduce":
            writer.cleanup(job_id)
            return {"op": "cleaned"}
        storage.use_scratch(batchfiles.scratch(writer.path, job_id))
        with staging.held_back(writer.commit_path(), frame["staged"]) as held:
            writer.reduce_results(job_id)
        return {"op": "reduced", "staged": held.written, "elsewhere": held.elsewhere}
    except OSError as error:
        name_place(error, writer.path)
        raise
    finally:
        storage.use_scratch(None)


def read_catalogue(path: str) -> Iterator[batchfiles.Stretch]:
    """The winners as the engine listed them for the reduce."""
    with open(path, encoding="ascii") as file:
        for line in file:
            start, end, size, nonce = line.split()
            yield batchfiles.Stretch(int(start), int(end), int(size), nonce)
