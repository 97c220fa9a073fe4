"""What executors on existing clusters share: a connection made of calls to an actor, and slots that come and go."""

from __future__ import annotations

import os
import socket
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from skybatch.errors import UsageError
from skybatch.executors import parts, pipe
from skybatch.executors.base import Executor, ExecutorOptions, Slot, WorkerChannel
from skybatch.executors.connection import Connection
from skybatch.executors.remote import Boot, RemoteChannel
from skybatch.worker.frames import Frame

PIECE = 1 << 20
LOOK_S = 2.0
"""So often a cluster is asked which nodes it has: none tells of it by itself."""


def travelling_pipe(name: str) -> type:
    """A class of `pipe` that pickles by value, as machines of a cluster need not have skybatch."""
    assert pipe.__file__ is not None
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(Path(pipe.__file__).read_text(), "skybatch pipe", "exec"), namespace)
    found: type = namespace[name]
    return found


class Actor:
    """Calls to one `Pipe` elsewhere. Each blocks, and raises whatever it does when the actor is gone."""

    def __init__(self, make: Callable[[], Any], call: Callable[..., Any], drop: Callable[[Any], None]) -> None:
        """`make` gives a handle once the actor lives; `call(handle, name, *args)`; `drop(handle)` ends it."""
        self._make, self._call, self._drop = make, call, drop
        self._made = threading.Event()
        self._dropped = False
        self._handle: Any = None

    def make(self) -> None:
        """Have the actor made; waits until there is room for it."""
        self._handle = self._make()
        self._made.set()
        if self._dropped:
            self._drop(self._handle)

    def call(self, name: str, *args: Any) -> Any:
        """Call a method."""
        self._made.wait()
        return self._call(self._handle, name, *args)

    @property
    def is_given_up(self) -> bool:
        """Whether it was dropped before it was made."""
        return self._dropped and not self._made.is_set()

    def drop(self) -> None:
        """End it; from any thread."""
        self._dropped = True
        if self._made.is_set():
            self._drop(self._handle)


class ActorConnection(Connection):
    """Two threads carry bytes between a socket and an actor."""

    def __init__(self, actor: Actor) -> None:
        ours, self._theirs = socket.socketpair()
        with ours:
            self.reads, self.writes = ours.fileno(), os.dup(ours.fileno())
            ours.detach()
        self._actor, self._words = actor, ""
        self._gone = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._up, self._down)]
        for thread in self._threads:
            thread.start()

    def kill(self) -> None:
        """End the actor."""
        self._actor.drop()
        self._hang_up()

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is carried any more."""
        self._hang_up(socket.SHUT_WR)
        if self._actor.is_given_up:
            return True  # whoever waits for it to be made is told when the cluster is left
        for thread in self._threads:
            thread.join(timeout_s / 2)
        if any(thread.is_alive() for thread in self._threads):
            return False
        self._theirs.close()
        return True

    def words(self) -> str:
        """Why it ended."""
        return self._words

    def _up(self) -> None:
        try:
            self._actor.make()
            while data := self._actor.call("receive"):
                self._theirs.sendall(data)
            self._words = self._words or self._actor.call("words")
        except Exception as error:
            self._words = self._words or f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        finally:
            self._hang_up()
            self._actor.drop()

    def _down(self) -> None:
        try:
            while data := self._theirs.recv(PIECE):
                self._actor.call("send", data)
            self._actor.call("close")
        except Exception:
            self._hang_up()

    def _hang_up(self, how: int = socket.SHUT_RDWR) -> None:
        try:
            self._theirs.shutdown(how)
        except OSError:
            pass


class ClusterExecutor(Executor):
    """Actors on a cluster that is there already. A subclass connects, finds slots and makes actors."""

    elsewhere: ClassVar[bool] = True
    keys: ClassVar[frozenset[str]] = frozenset({"address", "files", "files_root", "shared", "patience"})
    name: ClassVar[str]

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        asked = options.options
        self.patience_s = float(asked.get("patience", 60))
        self._brought = parts.brought(asked["files_root"], asked["files"]) if asked.get("files") else None
        self._changed, self._change = os.pipe()
        os.set_blocking(self._changed, False)
        self._known: list[Slot] = []
        self._reason: str | None = None
        self._looked = threading.Event()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"skybatch_{self.name}")
        self._thread.start()

    # What a subclass says

    @abstractmethod
    def connect(self) -> None:
        """Join the cluster; on the executor's thread, once. Raises whatever is the matter."""

    @abstractmethod
    def find(self) -> list[Slot]:
        """The slots that the cluster has now."""

    @abstractmethod
    def actor(self, slot: Slot) -> Actor:
        """An actor in a slot, not made yet."""

    @abstractmethod
    def disconnect(self) -> None:
        """Leave the cluster."""

    # The contract

    def fileno(self) -> int:
        """Readable when nodes have come or gone."""
        return self._changed

    def slots(self) -> Sequence[Slot]:
        """Those that were there when the cluster was last looked at."""
        try:
            os.read(self._changed, 4096)
        except BlockingIOError:
            pass
        return list(self._known)

    def expects_slots(self) -> bool:
        """Whether the cluster was not looked at yet."""
        return not self._looked.is_set()

    def aside(self) -> Mapping[str, str]:
        """Why there is no cluster."""
        return {self.name: self._reason} if self._reason else {}

    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        """Have an actor made, and be its worker's channel."""
        if "shared" in self.options.options:
            config = {**config, "sights": [] if self.options.options["shared"] else None}
        boot = Boot(env=self.options.env, activate_env=self.options.activate_env, brought=self._brought)
        connection = ActorConnection(self.actor(slot))
        return RemoteChannel(connection, config, boot, log_folder=self.options.log_folder, name=slot.name)

    def close(self) -> None:
        """Leave the cluster."""
        self._leaving.set()
        self._thread.join(10.0)
        self.disconnect()
        os.close(self._changed)
        os.close(self._change)

    def _watch(self) -> None:
        connected = False
        while not self._leaving.is_set():
            try:
                if not connected:
                    self.connect()
                    connected = True
                found, reason = self.find(), None
            except Exception as error:
                found, reason = [], f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
            if (found, reason) != (self._known, self._reason) or not self._looked.is_set():
                self._known, self._reason = found, reason
                self._looked.set()
                os.write(self._change, b"+")
            self._leaving.wait(LOOK_S)


def whole(options: ExecutorOptions, key: str, default: int, least: int = 0) -> int:
    """A number of a pool. Raises UsageError."""
    value = options.options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{key}: a whole number of at least {least}, not {value!r}")
    return value
