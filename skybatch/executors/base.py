"""The contract of an executor: it turns slots into workers, each behind a byte stream of frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skybatch.worker.frames import Frame


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """What a run or its pool asks of an executor."""

    workers: int | None = None  # None: the executor's own default
    env: Mapping[str, str] = field(default_factory=dict)  # added to the workers' environment
    activate_env: str | None = None  # a shell line run before the worker's Python is looked for
    log_folder: str = ""  # where workers' logs go
    options: Mapping[str, Any] = field(default_factory=dict)  # an executor's own keys of a pool


class WorkerChannel(ABC):
    """One worker as the engine sees it. All calls come from the engine's thread."""

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something, or when the worker has gone."""

    @abstractmethod
    def send(self, frame: Frame) -> None:
        """Send one frame whole. Raises OSError when the worker is gone."""

    @abstractmethod
    def receive(self) -> list[Frame] | None:
        """Frames that have arrived, maybe none yet; None once the stream has ended. Does not block."""

    @abstractmethod
    def kill(self) -> None:
        """End the worker and everything it started, at once. May be called twice, and on a dead worker."""

    @abstractmethod
    def close(self) -> None:
        """Close the stream: the worker's parent ends it if it still runs. Called once, last."""

    @abstractmethod
    def wait(self, timeout_s: float) -> bool:
        """Wait for the worker's end; whether it has ended. After `close`."""

    def last_words(self) -> str:
        """What it printed outside its frames, for the message when it could not be started."""
        return ""


class Executor(ABC):
    """Starts workers. One instance per run of a job, made in the engine's process from ExecutorOptions."""

    in_this_process = False
    """Whether the worker shares the engine's process (then there is one, and the engine runs beside it)."""

    def __init__(self, options: ExecutorOptions) -> None:
        self.options = options

    @abstractmethod
    def slots(self) -> int:
        """How many workers may run at once. Called once, before the first start."""

    @abstractmethod
    def start(self, slot: int, config: Frame) -> WorkerChannel:
        """Start a worker in a slot (0 to slots - 1) and send it `config` first.

        Called again for a slot whose worker has gone. Raises OSError or SkybatchError when it cannot.
        """

    def close(self) -> None:
        """Give up what the executor holds. Called once, after all channels are closed."""
