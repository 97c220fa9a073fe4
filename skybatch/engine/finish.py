"""Reduce, publish, clean up: every step journalled before and after, so that any of them can be taken again.

    open --merged, token journalled--> publishing --link or rename--> published --> cleaned

The token says how the published file is recognised as this job's: its inode, size and modification time. A
resumed job that finds its own token at the output's place has published already.
"""

from __future__ import annotations

import os
import selectors
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from skybatch.engine.environment import resolve
from skybatch.engine.interrupts import Interrupted
from skybatch.engine.spec import JobSpec
from skybatch.errors import JobFailed, JournalError
from skybatch.failpoints import reach
from skybatch.formats import batchfiles, storage
from skybatch.formats.base import OutputWriter, SegmentWriter
from skybatch.formats.merge import Merger
from skybatch.formats.segment import extents, read_index
from skybatch.formats.stores.base import Piece
from skybatch.journal.rows import OutputRow, Run, Segment
from skybatch.worker.frames import Frame

if TYPE_CHECKING:
    from skybatch.engine.run import Engine
    from skybatch.executors.base import WorkerChannel

Token = dict[str, int]


class Conflict(Exception):
    """Something that is not this job's stands at an output's place; it was left untouched."""


class Finishing:
    """Takes all outputs of a mapped job to the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._journal, self._spec = engine, engine.journal, engine.spec
        self._writers = engine.formats.writers
        self._reducer: _ReduceProcess | _ReduceHere | None = None
        self._state = self._journal.job().state

    def finish(self) -> None:
        """Go on from wherever the journal says this job is. Raises Conflict, JobFailed, SegmentDamaged."""
        try:
            self._refuse_gaps()
            rows = self._journal.outputs()
            if self._state not in ("published", "cleaned"):
                for row in rows:
                    self._publish(row)
                self._enter("published")
                reach("published")
            if not self._journal.counts().dead_items:
                for row in rows:
                    self._clean(row)
                self._enter("cleaned")
        finally:
            if self._reducer is not None:
                self._reducer.close()

    def _refuse_gaps(self) -> None:
        """Nothing is published unless every item is accounted for, whatever went before."""
        counts, length = self._journal.counts(), self._journal.job().length
        if counts.won_items + counts.dead_items != length:
            missing = f"{counts.won_items} items done and {counts.dead_items} set aside are not all {length}"
            raise JournalError(f"job {self._spec.id}: {missing}; nothing was published")

    def _enter(self, state: str) -> None:
        if self._state != state:
            self._journal.set_state(state)
            self._state = state

    # Publishing

    def _publish(self, row: OutputRow) -> None:
        if row.state in ("published", "cleaned"):
            return
        writer = self._writers[row.idx]
        if row.state == "publishing" and row.token is not None:
            if self._stands(writer.path, row.token):
                self._journal.set_output(row.idx, "published")
                return
            if token_of(self._staged(writer)) != row.token:
                row = OutputRow(idx=row.idx, path=row.path, state="open")
        token: Token | None = row.token
        if row.state == "open":
            self._enter("reducing")
            reach("reducing")
            token = self._reduce(row.idx, writer)
            self._journal.set_output(row.idx, "publishing", token)
        self._enter("publishing")
        if token is not None:
            reach("before-publish")
            self._put_in_place(row.idx, writer.path, self._staged(writer))
            reach("after-publish")
        self._journal.set_output(row.idx, "published")

    def _reduce(self, idx: int, writer: OutputWriter) -> Token | None:
        """Merge one output next to its place; its token, or None when there is nothing to put in place."""
        staged = self._staged(writer)
        if isinstance(writer, SegmentWriter):
            return self._merge(idx, writer, staged)
        if storage.is_local(staged):
            storage.make_folders(os.path.dirname(staged))
            storage.unlink_if_there(staged)
        if not self._in_reducer("reduce", idx, staged=staged)["staged"]:
            return None
        token = token_of(staged)
        assert token is not None
        return token

    def _merge(self, idx: int, writer: SegmentWriter, staged: str) -> Token:
        begun = self._engine.merging.pop(idx, None)
        merger, first = (begun.take_over() if begun else None) or (None, 0)
        merger = merger or Merger(staged, writer.header())
        try:
            for run, segment in self._journal.winners():
                if run.start >= first:
                    merger.add(winner_piece(writer, self._spec, run, segment, idx))
                    reach("merging")
            return _token(merger.finish(writer.footer()))
        finally:
            merger.close()

    def _staged(self, writer: OutputWriter) -> str:
        return staged_path(writer, self._spec)

    def _stands(self, path: str, token: Token) -> bool:
        return storage.is_local(path) and token_of(storage.local_path(path)) == token

    def _put_in_place(self, idx: int, path: str, staged: str) -> None:
        final = storage.local_path(path)
        storage.make_folders(os.path.dirname(final))
        replaced = self._spec.replaces[idx]
        if replaced is None:
            try:
                os.link(staged, final)
            except FileExistsError:
                raise Conflict(f"{path} has come into existence meanwhile; it was left as it is") from None
        else:
            if token_of(final) not in (replaced, None):
                raise Conflict(f"{path} was changed by someone else meanwhile; it was left as it is")
            os.rename(staged, final)
        storage.sync_folder(os.path.dirname(final))

    # Cleaning up

    def _clean(self, row: OutputRow) -> None:
        if row.state == "cleaned":
            return
        writer = self._writers[row.idx]
        reach("cleaning")
        if not isinstance(writer, SegmentWriter):
            self._in_reducer("cleanup", row.idx)
        reach("half-cleaned")
        batchfiles.delete(writer.path, self._spec.id)
        self._journal.set_output(row.idx, "cleaned")

    # Custom reduce and cleanup

    def _in_reducer(self, operation: str, idx: int, **values: Any) -> Frame:
        if self._reducer is None:
            self._write_catalogue()
            here = self._engine.runs_here
            self._reducer = (_ReduceHere if here else _ReduceProcess)(self._engine, self._catalogue)
        return self._reducer.ask({"op": operation, "output": idx, **values})

    @property
    def _catalogue(self) -> str:
        return str(self._engine.folder.path / "catalogue")

    def _write_catalogue(self) -> None:
        with open(self._catalogue, "w", encoding="ascii") as file:
            for run, _ in self._journal.winners():
                file.write(f"{run.start} {run.end} {run.size} {run.nonce}\n")


class _ReduceProcess:
    """The process that runs a custom writer's reduce and cleanup."""

    def __init__(self, engine: Engine, catalogue: str) -> None:
        from skybatch.executors.base import ExecutorOptions
        from skybatch.executors.local import LocalExecutor

        self._engine = engine
        options = engine.options
        executor = LocalExecutor(
            ExecutorOptions(
                env=resolve(options.env), activate_env=options.activate_env, log_folder=str(engine.folder.logs)
            )
        )
        config = {
            **engine._spec_config(0),
            "role": "reduce",
            "log": str(engine.folder.logs / "reduce.log"),
            "catalogue": catalogue,
            "batch_timeout_s": None,
        }
        config["refs"] = {key: ref for key, ref in config["refs"].items() if key != "mapper"}
        self._channel: WorkerChannel = executor.start(0, config)
        self._frames: list[Frame] = []

    def ask(self, frame: Frame) -> Frame:
        """Have one operation done; its answer. Raises JobFailed with the writer's traceback."""
        self._channel.send(frame)
        while True:
            answer = self._next()
            if answer is None or answer["op"] in ("lost", "broken"):
                self._fail(frame, answer)
            elif answer["op"] in ("reduced", "cleaned"):
                return answer

    def _next(self) -> Frame | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            while not self._frames:
                selector.select()
                frames = self._channel.receive()
                if frames is None:
                    return None
                self._frames = frames
        return self._frames.pop(0)

    def _fail(self, asked: Frame, answer: Frame | None) -> None:
        told = answer or {}
        cause = told.get("message") or self._channel.last_words() or "its process died"
        _fail(self._engine, asked, {**told, "message": cause})

    def close(self) -> None:
        """End the process."""
        try:
            self._channel.send({"op": "stop"})
        except OSError:
            pass
        self._channel.close()
        if not self._channel.wait(5):
            self._channel.kill()
            self._channel.wait(5)


class _ReduceHere:
    """Reduce and cleanup in the engine's own process, for the executor that works there."""

    def __init__(self, engine: Engine, catalogue: str) -> None:
        from skybatch.worker import reducing

        self._engine, self._carry_out = engine, reducing.carry_out
        batchfiles.set_catalogue(engine.spec.id, lambda: reducing.read_catalogue(catalogue))

    def ask(self, frame: Frame) -> Frame:
        """Have one operation done; its answer. Raises JobFailed with the writer's traceback."""
        try:
            return self._carry_out(self._engine.formats.writers[frame["output"]], self._engine.spec.id, frame)
        except Interrupted:
            raise
        except BaseException as error:
            from skybatch.worker.fault import describe

            _fail(self._engine, frame, describe(error))

    def close(self) -> None:
        """The job's batch files are listed again."""
        batchfiles.forget_catalogue(self._engine.spec.id)


def _fail(engine: Engine, asked: Frame, told: Frame) -> NoReturn:
    """A custom reduce or cleanup failed: so has the job, resumably."""
    spec = engine.spec
    what = f"{asked['op']} of output {spec.outputs[asked['output']]['path']}: {told['message']}"
    text = f"{told['traceback'].rstrip()}\n" if told.get("traceback") and not told.get("expected") else ""
    engine.journal.set_state("failed", what)
    raise JobFailed(
        spec.id, f"{text}{what}\n  log: {engine.folder.logs / 'reduce.log'}", f"skybatch resume {spec.id}"
    )


def token_of(path: str) -> Token | None:
    """How the file at `path` is recognised; None when there is none."""
    try:
        return _token(os.stat(path))
    except FileNotFoundError:
        return None


def _token(stat: os.stat_result) -> Token:
    return {"inode": stat.st_ino, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def staged_path(writer: OutputWriter, spec: JobSpec) -> str:
    """Where an output is put together before it is published: on the same filesystem."""
    return f"{batchfiles.folder(writer.path, spec.id)}/output.part"


def winner_piece(writer: OutputWriter, spec: JobSpec, run: Run, segment: Segment, idx: int) -> Piece:
    """The bytes of one winner for output `idx`. Raises SegmentDamaged."""
    file = segment.info["files"][idx]
    path = f"{batchfiles.folder(writer.path, spec.id)}/{file['name']}"
    if (run.start, run.end) == (segment.start, segment.end):
        return Piece(path, 0, file["data"])
    ((offset, length),) = extents(read_index(Path(path)), run.start, run.end)
    return Piece(path, offset, length)
