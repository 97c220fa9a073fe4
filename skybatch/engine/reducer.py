"""Custom writers' reduce and cleanup: in a process of their own, or in the engine's where workers are there too."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, NoReturn

from skybatch.engine import remedies
from skybatch.engine.environment import resolve
from skybatch.engine.interrupts import Interrupted
from skybatch.engine.output_checks import stands
from skybatch.engine.reduction import LostResults
from skybatch.engine.told import DEATHS, death
from skybatch.engine.versions import skew
from skybatch.errors import JobFailed, Paused, StorageFailed, is_of_storage
from skybatch.failpoints import reach
from skybatch.formats import batchfiles
from skybatch.worker.frames import Frame

if TYPE_CHECKING:
    from skybatch.engine.run import Engine
    from skybatch.executors.base import WorkerChannel


DEATHS_MAX = 3
"""So often the process may die at one operation: of another's doing it is one too many."""


class ReduceProcess:
    """The process that runs a custom writer's reduce and cleanup."""

    def __init__(self, engine: Engine, catalogue: str) -> None:
        from skybatch.executors.base import ExecutorOptions, Slot
        from skybatch.executors.local import LocalExecutor

        self._engine = engine
        options = engine.options
        self._executor = LocalExecutor(
            ExecutorOptions(
                env=resolve(options.env),
                activate_env=None if engine.maps_elsewhere else options.activate_env,
                log_folder=str(engine.folder.logs),
            )
        )
        self._slot = Slot(name="reduce")
        config = {
            **engine._spec_config(self._slot),
            "role": "reduce",
            "log": str(engine.folder.logs / "reduce.log"),
            "catalogue": catalogue,
            "batch_timeout_s": None,
        }
        self._config = {**config, "refs": {key: ref for key, ref in config["refs"].items() if key != "mapper"}}
        self._start()

    def _start(self) -> None:
        self._channel: WorkerChannel = self._executor.start(self._slot, self._config)
        self._frames: list[Frame] = []

    def ask(self, frame: Frame) -> Frame:
        """Have one operation done, once more when its process dies; its answer.

        Raises what `fail` does, StorageFailed, Paused.
        """
        deaths = 0
        while (answer := self._ask(frame))["op"] == "lost":
            deaths += 1
            if deaths == DEATHS_MAX:
                self._fail(frame, answer)
            self.close()
            self._start()
        return answer

    def _ask(self, frame: Frame) -> Frame:
        """The answer; or `lost`, when the process has died and nothing says why but how."""
        reach("engine.sends", frame["op"])
        try:
            self._channel.send(frame)
        except OSError:
            pass  # its end of file follows
        reach("engine.sent", frame["op"])
        while True:
            answer = self._next() or {"op": "lost", "reason": "exit"}
            reach("engine.received", answer["op"])
            if answer["op"] == "lost" and answer["reason"] == "preempted":
                self._pause(DEATHS["preempted"])
            if answer["op"] == "broken":
                self._fail(frame, answer)
            if answer["op"] == "started" and (skewed := skew(answer)):
                self._pause(skewed)
            if answer["op"] == "storage":
                raise StorageFailed(answer["message"])
            if answer["op"] in ("reduced", "cleaned", "lost"):
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

    def _fail(self, asked: Frame, answer: Frame) -> NoReturn:
        last_words = self._channel.last_words() or death(answer)
        fail(self._engine, asked, {**answer, "message": answer.get("message") or last_words})

    def _pause(self, cause: str) -> NoReturn:
        self._engine.journal.set_state("paused", cause)
        raise Paused(self._engine.spec.id, cause, f"skybatch resume {self._engine.spec.id}")

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


class ReduceHere:
    """Reduce and cleanup in the engine's own process, for the executor that works there."""

    def __init__(self, engine: Engine, catalogue: str) -> None:
        from skybatch.worker import reducing

        self._engine, self._carry_out = engine, reducing.carry_out
        batchfiles.set_catalogue(engine.spec.id, lambda: reducing.read_catalogue(catalogue))

    def ask(self, frame: Frame) -> Frame:
        """Have one operation done; its answer. Raises what `fail` does, and StorageFailed."""
        try:
            return self._carry_out(self._engine.formats.writers[frame["output"]], self._engine.spec.id, frame)
        except BaseException as error:
            if isinstance(error, Interrupted) or is_of_storage(error):
                raise
            from skybatch.worker.fault import describe

            fail(self._engine, frame, describe(error))

    def close(self) -> None:
        """The job's batch files are listed again."""
        batchfiles.forget_catalogue(self._engine.spec.id)


def fail(engine: Engine, asked: Frame, told: Frame) -> NoReturn:
    """User code that reduces or cleans up failed: so has the job, resumably; unless batch files are missing.

    Raises JobFailed, LostResults.
    """
    if asked["op"] == "reduce" and told.get("missing_batches"):
        raise LostResults(None, told["message"], output=asked["output"])
    spec = engine.spec
    what = f"{asked['op']} of output {spec.outputs[asked['output']]['path']}: {told['message']}"
    text = f"{told['traceback'].rstrip()}\n" if told.get("traceback") and not told.get("expected") else ""
    _end(engine, what, text)


def refuse_nothing(engine: Engine, idx: int) -> None:
    """Fail the job, resumably, when a writer that stored results in batch files has made nothing of them.

    Raises JobFailed. Something at the output's place is enough, unless it is the very file that was to be replaced.
    """
    writer, path = engine.formats.writers[idx], engine.spec.outputs[idx]["path"]
    if batchfiles.any_written(writer.path, engine.spec.id) and not stands(writer, engine.spec.replaces[idx]):
        what = f"reduce_results of {type(writer).__name__} wrote nothing to {path}; its batch files are kept"
        _end(engine, what, "")


def _end(engine: Engine, what: str, text: str) -> NoReturn:
    spec = engine.spec
    engine.journal.set_state("failed", what)
    command = remedies.command(engine.journal, spec)
    raise JobFailed(spec.id, f"{text}{what}\n  log: {engine.folder.logs / 'reduce.log'}", command)
