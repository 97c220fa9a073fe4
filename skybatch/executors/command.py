"""Workers behind any command that gives stdin and stdout of a Python elsewhere: srun, docker run, kubectl exec."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from skybatch.errors import UsageError
from skybatch.executors import parts
from skybatch.executors.base import Executor, ExecutorOptions, Slot, WorkerChannel
from skybatch.executors.connection import LOADER, ProcessConnection
from skybatch.executors.remote import Boot, RemoteChannel
from skybatch.worker.frames import Frame

SLOT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@/-]*")


class CommandExecutor(Executor):
    """`command`, once for each slot: a line whose `{slot}` is replaced, and to which `-c` and our loader are added.

    It is split as a shell would, and started without one.
    """

    elsewhere: ClassVar[bool] = True
    keys: ClassVar[frozenset[str]] = frozenset({"command", "slots", "files", "files_root", "shared", "patience"})

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        asked = options.options
        self.patience_s = float(asked.get("patience", 60))
        self._words = _words(asked)
        self._names = _names(options)
        self._brought = parts.brought(asked["files_root"], asked["files"]) if asked.get("files") else None

    @classmethod
    def check(cls, options: ExecutorOptions) -> None:
        """Raise UsageError for a command line that cannot be."""
        words = _words(options.options)
        names = _names(options)
        if len(names) > 1 and options.options.get("slots") and not any("{slot}" in word for word in words):
            raise UsageError("command: it says nowhere which of the slots is meant; put {slot} where its name belongs")

    def slots(self) -> Sequence[Slot]:
        """One for each name, each a place of its own; without names, all are one place."""
        if not self.options.options.get("slots"):
            return [Slot(name=name) for name in self._names]
        return [Slot(name=re.sub(r"[^A-Za-z0-9_.-]", "_", name), place=name) for name in self._names]

    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        """Run the command."""
        errors = Path(self.options.log_folder, f"worker-{slot.name}.err") if self.options.log_folder else None
        name = slot.place or slot.name
        words = [word.replace("{slot}", name) for word in self._words]
        connection = ProcessConnection([*words, "-S", "-c", LOADER], errors)
        boot = Boot(env=self.options.env, activate_env=self.options.activate_env, brought=self._brought)
        if "shared" in self.options.options:
            config = {**config, "sights": [] if self.options.options["shared"] else None}
        return RemoteChannel(connection, config, boot, log_folder=self.options.log_folder, name=slot.name)


def _words(asked: Any) -> list[str]:
    line = asked.get("command")
    if not isinstance(line, str) or not line.strip():
        raise UsageError("command: give the command line that runs a Python, as `srun --ntasks=1 python3`")
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"command: {error}") from None


def _names(options: ExecutorOptions) -> list[str]:
    named = options.options.get("slots")
    if named is None:
        return [str(number) for number in range(options.workers or 1)]
    if not isinstance(named, list) or not named:
        raise UsageError("slots: a list of names, as `slots: [pod-a, pod-b]`")
    names = [str(name) for name in named]
    for name in names:
        if not SLOT.fullmatch(name) or names.count(name) > 1:
            raise UsageError(f"slots: {name!r} cannot be the name of a slot, or is there twice")
    each = options.workers or 1
    if each > 1:
        raise UsageError("workers: each of `slots` has one; name more slots for more workers")
    return names
