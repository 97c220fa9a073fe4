"""A pool's `setup`: a shell line that is run once in each of its places, to make workers possible there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from skybatch.engine.pools import Pool
from skybatch.engine.trials import Trial, Trials
from skybatch.executors.base import Slot
from skybatch.worker.frames import Frame

ACTIVATION = "activate_env"


def set_up(
    pool: Pool, on_said: Callable[[str, str], None], on_done: Callable[[str, str | None], None], log_folder: str = ""
) -> None:
    """Run the pool's `setup` in every place, all at once, without `activate_env`: it may be what makes that possible.

    `on_said(place, text)` hears its output as it comes, `on_done(place, error)` of its end. Takes as long as it takes.
    Raises UsageError for a pool that cannot be used.
    """
    _SetUp(pool, on_said, on_done, log_folder).run()


class _SetUp(Trials):
    def __init__(
        self,
        pool: Pool,
        on_said: Callable[[str, str], None],
        on_done: Callable[[str, str | None], None],
        log_folder: str,
    ) -> None:
        bare = dataclasses.replace(pool, activate_env=None, options=_without_activation(pool.options))
        super().__init__(bare, {"role": "prepare", "setup": pool.setup}, timeout_s=None, log_folder=log_folder)
        self._on_said, self._on_done = on_said, on_done
        self._places: set[str] = set()

    def wants(self, slot: Slot) -> bool:
        if slot.place in self._places:
            return False
        self._places.add(slot.place)
        return True

    def heed(self, trial: Trial, frame: Frame) -> None:
        if frame["op"] == "said":
            self._on_said(trial.slot.place, frame["text"])
        elif frame["op"] == "prepared":
            status = frame["status"]
            self.end(trial, f"setup ended with exit code {status}" if status else None)

    def tell(self, slot: Slot, trial: Trial | None, error: str | None) -> None:
        self._on_done(slot.place, error)


def _without_activation(value: Any) -> Any:
    """An executor's own keys, those of its hosts included."""
    if isinstance(value, dict):
        return {key: _without_activation(each) for key, each in value.items() if key != ACTIVATION}
    return [_without_activation(each) for each in value] if isinstance(value, list) else value
