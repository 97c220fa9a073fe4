"""The control socket: how other processes watch and cancel a job that an engine runs now.

One JSON object per line. Asked: `{"op": "cancel"}`, `{"op": "watch"}`, `{"op": "workers"}`, and, after a pool was
applied again, `{"op": "pool", "name": ...}`. Told to watchers: progress after each commit, as `{"event": "progress",
"state": ..., "done": ..., "dead": ..., "total": ...}`, and end of file when the engine has ended.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from skybatch.engine.folder import JobFolder

_LINE_MAX = 4096
ANSWER_S = 2.0
Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


class ControlServer:
    """The engine's end; everything happens in the engine's own loop."""

    def __init__(self, folder: JobFolder, selector: selectors.BaseSelector, answers: Mapping[str, Answer]) -> None:
        """`answers` by operation: what is told to who asks."""
        self._folder, self._selector, self._answers = folder, selector, answers
        self._clients: dict[socket.socket, bytearray] = {}
        self._watchers: set[socket.socket] = set()
        self._last: dict[str, Any] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder.control.unlink(missing_ok=True)  # we hold the job's lock: nobody listens there
        with folder.control_address() as address:
            self._socket.bind(address)
        os.chmod(folder.control, 0o600)
        self._socket.listen(16)
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def tell(self, event: dict[str, Any]) -> None:
        """Tell all watchers; one that does not keep up is dropped."""
        self._last = event
        for client in list(self._watchers):
            self._send(client, event)

    def close(self) -> None:
        """End of file for everybody."""
        for client in list(self._clients):
            self._drop(client)
        self._selector.unregister(self._socket)
        self._socket.close()
        self._folder.control.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        client.setblocking(False)
        self._clients[client] = bytearray()
        self._selector.register(client, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: socket.socket) -> None:
        try:
            data = client.recv(_LINE_MAX)
        except OSError:
            data = b""
        buffer = self._clients[client]
        buffer += data
        if not data or len(buffer) > _LINE_MAX:
            self._drop(client)
            return
        while b"\n" in buffer and client in self._clients:
            line, _, rest = bytes(buffer).partition(b"\n")
            buffer[:] = rest
            self._answer(client, line)

    def _answer(self, client: socket.socket, line: bytes) -> None:
        try:
            asked = json.loads(line)
            operation = asked["op"]
        except (ValueError, TypeError, KeyError):
            self._drop(client)
            return
        if operation in self._answers:
            self._send(client, {"event": operation, **(self._answers[operation](asked) or {})})
        elif operation == "watch":
            self._watchers.add(client)
            if self._last:
                self._send(client, self._last)

    def _send(self, client: socket.socket, event: dict[str, Any]) -> None:
        try:
            client.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        self._watchers.discard(client)
        if self._clients.pop(client, None) is not None:
            self._selector.unregister(client)
            client.close()


def watch(folder: JobFolder) -> Iterator[dict[str, Any]]:
    """Progress events until the engine ends; none when no engine runs the job."""
    connection = _connect(folder)
    if connection is None:
        return
    with connection, connection.makefile("rwb") as stream:
        stream.write(b'{"op": "watch"}\n')
        stream.flush()
        for line in stream:
            yield json.loads(line)


def ask(folder: JobFolder, operation: str, **values: Any) -> dict[str, Any] | None:
    """What the running engine answers; None when there is none, or it is busy with something else for a while."""
    connection = _connect(folder)
    if connection is None:
        return None
    connection.settimeout(ANSWER_S)
    with connection, connection.makefile("rwb") as stream:
        try:
            stream.write(json.dumps({"op": operation, **values}).encode() + b"\n")
            stream.flush()
            answer: dict[str, Any] = json.loads(stream.readline())
        except (OSError, ValueError):
            return None
        return answer


def ask_to_cancel(folder: JobFolder) -> bool:
    """Ask the running engine to cancel, and wait until it has ended; whether there was one."""
    connection = _connect(folder)
    if connection is None:
        return False
    with connection:
        connection.sendall(b'{"op": "cancel"}\n')
        while connection.recv(_LINE_MAX):
            pass
    return True


def _connect(folder: JobFolder) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with folder.control_address() as address:
            connection.connect(address)
    except OSError:
        connection.close()
        return None
    return connection
