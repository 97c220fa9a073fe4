"""What workers' frames must hold for the engine and its relays to act on them. Who runs other people's code may be told
anything.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from skybatch.worker.frames import Frame, FrameError

Test = Callable[[Any], bool]


def _is_index(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


def _is_bytes(value: Any) -> bool:
    return isinstance(value, (bytes, memoryview))


def _are_ranges(value: Any) -> bool:
    return type(value) is list and all(
        type(one) is list and len(one) == 2 and all(type(end) is int for end in one) for one in value
    )  # a worker may have died in the middle of noting one


def _are_files(value: Any) -> bool:
    return type(value) is list and all(one is None or _is_file(one) for one in value)


def _is_file(value: Any) -> bool:
    return (
        type(value) is dict
        and _is_text(value.get("name"))
        and "/" not in value["name"]
        and _is_index(value.get("size"))
        and _is_index(value.get("data"))
    )


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(map(_is_text, value))


def _are_rows(value: Any) -> bool:
    return type(value) is list and all(map(_is_row, value))


def _is_row(value: Any) -> bool:
    if type(value) is not list or len(value) != 10:
        return False
    *numbers, last, took, lengths, pickled, crcs = value
    parts = [*lengths, pickled] if type(lengths) is list else []
    return (
        all(map(_is_index, numbers))
        and _is_flag(last)
        and _is_seconds(took)
        and type(crcs) is list
        and len(parts) == len(crcs) > 0
        and all(map(_is_index, (*parts, *crcs)))
    )


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


_STRETCH: Dict[str, Test] = {"grant": _is_index, "start": _is_index, "end": _is_index}
SHAPES: Dict[str, Dict[str, Test]] = {
    "started": {"pid": _is_index},
    "done": {
        **_STRETCH,
        "nonce": _is_text,
        "ranges": _is_index,
        "size": _is_index,
        "seconds": _is_seconds,
        "files": _are_files,
    },
    "failed": {
        **_STRETCH,
        "attempt": _is_index,
        "kind": _is_text,
        "message": _is_text,
        "traceback": _is_text,
        "signature": _is_text,
        "item": _or_none(_is_index),
    },
    "storage": {"message": _is_text},
    "broken": {"message": _is_text},
    "lost": {"reason": _is_text, "held": _are_ranges, "status": _or_none(_is_index), "message": _or_none(_is_text)},
    # of workers elsewhere
    "unfit": {"message": _is_text},
    "hello": {"needed": _are_texts, "root": _is_text},
    "mode": {"direct": _is_flag, "decode": _is_flag, "encode": _is_flag, "why": _is_text},
    "log": {"blob": _is_bytes},
    "results": {"rows": _are_rows, "blob": _is_bytes},
    "again": {"id": _is_index, "start": _is_index, "stop": _is_index},
}
"""By operation, what must hold for the values of its keys; one that is not there counts as None. Other keys, and other
operations, are free."""


def require_sense(frames: List[Frame]) -> List[Frame]:
    """The frames. Raises FrameError for one that cannot be what it says it is."""
    for frame in frames:
        problem = _problem(frame)
        if problem:
            raise FrameError(problem)
    return frames


def _problem(frame: Frame) -> Optional[str]:
    operation = frame.get("op")
    if type(operation) is not str:
        return "a frame came without an operation"
    for key, test in SHAPES.get(operation, {}).items():
        if not test(frame.get(key)):
            return "a frame %.40r came whose %s is %.80r" % (operation, key, frame.get(key))
    return None
