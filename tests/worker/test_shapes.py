"""What workers say is acted upon only when it holds what it must."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skybatch.worker.frames import Frame, FrameError
from skybatch.worker.shapes import SHAPES, require_sense

STRETCH = {"grant": 7, "start": 0, "end": 9}
ROW = [7, 0, 4, 1, 5, False, 0.25, [10, 0], 3, [1, 2, 3]]
GOOD: dict[str, Frame] = {
    "started": {"pid": 12},
    "done": {
        **STRETCH,
        "nonce": "a1",
        "ranges": 2,
        "size": 5,
        "seconds": 1,
        "files": [None, {"name": "a.seg", "size": 99, "data": 10}],
    },
    "failed": {
        **STRETCH,
        "attempt": 0,
        "kind": "mapper",
        "message": "no",
        "traceback": "",
        "signature": "at",
        "item": None,
    },
    "storage": {"message": "no"},
    "broken": {"message": "no"},
    "lost": {"reason": "exit", "held": [[0, 9], [20, -1]], "status": None, "message": None},
    "unfit": {"message": "no"},
    "hello": {"needed": ["core"], "root": "/r"},
    "mode": {"direct": True, "decode": False, "encode": True, "why": ""},
    "log": {"blob": b"x"},
    "results": {"rows": [ROW], "blob": memoryview(b"x")},
    "again": {"id": 7, "start": 0, "stop": 4},
}
MAY_LACK = {("failed", "item"), ("lost", "status"), ("lost", "message")}
KEYS = [(operation, key) for operation, tests in SHAPES.items() for key in tests]
WRONG_ROWS = [
    ROW[:-1],
    [-1, *ROW[1:]],
    [*ROW[:5], 0, *ROW[6:]],
    [*ROW[:6], float("nan"), *ROW[7:]],
    [*ROW[:7], None, 3, [1]],
    [*ROW[:9], [1, 2]],
    "row",
]


@pytest.mark.parametrize("operation", SHAPES)
def test_what_workers_say_makes_sense(operation: str) -> None:
    frame = {"op": operation, **GOOD[operation], "more": 1}
    assert set(SHAPES[operation]) <= set(frame) and require_sense([frame]) == [frame]


@pytest.mark.parametrize(("operation", "key"), KEYS)
@given(wrong=st.sampled_from([None, -1, {}, 1.5, math.inf, [1], [[1]], [{"name": "a/b", "size": 1, "data": 1}]]))
def test_a_key_that_is_not_there_or_holds_something_else_is_an_error(operation: str, key: str, wrong: object) -> None:
    frame = {"op": operation, **GOOD[operation], key: wrong}
    allowed = (wrong is None and (operation, key) in MAY_LACK) or (wrong == 1.5 and key == "seconds")
    if allowed:
        require_sense([frame])
        return
    with pytest.raises(FrameError, match=f"'{operation}' came whose {key} is"):
        require_sense([frame])


@pytest.mark.parametrize("row", WRONG_ROWS)
def test_a_row_of_results_that_cannot_be_is_an_error(row: object) -> None:
    with pytest.raises(FrameError, match="whose rows"):
        require_sense([{"op": "results", "rows": [ROW, row], "blob": b"x"}])


@pytest.mark.parametrize("frame", [{}, {"op": None}, {"op": ["done"]}])
def test_a_frame_without_an_operation_is_an_error(frame: Frame) -> None:
    with pytest.raises(FrameError, match="without an operation"):
        require_sense([frame])


def test_operations_nobody_knows_are_free() -> None:
    assert require_sense([{"op": "of a later version"}])
