"""Which skybatch the files on disk are, so that an engine does not start workers of another.

Imported by the worker's parent, which is run as a file: standard library only.
"""

from __future__ import annotations

import os
import zlib

_ROOM = os.path.dirname(os.path.abspath(__file__))


def fingerprint() -> str:
    """Equal for equal sources of this folder, the worker's side of what engine and workers say to each other."""
    checksum = 0
    for name in sorted(os.listdir(_ROOM)):
        if name.endswith(".py"):
            try:
                with open(os.path.join(_ROOM, name), "rb") as file:
                    checksum = zlib.crc32(file.read(), checksum)
            except FileNotFoundError:
                pass  # it is just being replaced
    return "%08x" % checksum


def version() -> str:
    """The version that the package's file says; "" when it is just being replaced."""
    try:
        with open(os.path.join(os.path.dirname(_ROOM), "__init__.py"), encoding="utf-8") as file:
            return next((line.split('"')[1] for line in file if line.startswith("__version__ = ")), "")
    except FileNotFoundError:
        return ""
