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
from skybatch.journal.reading import Reader

TOGETHER_S = 0.05
"""Commits that come within this time are taken in together."""


class MergeBehind:
    """One output's merge on a thread of its own, which reads the journal for what was committed."""

    def __init__(self, begin: Callable[[], Reduction], journal: Path, *, past_dead: bool) -> None:
        self._begin, self._journal, self._past_dead = begin, journal, past_dead
        self._reduction: Reduction | None = None
        self._progress: dict[str, Any] | None = None
        self._told, self._stop = threading.Event(), threading.Event()
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
        self._end()
        if self.error is not None and self._reduction is not None:
            self._reduction.close()
            return None
        return self._reduction

    def abandon(self) -> None:
        """End the thread soon; what was merged is left to a later engine."""
        self._end()
        if self._reduction is not None:
            self._reduction.close()

    def _end(self) -> None:
        self._stop.set()
        self._told.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._reduction = self._begin()
            with Reader(self._journal) as journal:
                while self._told.wait() and not self._stop.wait(TOGETHER_S):
                    self._told.clear()
                    self._reduction.advance(
                        journal.settled(self._reduction.next, dead=self._past_dead),
                        on_progress=self._note,
                        stopping=self._stop.is_set,
                    )
        except Exception as error:
            self.error = error

    def _note(self, progress: dict[str, Any]) -> None:
        self._progress = progress
