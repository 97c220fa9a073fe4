"""A process behind method calls: what an actor of a cluster is for us. It travels there as source, and stands alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile

PIECE = 1 << 20


class _Process:
    """Stdin and stdout of a Python that runs `loader`. `send` and `receive` may be called at the same time."""

    def __init__(self, loader: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        there, self._to = os.pipe()
        self._from, back = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", loader], stdin=there, stdout=back, stderr=self._errors, start_new_session=True
        )
        os.close(there)
        os.close(back)

    def send(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._to, view) :]

    def receive(self) -> bytes:
        """What it says next; nothing at its end. Waits."""
        return os.read(self._from, PIECE)

    def close(self) -> None:
        """End of file for it."""
        if self._to >= 0:
            os.close(self._to)
            self._to = -1

    def words(self) -> str:
        """The end of what it said on stderr."""
        self._errors.seek(max(0, self._errors.seek(0, 2) - 2000))
        return self._errors.read().decode("utf-8", "replace").strip()

    def __del__(self) -> None:
        self.close()
        self._process.kill()  # its offspring has seen the end of its stdin
        self._process.wait()


class Pipe:
    """For clusters that call an actor on threads."""

    def __init__(self, loader: str) -> None:
        self._process = _Process(loader)

    def send(self, data: bytes) -> None:
        """Write all of it."""
        self._process.send(data)

    def receive(self) -> bytes:
        """What it says next; nothing at its end. Waits."""
        return self._process.receive()

    def close(self) -> None:
        """End of file for it."""
        self._process.close()

    def words(self) -> str:
        """The end of what it said on stderr."""
        return self._process.words()


class AsyncPipe:
    """For clusters that call an actor on an event loop."""

    def __init__(self, loader: str) -> None:
        self._process = _Process(loader)

    async def send(self, data: bytes) -> None:
        """As Pipe."""
        await asyncio.get_running_loop().run_in_executor(None, self._process.send, data)

    async def receive(self) -> bytes:
        """As Pipe."""
        return await asyncio.get_running_loop().run_in_executor(None, self._process.receive)

    async def close(self) -> None:
        """As Pipe."""
        self._process.close()

    async def words(self) -> str:
        """As Pipe."""
        return self._process.words()
