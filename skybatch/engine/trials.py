"""Workers that map nothing, one in each slot of a pool: each is heard until it is done."""

from __future__ import annotations

import selectors
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from skybatch import plugins
from skybatch.engine.pools import Pool, check
from skybatch.engine.run_options import RunOptions
from skybatch.engine.workers import END_TIMEOUT_S
from skybatch.errors import SkybatchError, UsageError
from skybatch.executors.base import Executor, Slot, WorkerChannel
from skybatch.worker.frames import Frame

CONFIG: Frame = {"op": "config", "log": None, "log_cap": 1 << 20, "concurrency": 1, "batch_timeout_s": None}


@dataclass
class Trial:
    """One worker."""

    slot: Slot
    channel: WorkerChannel
    began: float
    done: bool = False


class Trials(ABC):
    """A worker in each slot that is wanted, all at once."""

    def __init__(self, pool: Pool, config: Frame, *, timeout_s: float | None, log_folder: str = "") -> None:
        """`config` is each worker's first frame; without a timeout, they may take as long as they will.

        Raises UsageError for a pool that cannot be tried.
        """
        check(pool)
        self.executor: Executor = plugins.executor(pool.executor)(RunOptions.of(pool).for_executor(log_folder))
        if self.executor.in_this_process:
            self.executor.close()
            raise UsageError(f"executor: {pool.executor} starts no workers that could be tried")
        self._config: Frame = {**CONFIG, **config}
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._selector = selectors.DefaultSelector()
        self._trials: dict[str, Trial] = {}
        self._told: set[str] = set()  # places that are set aside

    @abstractmethod
    def heed(self, trial: Trial, frame: Frame) -> None:
        """A worker has said something; `end` it when that was the last."""

    @abstractmethod
    def tell(self, slot: Slot, trial: Trial | None, error: str | None) -> None:
        """What came of a slot, each once; or, in a slot without a name, of a place that has none.

        `trial` is None where no worker could be started.
        """

    def wants(self, slot: Slot) -> bool:
        """Whether a worker is to be started there."""
        return True

    def run(self) -> None:
        """Until all are done, or the time is over."""
        changes = self.executor.fileno()
        if changes is not None:
            self._selector.register(changes, selectors.EVENT_READ, self._look)
        try:
            self._look()
            while self._is_waiting() and (left := self._left()) != 0:
                for key, _ in self._selector.select(left):
                    key.data()
            for trial in self._trials.values():
                self.end(trial, trial.channel.last_words() or "nothing was heard of its worker in time")
        finally:
            self._close()

    def end(self, trial: Trial, error: str | None) -> None:
        """It is done; a second time nothing happens."""
        if not trial.done:
            trial.done = True
            self._selector.unregister(trial.channel)
            trial.channel.close()
            self.tell(trial.slot, trial, error)

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _is_waiting(self) -> bool:
        return self.executor.expects_slots() or not all(trial.done for trial in self._trials.values())

    def _look(self) -> None:
        """Start a worker in each slot that is new."""
        for slot in self.executor.slots():
            if slot.name not in self._trials and self.wants(slot):
                self._start(slot)
        for place, reason in self.executor.aside().items():
            if place not in self._told:
                self._told.add(place)
                self.tell(Slot(name="", place=place), None, reason)

    def _start(self, slot: Slot) -> None:
        began = time.monotonic()
        try:
            channel = self.executor.start(slot, dict(self._config))
        except (OSError, SkybatchError) as error:
            self.tell(slot, None, str(error))
            return
        trial = Trial(slot, channel, began)
        self._trials[slot.name] = trial
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._hear(trial))

    def _hear(self, trial: Trial) -> None:
        try:
            frames = trial.channel.receive()
        except OSError:
            frames = None
        for frame in frames or ():
            if frame["op"] in ("broken", "lost"):
                self.end(trial, frame.get("message") or trial.channel.last_words() or "its worker died")
            else:
                self.heed(trial, frame)
        if frames is None:
            self.end(trial, trial.channel.last_words() or "its worker ended without a word")

    def _close(self) -> None:
        for trial in self._trials.values():
            trial.channel.close()
        for trial in self._trials.values():
            if not trial.channel.wait(END_TIMEOUT_S):
                trial.channel.kill()
                trial.channel.wait(END_TIMEOUT_S)
        self._selector.close()
        self.executor.close()
