"""What has become of an input since its job looked at it first, in plain words."""

from __future__ import annotations

import time
from typing import Any

from skybatch.formats import storage


def told(path: object, before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """How two fingerprints of the input at `path` differ, old values and new; empty when they do not.

    A sample of the content is told only where nothing else has changed: its values mean nothing to a reader.
    """
    was = before or {}
    changed = [key for key in now if was.get(key) != now[key]]
    clauses = [_clause(path, key, was.get(key), now[key]) for key in changed if key != "sample"]
    return "; ".join(clauses or ["its content differs" for _ in changed])


def _clause(path: object, key: str, before: Any, now: Any) -> str:
    if key == "files":
        return f"it has {now} files now, and had {before}"
    if key == "size":
        return f"it has {now} bytes now, and had {before}"
    if key == "version" and isinstance(path, str) and storage.is_local(path) and str(now).isdigit():
        return f"it was last written at {_moment(now)}, and before at {_moment(before)}"
    return f"its {key} is {now!r} now, and was {before!r}"


def _moment(nanoseconds: Any) -> str:
    """Local time, to the microsecond: a file may have been written twice in one second."""
    seconds, rest = divmod(int(nanoseconds), 10**9)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{rest // 1000:06d}"
