"""Steps on the local disk that a crash may fall between: each is one call, and each side of it is a boundary.

The first argument names the step in failpoints, as `segment` in `segment.rename.before`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Union

from skybatch.failpoints import after, before

Name = Union[str, Path]  # noqa: UP007 - as Python 3.9 has it


def rename(what: str, source: Name, target: Name) -> None:
    """os.rename."""
    before(what, "rename")
    os.rename(source, target)
    after(what, "rename")


def link(what: str, source: Name, target: Name) -> None:
    """os.link."""
    before(what, "link")
    os.link(source, target)
    after(what, "link")


def symlink(what: str, source: Name, target: Name) -> None:
    """os.symlink."""
    before(what, "symlink")
    os.symlink(source, target)
    after(what, "symlink")


def unlink(what: str, path: Name, *, missing_ok: bool = False) -> None:
    """os.unlink."""
    before(what, "unlink")
    try:
        os.unlink(path)
    except FileNotFoundError:
        if not missing_ok:
            raise
    after(what, "unlink")


def mkdir(what: str, path: Name, mode: int = 0o777) -> None:
    """os.mkdir."""
    before(what, "mkdir")
    os.mkdir(path, mode)
    after(what, "mkdir")


def fsync(what: str, fd: int) -> None:
    """os.fsync."""
    before(what, "fsync")
    os.fsync(fd)
    after(what, "fsync")
