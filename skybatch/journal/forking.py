"""What a forked child must not touch: the lock and the databases belong to the parent.

A child that ran SQLite's close could checkpoint from what it believes are its locks and remove the WAL
under the parent's feet; one that kept the lock's descriptor would hold the job after the engine is gone.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Holder(Protocol):
    """Something of the parent's process that a child has to let go of."""

    def leave_to_parent(self) -> None:
        """Called once in every forked child, and nowhere else."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def register(holder: Holder) -> None:
    """Have `holder.leave_to_parent()` called in forked children for as long as the holder lives."""
    _holders.add(holder)


def never_free(thing: object) -> None:
    """Keep `thing` alive past the interpreter's end, so that its destructor never runs in this process."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _leave_all_to_parent() -> None:
    for holder in list(_holders):
        holder.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)
