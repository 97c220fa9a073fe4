"""Workers elsewhere: whatever gives stdin and stdout of a Python there becomes a worker's channel here.

What a worker needs travels over the connection first (see `skybatch.worker.boot`). Then the worker says whether it
reads and writes storage itself. Where it cannot, because it does not see the files or lacks what a format needs, a
process of this machine takes the connection over and does that for it (`skybatch.worker.relay`).
"""

from __future__ import annotations

import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skybatch import failpoints
from skybatch.executors import parts
from skybatch.executors.base import WorkerChannel
from skybatch.executors.connection import Connection, enlarge
from skybatch.executors.local import PARENT, ProcessChannel
from skybatch.executors.parts import Part
from skybatch.worker.frames import Decoder, Frame, FrameError, encode, write_all
from skybatch.worker.shapes import require_sense

HEARTBEAT_S = 5.0
"""Both ends say something at least so often; one that has heard nothing for SILENCES_MAX times that is alone."""
SILENCES_MAX = 3
READ_SIZE = 1 << 18
PIECE = 1 << 18
_BOOT = PARENT.with_name("boot.py")


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What is to be there before a worker begins."""

    env: Mapping[str, str] = field(default_factory=dict)
    activate_env: str | None = None
    brought: Part | None = None  # files of the pool; the worker's folder is then the one they are in

    def frame(self, parts_: Sequence[Part], *, keep: bool = False) -> Frame:
        """As the other end is asked for it."""
        return {
            "op": "boot",
            "parts": [{"name": part.name, "size": part.size} for part in parts_],
            "core": parts.core().name,
            "env": dict(self.env),
            "activate_env": self.activate_env,
            "keep": keep,
        }


def first_line() -> bytes:
    """The text of `boot` as the line that LOADER reads."""
    return f"exec({_BOOT.read_text()!r})\n".encode()


class Outgoing:
    """Sends on a thread of its own, as the way there may be slow, and tells every now and then that we are here."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[bytes | Part | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="skybatch_send")
        self._then: Callable[[], None] = lambda: None
        self.heard_at: float | None = None  # None: it is not to be expected yet that the other end says anything
        self._thread.start()

    def put(self, data: bytes | Part) -> None:
        """Send this after what was put before. Never waits."""
        self._queue.put(data)

    def end(self) -> None:
        """Send what was put, and no more."""
        self._queue.put(None)
        self._thread.join()

    def end_and(self, then: Callable[[], None]) -> None:
        """Send what was put, and no more, then do something; without waiting for it."""
        self._then = then
        self._queue.put(None)

    def _run(self) -> None:
        try:
            self._send_all()
        finally:
            self._then()

    def _send_all(self) -> None:
        gone = False  # as the other end's end of file will say
        while (data := self._next()) is not None:
            try:
                if not gone:
                    self._write(data)
            except OSError:
                gone = True

    def _next(self) -> bytes | Part | None:
        try:
            return self._queue.get(timeout=HEARTBEAT_S)
        except queue.Empty:
            return self._beat()

    def _beat(self) -> bytes:
        heard_at = self.heard_at
        if heard_at is None:
            return b""
        if time.monotonic() - heard_at > HEARTBEAT_S * SILENCES_MAX:
            self._connection.kill()
        return encode({"op": "beat"})

    def _write(self, data: bytes | Part) -> None:
        if isinstance(data, bytes):
            write_all(self._connection.writes, data)
            return
        for offset in range(0, data.size, PIECE):
            write_all(self._connection.writes, data.read(offset, min(PIECE, data.size - offset)))


class RemoteChannel(WorkerChannel):
    """A worker at the other end of a connection, direct or relayed."""

    def __init__(self, connection: Connection, config: Frame, boot: Boot, *, log_folder: str, name: str) -> None:
        """`config` is as for a worker here, `name` the slot's, `log_folder` where both ends' logs go."""
        self._connection, self._config, self._boot = connection, config, boot
        self._parts = _parts_of(config, boot)
        self._errors = Path(log_folder, f"worker-{name}.err") if log_folder else None
        self._log = WorkerLog(config.get("log"), config.get("log_cap", 0))
        self._decoder = Decoder()
        self._facts: dict[str, Any] = {}
        self._said = ""  # why it is unfit
        self._lost = self._ended = self._closed = False
        self._began = time.monotonic()
        self._relay: ProcessChannel | None = None
        self._poll = select.epoll()
        self._poll.register(connection.reads, select.EPOLLIN)
        self._outgoing = Outgoing(connection)
        self._outgoing.put(first_line())
        self._outgoing.put(encode(boot.frame(self._parts)))

    def fileno(self) -> int:
        """Readable when whoever speaks to us now has said something."""
        return self._poll.fileno()

    def send(self, frame: Frame) -> None:
        """Send one frame whole."""
        if self._relay is not None:
            self._relay.send(frame)
        else:
            self._outgoing.put(encode(frame))

    def receive(self) -> list[Frame] | None:
        """Frames that are for the engine."""
        if self._ended:
            return None
        frames = self._received() if self._relay is None else self._relay.receive()
        if frames is None:
            self._ended = True
            return [] if self._lost else [self._parted()]
        return [frame for frame in frames if self._is_for_engine(frame)]

    def _received(self) -> list[Frame] | None:
        data = os.read(self._connection.reads, READ_SIZE)
        if self._outgoing.heard_at is not None:
            self._outgoing.heard_at = time.monotonic()
        if not data:
            return None
        try:
            return require_sense(self._decoder.feed(data))
        except FrameError:
            self._said = f"something else was written where the worker speaks: {data[:200]!r}"
            if self._facts:
                self.close()  # its parent sees to everything that it started
            else:
                self._connection.kill()  # nobody of ours is there
            return []

    def _is_for_engine(self, frame: Frame) -> bool:
        operation = frame["op"]
        if operation == "hello":
            self._hear_hello(frame)
        elif operation == "present":
            self._facts["start_s"] = time.monotonic() - self._began
        elif operation == "unfit":
            self._said = str(frame["message"])
        elif operation == "mode":
            self._set_mode(frame)
        elif operation == "log":
            self._log.write(frame["blob"])
        elif operation == "started":
            self._outgoing.heard_at = time.monotonic()
            return self._relay is None
        elif operation != "beat":
            self._lost |= operation == "lost"
            return True
        return False

    def _hear_hello(self, hello: Frame) -> None:
        self._facts = {key: value for key, value in hello.items() if key not in ("op", "needed", "root")}
        for part in self._parts:
            if part.name in hello["needed"]:
                self._outgoing.put(part)
        self._outgoing.put(encode(_there(self._config, hello["root"], self._boot.brought)))

    def _set_mode(self, frame: Frame) -> None:
        if self._closed:
            return  # nobody waits for it any more
        if frame["direct"]:
            self._outgoing.put(encode({"op": "go"}))
            return
        self.mode = "relayed"
        self._facts["relayed_because"] = frame["why"]
        self._outgoing.end()
        self._poll.unregister(self._connection.reads)
        self._relay = self._started_relay(frame)
        self._poll.register(self._relay.fileno(), select.EPOLLIN)

    def _started_relay(self, mode: Frame) -> ProcessChannel:
        """A process that has the connection from now on."""
        ends = (self._connection.reads, self._connection.writes)
        for end in ends:
            enlarge(end)
        with self._errors.open("ab") if self._errors else open(os.devnull, "wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PARENT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=failpoints.for_workers(os.environ),
                pass_fds=ends,
                start_new_session=True,
                bufsize=0,
            )
        for fd in ends:
            os.close(fd)
        relay = ProcessChannel(process, self._errors)
        refs = {key: ref for key, ref in self._config["refs"].items() if key != "mapper"}
        able = {key: mode[key] for key in ("decode", "encode")}
        relay.send({**self._config, "role": "relay", "refs": refs, "ends": ends, "heartbeat_s": HEARTBEAT_S, **able})
        return relay

    def kill(self) -> None:
        """Cut the connection; the worker's parent ends it. The relay is killed."""
        self._connection.kill()
        if self._relay is not None:
            self._relay.kill()

    def close(self) -> None:
        """End of file for whoever hears us."""
        if self._relay is not None:
            self._relay.close()
        elif not self._closed:
            self._outgoing.end_and(lambda: os.close(self._connection.writes))
        self._closed = True

    def wait(self, timeout_s: float) -> bool:
        """Wait for the relay, and for what leads to the worker."""
        deadline = time.monotonic() + timeout_s
        if self._relay is not None and not self._relay.wait(timeout_s):
            return False
        if not self._connection.wait(max(0.0, deadline - time.monotonic())):
            return False
        if not self._poll.closed:
            self._poll.close()
            self._log.close()
            if self._relay is None:
                os.close(self._connection.reads)
        return True

    def last_words(self) -> str:
        """Why it is unfit, or what the way there said."""
        words = self._connection.words()
        return self._said or words or ("no Python answered" if not self._facts else "")

    def facts(self) -> Mapping[str, Any]:
        """What the other end said of itself, and how long it took to be there."""
        return self._facts

    def _parted(self) -> Frame:
        """The connection's end, where the worker's parent did not come to tell of the worker's."""
        what = self._said or self._connection.words() or "nothing was said"
        return {"op": "lost", "reason": "link", "message": f"the connection to the worker ended: {what}", "held": []}


class WorkerLog:
    """What a worker elsewhere prints, kept here; past the cap the rest is dropped, and said so once."""

    def __init__(self, path: str | None, cap: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600) if path else -1
        self._left = cap

    def write(self, data: bytes) -> None:
        """Append to it; a full disk stops nothing."""
        if self._fd < 0 or self._left <= 0:
            return
        try:
            write_all(self._fd, data[: self._left])
            self._left -= len(data)
            if self._left <= 0:
                write_all(self._fd, b"\n[log full: what follows was dropped]\n")
        except OSError:
            self._left = 0

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parts_of(config: Frame, boot: Boot) -> list[Part]:
    found = [parts.core()]
    if config.get("code"):
        found.append(parts.folder("code", config["code"]))
    if config.get("index"):
        found.append(parts.folder("index", config["index"]))
    return found if boot.brought is None else [*found, boot.brought]


def _there(config: Frame, root: str, brought: Part | None) -> Frame:
    """The configuration as it is true at the other end, where parts are in the folder `root`."""
    there = {**config, "log": None, "heartbeat_s": HEARTBEAT_S, "elsewhere": True}
    if config.get("code"):
        there["code"] = f"{root}/{parts.folder('code', config['code']).name}"
    if config.get("index"):
        there["index"] = f"{root}/{parts.folder('index', config['index']).name}"
    if config.get("job_id"):
        there["job_folder"] = f"{root}/jobs/{config['job_id']}"
        there["cache_dir"] = f"{there['job_folder']}/cache"
    if brought is not None:
        there["cwd"] = f"{root}/{brought.name}"
    return there
