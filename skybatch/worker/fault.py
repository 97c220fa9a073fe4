"""An exception as the engine hears of it."""

from __future__ import annotations

import errno
import gc
import operator
import os
import sys
import traceback
from typing import Any

from skybatch.errors import ItemError, MissingBatches, StorageDenied, StorageFailed
from skybatch.formats.masking import masked

_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))
_MESSAGE_SIZE, _TRACEBACK_SIZE = 2_000, 20_000
_MEMORY_CLASSES = ("OutOfMemoryError", "ResourceExhaustedError")  # torch's and CuPy's; TensorFlow's
_MEMORY_WORDS = ("out of memory", "_ALLOC_FAILED", "RESOURCE_EXHAUSTED", "can't allocate memory", "not enough memory")
"""In a RuntimeError: CUDA's, HIP's, cuBLAS' and cuDNN's, JAX's, and those of PyTorch's allocator of main memory."""
_CONTEXT_WORDS = ("CUDA error:", "HIP error:")
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
        "item": _item_of(error),
        "expected": _is_expected(error),
    }
    if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str):
        described["missing"] = error.name
    if isinstance(error, MissingBatches):
        described["missing_batches"] = True
    if isinstance(error, OSError) and (isinstance(error, StorageDenied) or not isinstance(error, StorageFailed)):
        described["lasting"] = True  # of a store that did not answer another try may find that it does
    return described


def describe_fault(error: BaseException, stage: str | None) -> dict[str, Any]:
    """As `describe`, with a hint where a mapper takes its batch for one item."""
    described = describe(error)
    if stage == "mapper" and described["message"] in _TAKEN_FOR_AN_ITEM:
        described["message"] += " (a mapper gets a list of items)"
    return described


def _item_of(error: BaseException) -> int | None:
    """The item at fault, where that is known; exceptions of others may call anything `item`."""
    item: Any = error.item if isinstance(error, ItemError) else None
    try:
        return max(0, operator.index(item))
    except TypeError:
        return None


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
    return "memory" if is_of_memory(error) else stage


def is_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the process's or a device's, by class and message of the error or of its causes.

    Causes are what Python would show above it: `raise ... from None` cuts them off.
    """
    return any(map(_tells_of_memory, _with_causes(error)))


def _tells_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ in _MEMORY_CLASSES:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in _said(error) for words in _MEMORY_WORDS)


def spoils_the_process(error: BaseException) -> bool:
    """Whether a device's context is broken by what happened: every later use of it in this process fails too."""
    return not is_of_memory(error) and any(map(_tells_of_context, _with_causes(error)))


def _tells_of_context(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(words in _said(error) for words in _CONTEXT_WORDS)


def _with_causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if all(one is not other for other in found):
            found.append(one)
            cause = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
            left += [] if cause is None else [cause]
            group = getattr(one, "exceptions", ())
            left += group if isinstance(group, tuple) else ()
    return found


def release(error: BaseException) -> None:
    """Let go of what the functions that failed had in their variables: a traceback would keep it."""
    for one in _with_causes(error):
        traceback.clear_frames(one.__traceback__)
    gc.collect()


def end_if_told_to(error: BaseException) -> None:
    """End the worker by SIGTERM when the error was raised by the mapper's own handler of that: no item is to blame."""
    import signal

    code = getattr(signal.getsignal(signal.SIGTERM), "__code__", None)
    if code is not None and any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def leave_if_out_of_memory(error: BaseException, *, own_process: bool) -> None:
    """End the worker when memory ran out in code of ours: the range in hand is to blame, and no answer is possible."""
    if own_process and is_of_memory(error):
        from skybatch.worker.oom import EXIT_CODE

        traceback.print_exception(type(error), error, error.__traceback__)
        sys.stderr.flush()
        os._exit(EXIT_CODE)


def _is_expected(error: BaseException) -> bool:
    from skybatch.errors import SkybatchError

    return isinstance(error, SkybatchError)
