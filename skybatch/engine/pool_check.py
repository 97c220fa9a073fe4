"""One worker in every slot of a pool, which maps nothing and tells where it is."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skybatch import plugins
from skybatch.engine.pools import Pool, check
from skybatch.engine.run_options import RunOptions
from skybatch.engine.workers import END_TIMEOUT_S
from skybatch.errors import SkybatchError, UsageError
from skybatch.executors.base import Executor, Slot, WorkerChannel
from skybatch.worker.frames import Frame

PINGS = 5
CONFIG: Frame = {"op": "config", "role": "check", "log_cap": 1 << 20, "concurrency": 1, "batch_timeout_s": None}


@dataclass(kw_only=True)
class Checked:
    """What was found in one slot, or why no worker could be started in one place."""

    slot: str  # "" where a place has no slots
    place: str
    error: str | None = None
    start_s: float | None = None  # from the start of the worker to its first word
    round_trip_s: float | None = None  # the shortest of a few
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Trial:
    slot: Slot
    channel: WorkerChannel
    began: float
    found: Checked
    asked_at: float = 0.0
    pings: int = 0
    done: bool = False


def check_pool(pool: Pool, timeout_s: float, on_found: Callable[[Checked], None], log_folder: str = "") -> None:
    """Try every slot there is, all at once; `on_found` hears of each as it is known.

    Slots that have not come within the time, in seconds, or that do not answer, are told as errors. Raises UsageError
    for a pool that cannot be checked.
    """
    check(pool)
    options = RunOptions.of(pool).for_executor(log_folder)
    executor: Executor = plugins.executor(pool.executor)(options)
    if executor.in_this_process:
        executor.close()
        raise UsageError(f"executor: {pool.executor} starts no workers that could be checked")
    _Check(executor, on_found, time.monotonic() + timeout_s).run()


class _Check:
    def __init__(self, executor: Executor, on_found: Callable[[Checked], None], deadline: float) -> None:
        self._executor, self._on_found, self._deadline = executor, on_found, deadline
        self._selector = selectors.DefaultSelector()
        self._trials: dict[str, _Trial] = {}
        self._told: set[str] = set()  # places that are set aside

    def run(self) -> None:
        changes = self._executor.fileno()
        if changes is not None:
            self._selector.register(changes, selectors.EVENT_READ, self._look)
        try:
            self._look()
            while self._is_waiting() and (left := self._deadline - time.monotonic()) > 0:
                for key, _ in self._selector.select(left):
                    key.data()
            self._tell_silent()
        finally:
            self._close()

    def _is_waiting(self) -> bool:
        return self._executor.expects_slots() or not all(trial.done for trial in self._trials.values())

    def _look(self) -> None:
        """Start a worker in each slot that is new."""
        for slot in self._executor.slots():
            if slot.name not in self._trials:
                self._start(slot)
        for place, reason in self._executor.aside().items():
            if place not in self._told:
                self._told.add(place)
                self._on_found(Checked(slot="", place=place, error=reason))

    def _start(self, slot: Slot) -> None:
        began = time.monotonic()
        try:
            channel = self._executor.start(slot, {**CONFIG, "log": None})
        except (OSError, SkybatchError) as error:
            self._on_found(Checked(slot=slot.name, place=slot.place, error=str(error)))
            return
        trial = _Trial(slot, channel, began, Checked(slot=slot.name, place=slot.place))
        self._trials[slot.name] = trial
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._hear(trial))

    def _hear(self, trial: _Trial) -> None:
        try:
            frames = trial.channel.receive()
        except OSError:
            frames = None
        for frame in frames or ():
            self._heed(trial, frame)
        if frames is None:
            self._end(trial, trial.channel.last_words() or "its worker ended without a word")

    def _heed(self, trial: _Trial, frame: Frame) -> None:
        found = trial.found
        if frame["op"] == "ready":
            found.start_s = time.monotonic() - trial.began
            found.facts = {**trial.channel.facts(), **frame["facts"]}
            self._ping(trial)
        elif frame["op"] == "pong":
            took = time.monotonic() - trial.asked_at
            found.round_trip_s = min(took, found.round_trip_s or took)
            if trial.pings < PINGS:
                self._ping(trial)
            else:
                self._end(trial, None)
        elif frame["op"] in ("broken", "lost"):
            self._end(trial, frame.get("message") or trial.channel.last_words() or "its worker died")

    def _ping(self, trial: _Trial) -> None:
        trial.pings += 1
        trial.asked_at = time.monotonic()
        trial.channel.send({"op": "ping", "id": trial.pings})

    def _end(self, trial: _Trial, error: str | None) -> None:
        if not trial.done:
            trial.done = True
            trial.found.error = error
            self._selector.unregister(trial.channel)
            trial.channel.close()
            self._on_found(trial.found)

    def _tell_silent(self) -> None:
        for trial in self._trials.values():
            if not trial.done:
                self._end(trial, trial.channel.last_words() or "nothing was heard of its worker in time")

    def _close(self) -> None:
        for trial in self._trials.values():
            if not trial.channel.wait(END_TIMEOUT_S):
                trial.channel.kill()
                trial.channel.wait(END_TIMEOUT_S)
        self._selector.close()
        self._executor.close()
