"""What a piece of code opens, lists or connects to, by the interpreter's audit events."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_EVENTS = ("open", "os.listdir", "os.scandir", "socket.connect", "sqlite3.connect", "subprocess.Popen")
_CODE = (".py", ".pyc", ".so")  # opened by an import
_watching = threading.local()
_installed = False


@contextmanager
def watched() -> Iterator[list[str]]:
    """The list fills with what this thread does meanwhile, one line each."""
    _install()
    seen: list[str] = []
    _watching.seen = seen
    try:
        yield seen
    finally:
        _watching.seen = None


def _install() -> None:
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # there is no way to take it out again: it stays, and does nothing
        _installed = True


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    seen = getattr(_watching, "seen", None)
    if seen is not None and event in _EVENTS:
        what = arguments[0] if arguments else ""
        if not str(what).endswith(_CODE):
            seen.append(f"{event} {what!r}")
