import io
import os
import pty
import subprocess
import sys

import pytest

from skybatch.engine.progress import ProgressDisplay, describe, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_elsewhere_than_on_a_terminal_a_short_job_leaves_one_line() -> None:
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, clock)
    for done in (10, 20, 30):
        clock.now += 0.3
        display.update(done, 0, 30, None, "running")
    display.close()
    display.close()
    assert stream.getvalue() == "skybatch: 30 of 30 items, 33/s, 0.9 s in all\n"


def test_a_long_job_leaves_a_line_now_and_then_however_often_it_is_told() -> None:
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, clock)
    for done in range(0, 3000, 10):
        clock.now += 0.1
        display.update(done, 2, 6000, None, "running")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[-1].endswith("of 6,000 items, 2 failed, 100/s, about 40 s left")


def test_what_a_resumed_job_had_before_does_not_count_as_speed() -> None:
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, clock)
    for done in (1_000_000, 1_000_100):
        clock.now += 10
        display.update(done, 0, 2_000_000, None, "running")
    assert "1,000,100 of 2,000,000 items, 10/s, about 27 h 46 min left" in stream.getvalue()


def test_a_job_that_told_nothing_leaves_nothing() -> None:
    stream = io.StringIO()
    ProgressDisplay(stream).close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("I/O operation on closed file")])
def test_a_stream_that_cannot_be_written_is_given_up(error: Exception) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    clock = Clock()
    display = ProgressDisplay(Gone(), clock)
    clock.now += 20
    display.update(1, 0, 2, None, "running")
    display.close()


def test_rich_is_not_imported_where_no_bar_is_drawn() -> None:
    code = (
        "import io, sys; from skybatch.engine.progress import ProgressDisplay; d = ProgressDisplay(io.StringIO())\n"
        "d.update(1, 0, 1, None, 'running'); d.close(); assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def read_to_the_end(master: int) -> str:
    """Everything written to the terminal whose other side is closed."""
    pieces = []
    try:
        while piece := os.read(master, 1 << 16):
            pieces.append(piece)
    except OSError:
        pass  # EIO is a terminal's end of file
    os.close(master)
    return b"".join(pieces).decode()


def test_on_a_terminal_a_bar_is_drawn_and_taken_away() -> None:
    master, slave = pty.openpty()
    clock = Clock()
    with os.fdopen(slave, "w") as stream:
        display = ProgressDisplay(stream, clock)
        for done in (10, 20, 30):
            clock.now += 1
            display.update(done, 1, 100, None, "running")
        display.close()
    shown = read_to_the_end(master)
    assert "30 of 100 items, 1 failed, 10/s" in shown
    assert shown.rstrip().endswith("30 of 100 items, 1 failed, 10/s, 3.0 s in all")
    assert "\x1b[?25h" in shown  # the cursor is back


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (46, "46 s"), (190, "3 min 10 s"), (18_120, "5 h 02 min")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_length_is_not_made_up() -> None:
    assert describe(5, 0, None, None, "running") == "5 items"
    assert describe(5, 0, 9, 0.5, "reducing") == "5 of 9 items, reducing, 0.5/s, about 8.0 s left"
