"""An exception as the engine hears of it."""

from __future__ import annotations

import os
import traceback
from typing import Any

from skybatch.errors import MissingBatches
from skybatch.formats.masking import masked

_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))
_MESSAGE_SIZE, _TRACEBACK_SIZE = 2_000, 20_000
_TAKEN_FOR_AN_ITEM = (
    "TypeError: list indices must be integers or slices, not str",
    "AttributeError: 'list' object has no attribute 'get'",
)


def describe(error: BaseException) -> dict[str, Any]:
    """Message, traceback without our own frames, a signature for "alike", the item, and what is missing.

    Secrets in them are masked: they are journalled, printed and told to hooks.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        trace = trace.tb_next
    text = _storable("".join(traceback.format_exception(type(error), error, trace)))
    frames = traceback.extract_tb(trace)
    place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    described = {
        "message": _storable(f"{type(error).__name__}: {_said(error)}")[:_MESSAGE_SIZE],
        "traceback": text if len(text) <= _TRACEBACK_SIZE else f"{text[:8000]}\n...\n{text[-8000:]}",
        "signature": f"{type(error).__name__} at {place}",
        "item": getattr(error, "item", None),
        "expected": _is_expected(error),
    }
    if isinstance(error, ModuleNotFoundError) and error.name:
        described["missing"] = error.name
    if isinstance(error, MissingBatches):
        described["missing_batches"] = True
    return described


def describe_fault(error: BaseException, stage: str | None) -> dict[str, Any]:
    """As `describe`, with a hint where a mapper takes its batch for one item."""
    described = describe(error)
    if stage == "mapper" and described["message"] in _TAKEN_FOR_AN_ITEM:
        described["message"] += " (a mapper gets a list of items)"
    return described


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as mute:
        return f"(its message cannot be had: {type(mute).__name__})"


def _storable(text: str) -> str:
    """Half a surrogate pair is no text that a database or a terminal takes; a secret is none for them."""
    return masked(text).encode("utf-8", "backslashreplace").decode()


def kind_of(error: BaseException, stage: str) -> str:
    """The failure's class: `memory`, or the stage it happened in."""
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "memory" if is_memory else stage


def _is_expected(error: BaseException) -> bool:
    from skybatch.errors import SkybatchError

    return isinstance(error, SkybatchError)
