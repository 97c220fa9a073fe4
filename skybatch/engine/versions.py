"""Engines and workers of one skybatch: it may be upgraded on disk while an engine runs, or be another elsewhere."""

from __future__ import annotations

import sys

from skybatch.worker.frames import Frame
from skybatch.worker.sources import fingerprint

SOURCES = fingerprint()
"""Of the files as they were when this engine was loaded."""


def skew(started: Frame) -> str | None:
    """Why the worker that says it has started must not work for this engine; None when it may."""
    version: str = sys.modules["skybatch"].__version__
    theirs, sources = started.get("version", version), started.get("sources", SOURCES)
    if (theirs, sources) == (version, SOURCES):
        return None
    what = f"workers are skybatch {theirs} now" if theirs != version else "the files of skybatch are others now"
    return f"skybatch was changed while its engine ran: the engine is skybatch {version}, {what}; nothing is lost"
