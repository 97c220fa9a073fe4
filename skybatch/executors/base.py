"""The contract of an executor: it turns slots into workers, each behind a byte stream of frames."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from skybatch.errors import UsageError
from skybatch.worker.frames import Frame


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """What a run or its pool asks of an executor."""

    workers: int | None = None  # per host; None: the executor's own default
    env: Mapping[str, str] = field(default_factory=dict)  # added to the workers' environment; may hold secrets
    activate_env: str | None = None  # a shell line run before the worker's Python is looked for
    log_folder: str = ""  # where workers' logs go; "" for nowhere
    options: Mapping[str, Any] = field(default_factory=dict)  # the executor's own keys of a pool


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Room for one worker."""

    name: str  # unique in its executor; letters, digits, `_.-`, as the worker's log is named by it
    place: str = ""  # what fails, and is set aside, together with other slots: a host, a device


def numbered(count: int) -> list[Slot]:
    """That many slots of one place, called `0`, `1`, ..."""
    return [Slot(name=str(number)) for number in range(count)]


class WorkerChannel(ABC):
    """One worker as the engine sees it. All calls come from the engine's thread."""

    mode: str = "direct"
    """How its items come: `direct` when it reads and writes storage itself, `relayed` when this machine does for it."""

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
        """Close the stream to the worker: its parent ends it if it still runs. May be called twice.

        What it had said before can still be received, and its end seen.
        """

    @abstractmethod
    def wait(self, timeout_s: float) -> bool:
        """Wait for the worker's end, and give up what the channel holds; whether it has ended. After `close`, last."""

    def last_words(self) -> str:
        """What it printed outside its frames, for the message when it could not be started."""
        return ""

    def facts(self) -> Mapping[str, Any]:
        """What is known of where it runs, for `pool check` and `status`: `python`, `host`, `round_trip_s`, ..."""
        return {}


class Executor(ABC):
    """Starts workers. One instance per run of a job, made in the engine's process from ExecutorOptions.

    All calls come from the engine's thread, and none may block for long: what takes time (a connection, a look at
    hosts) belongs into threads of the executor's own, which write to what `fileno` gives when slots have come or gone.
    """

    in_this_process = False
    """Whether the worker shares the engine's process (then there is one, and the engine runs beside it)."""

    elsewhere: ClassVar[bool] = False
    """Whether workers run on other machines, or in other environments: `activate_env` is meant for those alone."""

    patience_s: float = 0.0
    """When no place can be used any more, the job waits so long for one to become fit again, and pauses then."""

    keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of a pool file that are this executor's own, and come to it in `options`."""

    def __init__(self, options: ExecutorOptions) -> None:
        self.options = options

    @classmethod
    def check(cls, options: ExecutorOptions) -> None:
        """Raise UsageError, its message beginning with the key at fault, for options that cannot be.

        Called when a pool is applied, and before a job exists; looks at nothing outside this machine.
        """

    @abstractmethod
    def slots(self) -> Sequence[Slot]:
        """The slots that can be used now, the first to be used first. Those of one place need not be together.

        Called before the first start, and again each time `fileno` is readable. A slot that is there no more is
        drained: its worker finishes what it has in hand, and none is started there again.
        """

    @abstractmethod
    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        """Start a worker in a slot and send it `config` first.

        Called again for a slot whose worker has gone. Raises OSError or SkybatchError when it cannot: then the place is
        set aside for a while, as it is when a worker ends there before it is ready.
        """

    def fileno(self) -> int | None:
        """A descriptor that is readable until `slots` is called, when that has something new to say; None: never."""
        return None

    def expects_slots(self) -> bool:
        """Whether slots may yet come without anybody's doing: a host is being looked at, a cluster grows."""
        return False

    def aside(self) -> Mapping[str, str]:
        """Places that cannot be used now, and why. Asked for `status`, and for the message when no place is left."""
        return {}

    def trouble(self, slot: Slot) -> str | None:
        """What is wrong with the slot's place, if anything: a device that was lost, say.

        Asked when a worker has gone, or failed at a range, and must answer within milliseconds. With an answer no range
        is charged with the failure: the place is set aside, and what was in hand there goes elsewhere.
        """
        return None

    def report(self) -> Mapping[str, Mapping[str, Any]]:
        """What `status` is to show of each place beside its workers, as JSON: memory in use, utilisation, ..."""
        return {}

    def adopt(self, options: ExecutorOptions) -> None:
        """The pool was applied again while a job runs on it: `slots` may change. Raises UsageError if it cannot."""
        raise UsageError(f"executor: {type(self).__name__} cannot change while a job runs; the job goes on as it was")

    def close(self) -> None:
        """Give up what the executor holds. Called once, after all channels are closed."""


def by_turns(slots: Sequence[Slot]) -> Iterator[Slot]:
    """The slots, place by turn, so that the first few are spread over all places."""
    places: dict[str, list[Slot]] = {}
    for slot in slots:
        places.setdefault(slot.place, []).append(slot)
    for each in itertools.zip_longest(*places.values()):
        yield from filter(None, each)
