"""Merging an output behind the running job, so that little is left to do when the last range is done.

Winners are final, so what has been taken in stays right. Only the prefix without gaps is merged; the reduce goes on
from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skybatch.engine.reduction import Reduction
from skybatch.engine.stops import Stop
from skybatch.errors import ResultError, SkybatchError
from skybatch.formats.base import Restart
from skybatch.formats.masking import masked
from skybatch.formats.stores import retrying
from skybatch.journal.reading import Reader
from skybatch.worker.fault import describe

TOGETHER_S = 0.05
"""Commits that come within this time are taken in together."""


class MergeBehind:
    """One output's merge on a thread of its own, which reads the journal for what was committed."""

    def __init__(self, begin: Callable[[], Reduction], journal: Path, *, past_dead: bool) -> None:
        self._begin, self._journal, self._past_dead = begin, journal, past_dead
        self._reduction: Reduction | None = None
        self._progress: dict[str, Any] | None = None
        self._told, self._stop, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self.error: Exception | None = None  # why it failed
        self._thread = threading.Thread(target=self._run, daemon=True, name="skybatch_merge")
        self._thread.start()

    def tell(self) -> None:
        """Something was committed."""
        self._told.set()

    def take_progress(self) -> dict[str, Any] | None:
        """What is durable by now, to be journalled; None when nothing new is."""
        progress, self._progress = self._progress, None
        return progress

    def take_over(self) -> Reduction | None:
        """End the thread; what it has come to. None when it failed.

        What failed is found again by the reduce, which says so; `error` tells it what to expect.
        """
        self._end(None)
        if self.error is not None and self._reduction is not None:
            self._reduction.close()
            return None
        return self._reduction

    def abandon(self, timeout_s: float | None = None) -> None:
        """End the thread soon; what was merged is left to a later engine.

        What a store does not answer is not asked again. A thread that still waits after the timeout is left to itself.
        """
        self._given_up.set()
        self._end(timeout_s)
        if self._reduction is not None and not self._thread.is_alive():
            self._reduction.close()

    def refusal(self, path: str) -> Stop | None:
        """The end of the job, when the output at `path` cannot be made, whatever is still mapped: a result that does
        not fit in it, or a fault in its assembler. What may be put right until the end is none.
        """
        error = self.error
        if isinstance(error, ResultError):
            return Stop(state="failed", cause=f"output {masked(path)}: {error}", exit_code=1)
        if error is None or isinstance(error, (Restart, SkybatchError, OSError)):
            return None
        told = describe(error)
        cause = f"reduce of output {masked(path)}: {told['message']}"
        return Stop(state="failed", cause=cause, exit_code=1, traceback=told["traceback"])

    def _end(self, timeout_s: float | None) -> None:
        self._stop.set()
        self._told.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            with retrying.unless(self._given_up):
                self._merge()
        except Exception as error:
            self.error = error

    def _merge(self) -> None:
        self._reduction = self._begin()
        with Reader(self._journal) as journal:
            while self._is_told():
                self._reduction.advance(
                    journal.settled(self._reduction.next, dead=self._past_dead),
                    on_progress=self._note,
                    stopping=self._stop.is_set,
                )

    def _is_told(self) -> bool:
        """Wait for commits; False when the thread is to end."""
        self._told.wait()
        self._stop.wait(TOGETHER_S)
        self._told.clear()
        return not self._stop.is_set()  # asked last: who stops it says so before telling, and the telling is cleared

    def _note(self, progress: dict[str, Any]) -> None:
        self._progress = progress
