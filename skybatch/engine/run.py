"""One run of a job by one engine: lock, plan, map, reduce, publish, clean up."""

from __future__ import annotations

import functools
import queue
import selectors
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skybatch import plugins
from skybatch.engine import dead_letters
from skybatch.engine.control import ControlServer
from skybatch.engine.endings import Endings
from skybatch.engine.events import Settings
from skybatch.engine.finish import Finishing, merge_behind
from skybatch.engine.folder import JobFolder
from skybatch.engine.interrupts import Interrupted, Interrupts, say
from skybatch.engine.loop import Loop
from skybatch.engine.merge_behind import MergeBehind
from skybatch.engine.placing import Conflict, is_folder, place_of
from skybatch.engine.planning import ReaderFailed, plan, restored
from skybatch.engine.reduction import LostResults
from skybatch.engine.retries import budgets
from skybatch.engine.run_options import RunOptions
from skybatch.engine.scheduler import Scheduler
from skybatch.engine.sights import Sight, sights
from skybatch.engine.spec import JobSpec
from skybatch.engine.stops import Stop
from skybatch.engine.workers import START_TIMEOUT_S, Workers
from skybatch.errors import (
    JobFailed,
    JournalError,
    Paused,
    SegmentDamaged,
    SkybatchError,
    StorageFailed,
    UsageError,
)
from skybatch.executors.base import Executor, Slot
from skybatch.failpoints import reach
from skybatch.formats.base import InputReader, OutputWriter, SegmentWriter, WindowReader
from skybatch.journal.journal import Journal
from skybatch.journal.rows import Changes
from skybatch.worker.frames import Frame

if TYPE_CHECKING:
    from skybatch.engine.progress import ProgressDisplay

LOG_CAP = 10 << 20
REVOCATIONS_MAX = 3
"""How often one run maps ranges again whose stored results were lost, before it gives the storage up."""
ABANDONED_S = 2.0
"""So long a merge may take to end when the engine leaves: one that waits for a store must not hold up Ctrl-C."""
EARLY_WORKERS = 2
"""How many workers start before the length is known: enough to hide their start, few enough for a tiny job."""


@dataclass(frozen=True, kw_only=True)
class Formats:
    """The job's reader and writers, made anew in the engine's process."""

    reader: InputReader
    writers: list[OutputWriter]
    mapper: Any = None  # the very object given to map(); None when resumed


class Engine:
    """Runs one job in this process. `display` is told of progress after it is committed."""

    def __init__(
        self,
        folder: JobFolder,
        spec: JobSpec,
        journal: Journal,
        formats: Formats,
        options: RunOptions,
        display: ProgressDisplay | None = None,
    ) -> None:
        self.folder, self.spec, self.journal = folder, spec, journal
        self.formats, self.options, self.display = formats, options, display
        self.code = journal.job().code_hash or spec.code  # a resume may have brought newer code
        self._length = 0
        self.merging: dict[int, MergeBehind] = {}  # by output
        self._endings = Endings(folder, spec, journal, formats.reader)
        self._executor: Executor = plugins.executor(options.executor)(options.for_executor(str(folder.logs)))

    @property
    def runs_here(self) -> bool:
        """Whether the worker shares this process."""
        return self._executor.in_this_process

    @property
    def maps_elsewhere(self) -> bool:
        """Whether the workers' machines and environments are others than this process's."""
        return self._executor.elsewhere

    def run(self, on_listening: Callable[[], None] = lambda: None) -> None:
        """Run to the end of the job. The caller holds the lock; `on_listening` is called once others can watch.

        Raises JobFailed, Paused or OutputExists, each with the command that goes on.
        """
        if self._executor.in_this_process:
            self._run_beside_worker(on_listening)
        else:
            self._run(on_listening)

    def _run_beside_worker(self, on_listening: Callable[[], None]) -> None:
        """The worker has this thread, for debuggers; the engine gets one of its own."""
        errors: list[BaseException] = []
        workers: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: one is to be served; False: no more

        def engine() -> None:
            try:
                self._run(on_listening, lambda: workers.put(True))
            except BaseException as error:
                errors.append(error)
            finally:
                workers.put(False)

        thread = threading.Thread(target=engine, name="skybatch_engine")
        thread.start()
        while workers.get():
            self._executor.serve()  # type: ignore[attr-defined]
        thread.join()
        if errors:
            raise errors[0]

    def _run(self, on_listening: Callable[[], None], on_started: Callable[[], None] = lambda: None) -> None:
        with selectors.DefaultSelector() as selector:
            workers = Workers(self._executor, selector, self._worker_config, lambda w, f: loop.on_frames(w, f))
            control = ControlServer(
                self.folder,
                selector,
                {
                    "cancel": lambda asked: loop.on_cancel(),
                    "workers": lambda asked: workers.report(),
                    "pool": lambda asked: self._adopt(asked["name"]),
                },
            )
            interrupts = Interrupts(
                selector,
                lambda count, number: self._on_signal(loop, count, number),
                farewell=f"left at once; to go on: {self._endings.command}",
            )
            loop = Loop(
                journal=self.journal,
                executor_workers=workers,
                selector=selector,
                control=control,
                interrupts=interrupts,
                batch_timeout_s=self.spec.batch_timeout_s,
                code=self.code,
                before_commit=self._add_progress,
                on_commit=self._tell_merging,
                on_progress=lambda loop: self._tell(control, loop.scheduler),
                notify=self._notify,
            )
            try:
                interrupts.install()
                on_listening()
                self._phases(loop, workers, control, on_started)
            except Interrupted as interrupted:
                self._endings.interrupted(interrupted)
            except StorageFailed as error:
                self._endings.storage_failed(error)
            except OSError as error:
                self._endings.disk_failed(error)
            finally:
                interrupts.raising = False
                interrupts.restore()
                try:
                    workers.close()
                finally:
                    for merging in self.merging.values():
                        merging.abandon(ABANDONED_S)
                    control.close()
                    self.journal.close()
                    if self.display is not None:
                        self.display.close()

    def _adopt(self, pool: str) -> dict[str, Any]:
        """The pool was applied again; what became of it here."""
        if pool != self.options.pool:
            return {}
        from skybatch.engine import pools

        try:
            found = pools.get(pool)
            if found.executor != self.options.executor:
                raise UsageError(f"executor: it was {self.options.executor}; a job changes it only when it is resumed")
            options = RunOptions.of(found)
            self._executor.adopt(options.for_executor(str(self.folder.logs)))
            self.options = options
        except SkybatchError as error:
            return {"adopted": False, "why": str(error)}
        return {"adopted": True}

    def _on_signal(self, loop: Loop, count: int, number: int) -> None:
        if count == 1:
            say(f"finishing the batches in hand; once more: without them; to go on later: {self._endings.command}")
        loop.on_signal(count, number)

    def _phases(self, loop: Loop, workers: Workers, control: ControlServer, on_started: Callable[[], None]) -> None:
        self._notify("skybatch_job_started", spec=self.spec)
        for revoked in range(REVOCATIONS_MAX + 1):
            if not self._is_mapped():
                self._map_all(loop, workers, control, on_started)
            self._tell(control, loop.scheduler)
            workers.dismiss()
            try:
                Finishing(self).finish()
                break
            except LostResults as lost:
                self._revoke(lost, last=revoked == REVOCATIONS_MAX)
                loop.renew()
            except Conflict as conflict:
                self._endings.end(Stop(state="conflict", cause=str(conflict), exit_code=73))
            except SkybatchError as error:
                if isinstance(error, (Paused, JobFailed, JournalError, StorageFailed)):
                    raise
                self._endings.end(Stop(state="failed", cause=str(error), exit_code=1))
        dead_letters.keep(self.folder, self.journal, self.formats.reader)
        self._notify("skybatch_job_finished", state=self.journal.job().state)

    def _revoke(self, lost: LostResults, *, last: bool) -> None:
        try:
            if last:
                raise lost
            from skybatch.engine.revoking import revoke

            revoke(self, lost)
        except SegmentDamaged as error:
            self._endings.end(Stop(state="failed", cause=str(error), exit_code=1))

    def _map_all(self, loop: Loop, workers: Workers, control: ControlServer, on_started: Callable[[], None]) -> None:
        if self.journal.job().length is None and self.journal.job().state != "planning":
            self.journal.set_state("planning")
        stop = self._map(loop, workers, control, on_started)
        if stop is not None:
            self._endings.end(stop)

    def _is_mapped(self) -> bool:
        """Whether nothing is left to map: winners and what was set aside cover the dataset."""
        length = self.journal.job().length
        if length is None:
            return False
        counts = self.journal.counts()
        return counts.won_items + counts.dead_items == length and (
            counts.dead_items == 0 or self.spec.on_error == "skip"
        )

    def _add_progress(self, changes: Changes) -> None:
        for idx, merging in self.merging.items():
            progress = merging.take_progress()
            if progress is not None:
                changes.progress[idx] = progress

    def _tell_merging(self, changes: Changes) -> Stop | None:
        """Have what was committed merged; why nothing more need be mapped, when an output cannot be made."""
        if changes.progress:
            reach("progress-committed")
        if changes.won or changes.dead:
            for merging in self.merging.values():
                merging.tell()
        refusals = (merging.refusal(self.spec.outputs[idx]["path"]) for idx, merging in self.merging.items())
        return next(filter(None, refusals), None)

    # Planning and mapping

    def _map(self, loop: Loop, workers: Workers, control: ControlServer, on_started: Callable[[], None]) -> Stop | None:
        if not self.maps_elsewhere:  # those are told of the index at their start
            workers.fill(EARLY_WORKERS)
        on_started()
        try:
            length = plan(self.folder, self.spec, self.journal, self.formats.reader)
        except ReaderFailed as failed:
            workers.kill_all()
            return failed.stop
        self._withdraw_manifests()
        scheduler = Scheduler(
            Settings(
                length=length,
                batch_size=self.spec.batch_size,
                budgets=budgets(self.spec.max_retries),
                max_dead=self.spec.allowed_failures(length),
                fits=self.journal.job().fits,
                speculate=self.spec.speculate,
                depth=max(2, self.spec.concurrency + 1),  # grants of one range must fill an async mapper too
            ),
            **restored(self.journal, self.spec),
        )
        if not scheduler.finished:
            self.merging = merge_behind(self)
            for merging in self.merging.values():
                merging.tell()
        ranges = -(-length // self.spec.batch_size)
        self._length = length
        stop = loop.map(scheduler, max(1, ranges))
        if stop is not None:
            workers.kill_all()
            return stop
        if scheduler.dead_items and self.spec.on_error == "fail":
            return self._endings.dead_letters(scheduler.dead_items)
        return None

    def _withdraw_manifests(self) -> None:
        """Before files of a folder are overwritten, what says that they are complete goes."""
        for idx, writer in enumerate(self.formats.writers):
            if self.spec.replaces[idx] and is_folder(writer) and not isinstance(writer, SegmentWriter):
                place_of(writer, self.spec, idx).withdraw()

    def _worker_config(self, slot: Slot) -> Frame:
        config = self._spec_config(slot)
        if self._executor.in_this_process and self.formats.mapper is not None:
            # a debugger's breakpoints are in these very objects, and another job's code may be loaded here
            config["live"] = (self.formats.mapper, self.formats.reader, self.formats.writers)
        return config

    def _spec_config(self, slot: Slot) -> Frame:
        spec = self.spec
        return {
            "op": "config",
            "log": str(self.folder.logs / f"worker-{slot.name}.log"),
            "log_cap": LOG_CAP,
            "batch_timeout_s": spec.batch_timeout_s,
            "start_timeout_s": START_TIMEOUT_S,
            "concurrency": spec.concurrency,
            "job_id": spec.id,
            "cwd": spec.cwd,
            **({"sights": self._sights()} if self.maps_elsewhere else {}),
            "code": str(self.folder.code / self.code),
            "refs": spec.refs,
            "reader": spec.reader,
            "index": str(self.folder.index) if isinstance(self.formats.reader, WindowReader) else None,
            "cache_dir": str(self.folder.path / "cache"),
            "outputs": spec.outputs,
            "mapper_args": spec.mapper_args,
            "one_to_one": spec.one_to_one,
            "overwrite": spec.overwrite,
        }

    @functools.cache  # noqa: B019 - an engine lives as long as its process
    def _sights(self) -> list[Sight]:
        return sights(self.formats.reader, self.formats.writers, self.spec.id)

    def _notify(self, hook: str, **values: Any) -> None:
        plugins.notify(hook, job_id=self.spec.id, **values)

    def _tell(self, control: ControlServer, scheduler: Scheduler | None) -> None:
        if scheduler is None:
            return
        done, dead = scheduler.won_items, scheduler.dead_items
        total = self._length
        control.tell({"event": "progress", "state": "running", "done": done, "dead": dead, "total": total})
        if self.display is not None:
            self.display.update(done, dead, total, None, "running")
