"""What a person sees of a running job: a bar on a terminal, a plain line now and then elsewhere.

Driven by the engine's commits: there is no thread and no timer here, and a short job costs no import of rich.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 10.0
BAR_AFTER_S = 0.5  # a job that ends sooner gets its closing line alone
REDRAW_EVERY_S = 0.1
WINDOW_S = 30.0  # the rate is that of this last stretch


class ProgressDisplay:
    """Shows one job's progress on `stream`; an unwritable stream is given up, not an error."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._begin = self._last_line = clock()
        self._last_drawn = -REDRAW_EVERY_S
        self._samples: deque[tuple[float, int]] = deque()
        self._line: str | None = None  # the latest, as the closing line will have it
        self._bar: _Bar | None = None
        self._terminal = _is_terminal(stream)
        self._closed = False

    def update(self, done: int, dead: int, total: int, rate: float | None, state: str) -> None:
        """Show these numbers of items, as committed; `rate` per second, None: measured from these calls."""
        now = self._clock()
        rate = self._rate(now, done) if rate is None else rate
        self._line = describe(done, dead, total, rate, state)
        try:
            if self._terminal:
                self._draw(now, done, dead, total, rate, state)
            elif now - self._last_line >= LINE_EVERY_S:
                self._last_line = now
                self._print(self._line)
        except (OSError, ValueError):
            self._closed = True  # the terminal is gone; the job goes on

    def close(self) -> None:
        """Take the bar away and leave one closing line; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._bar is not None:
                self._bar.close()
            if self._line is not None:
                self._print(f"{self._line.partition(', about ')[0]}, {duration(self._clock() - self._begin)} in all")
        except (OSError, ValueError):
            pass

    def _draw(self, now: float, done: int, dead: int, total: int, rate: float | None, state: str) -> None:
        if self._closed or now - self._begin < BAR_AFTER_S or now - self._last_drawn < REDRAW_EVERY_S:
            return
        self._last_drawn = now
        if self._bar is None:
            assert self._stream is not None
            self._bar = _Bar(self._stream)
        self._bar.draw(done + dead, total, describe(done, dead, total, rate, state))

    def _print(self, line: str) -> None:
        if self._stream is not None:  # as it is in a process without standard error
            self._stream.write(f"skybatch: {line}\n")
            self._stream.flush()

    def _rate(self, now: float, done: int) -> float | None:
        """Items per second over the window; None until there is something to measure."""
        samples = self._samples
        if not samples or now - samples[-1][0] >= 1:
            samples.append((now, done))
        while len(samples) > 1 and now - samples[1][0] > WINDOW_S:
            samples.popleft()
        since, before = samples[0]
        return (done - before) / (now - since) if now - since >= 0.5 else None


class _Bar:
    """rich's progress bar, redrawn when told to."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._progress: Progress = Progress(
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID = self._progress.add_task("")
        self._progress.start()

    def draw(self, done: int, total: int, text: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=text, refresh=True)

    def close(self) -> None:
        self._progress.stop()


def describe(done: int, dead: int, total: int | None, rate: float | None, state: str) -> str:
    """`1,200 of 20,000 items, 3 failed, 410/s, about 46 s left`."""
    parts = [f"{done:,} of {counted(total)}" if total is not None else counted(done)]
    if dead:
        parts.append(f"{dead:,} failed")
    if state != "running":
        parts.append(state)
    if rate:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if total is not None and total > done + dead:
            parts.append(f"about {duration((total - done - dead) / rate)} left")
    return ", ".join(parts)


def counted(number: int) -> str:
    """`1 item`, `2,000 items`."""
    return f"{number:,} item{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`0.8 s`, `46 s`, `3 min 10 s`, `5 h 02 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):
        return False
