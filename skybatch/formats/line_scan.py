"""Where the lines of a file begin, found at the speed of the disk: a checkpoint for every 64 KB.

A record is a line that is not blank. Lines end at `\\n` only; a `\\r` before it belongs to the line end.

A large local file is scanned in parts by several processes, of which each runs this very file; it imports the standard
library alone, and little of that.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import sys
from array import array
from collections.abc import Callable

STEP = 64 << 10
PART_SIZE = 192 << 20
"""Less than this is scanned before another process has begun."""
PARTS = 4
BLANK = b" \t\r"
Row = tuple[int, int, int]
Keep = Callable[[Row], object]
_blank_start = re.compile(rb"\n[ \t\r\n]").search


class Scanner:
    """Takes a file piece by piece; keeps checkpoints: byte offset, records before it, lines before it.

    They lie at the last line end of every step, and around a line that is longer than that. Lines are only counted.
    """

    def __init__(self, keep: Keep, *, start: Row = (0, 0, 0), step: int = STEP) -> None:
        self._keep, self._step = keep, step
        self._offset, self._records, self._lines = start
        self._kept = self._offset
        self._open = False  # a line has begun and not ended
        self._blank = True  # nothing but blanks in it so far
        self._dense = False
        keep(start)

    def feed(self, data: bytes) -> None:
        """The next bytes, however many."""
        if len(data) <= self._step:
            self._take(data)
        else:
            for start in range(0, len(data), self._step):
                self._take(data[start : start + self._step])

    def follow(self, rows: array[int]) -> None:
        """What another scanner found in the part behind, which begins and ends with lines."""
        records, lines = self._records, self._lines
        for place in range(3, len(rows), 3):
            self._records, self._lines = records + rows[place + 1], lines + rows[place + 2]
            self._checkpoint(rows[place])
        self._offset = rows[-3]

    def finish(self) -> None:
        """The file ends here, and so does a line that has no end; the last checkpoint is the end."""
        if self._open:
            self._lines += 1
            self._records += not self._blank
        self._open, self._blank = False, True
        if self._offset > self._kept:
            self._checkpoint(self._offset)

    def _take(self, piece: bytes) -> None:
        cut = piece.rfind(b"\n") + 1
        if cut and self._offset - self._kept >= self._step:
            first = piece.find(b"\n") + 1  # so that a long line stands alone
            self._count(piece[:first])
            piece, cut = piece[first:], cut - first
        if cut:
            self._count(piece[:cut] if len(piece) - cut > cut else piece, cut)
            rest = piece[cut:]
        else:
            rest = piece
        if rest:
            self._open = True
            self._blank = self._blank and not rest.strip(BLANK)
            self._offset += len(rest)

    def _count(self, piece: bytes, cut: int = 0) -> None:
        """A piece with line ends, the last one at `cut`; what follows there has none."""
        cut = cut or len(piece)
        lines = self._line_ends(piece)
        blank = 0
        if self._blank or may_hold_blanks(piece):
            inner = piece[:cut].split(b"\n")
            blank = sum(1 for line in inner[1:-1] if not line.strip(BLANK))
            blank += self._blank and not inner[0].strip(BLANK)
        self._lines += lines
        self._records += lines - blank
        self._offset += cut
        self._open, self._blank = False, True
        self._checkpoint(self._offset)

    def _line_ends(self, piece: bytes) -> int:
        """Their number; `replace` finds them by memchr, which pays where lines are long."""
        lines = piece.count(b"\n") if self._dense else len(piece) - len(piece.replace(b"\n", b""))
        self._dense = lines * 50 > len(piece)
        return lines

    def _checkpoint(self, offset: int) -> None:
        self._keep((offset, self._records, self._lines))
        self._kept = offset


def may_hold_blanks(piece: bytes) -> bool:
    """Whether a line in `piece`, its first aside, begins like a blank one."""
    strstr = _strstr()
    if strstr is None or b"\0" in piece:
        return _blank_start(piece) is not None
    return bool(
        strstr(piece, b"\n\n")
        or strstr(piece, b"\n ")
        or (b"\t" in piece and strstr(piece, b"\n\t"))
        or (b"\r" in piece and strstr(piece, b"\n\r"))
    )


@functools.cache
def _strstr() -> Callable[[bytes, bytes], int | None] | None:
    """The C library's search: more than ten times as fast as that of `bytes` for two of them."""
    try:
        import ctypes

        search = ctypes.PyDLL(None).strstr
        search.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        search.restype = ctypes.c_void_p
    except (ImportError, AttributeError, OSError):
        return None
    return search


def scan(
    fd: int, end: int, keep: Keep, *, start: Row = (0, 0, 0), step: int = STEP, part_size: int = PART_SIZE
) -> None:
    """Scan an open local file up to `end`, in parts where it is large and there are processors for them."""
    bounds = _bounds(fd, start[0], end, part_size)
    helpers = [_Helper(fd, begin, stop) for begin, stop in itertools.pairwise(bounds[1:])]
    try:
        scanner = Scanner(keep, start=start, step=STEP)
        _feed(scanner, fd, bounds[0], bounds[1])
        for helper in helpers:
            rows = helper.rows()
            if rows is None:
                _feed(scanner, fd, helper.begin, helper.end)
            else:
                scanner.follow(rows)
        scanner.finish()
    finally:
        for helper in helpers:
            helper.close()


def _feed(scanner: Scanner, fd: int, begin: int, end: int) -> None:
    while begin < end and (piece := os.pread(fd, min(STEP, end - begin), begin)):
        scanner.feed(piece)
        begin += len(piece)


def _bounds(fd: int, begin: int, end: int, part_size: int) -> list[int]:
    """Where the parts begin, each with a line, and the last one ends."""
    parts = max(1, min(PARTS, _processors(), (end - begin) // part_size))
    bounds = [begin]
    for number in range(1, parts):
        at = _line_behind(fd, max(begin + (end - begin) * number // parts, bounds[-1]), end)
        if bounds[-1] < at < end:
            bounds.append(at)
    return [*bounds, end]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _line_behind(fd: int, offset: int, end: int) -> int:
    while offset < end and (piece := os.pread(fd, STEP, offset)):
        if found := piece.find(b"\n") + 1:
            return offset + found
        offset += len(piece)
    return end


class _Helper:
    """A process that scans one part; it ends with its part, or when it is closed."""

    def __init__(self, fd: int, begin: int, end: int) -> None:
        import subprocess
        import tempfile

        self.begin, self.end = begin, end
        self._found = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._found = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(begin), str(end)],
                stdin=fd,
                stdout=self._found,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, ValueError, TypeError):
            pass  # the part is scanned here

    def rows(self) -> array[int] | None:
        """What it found, once it is done; None when it could not."""
        if self._process is None or self._found is None or self._process.wait():
            return None
        self._found.seek(0)
        rows = array("Q")
        rows.frombytes(self._found.read())
        return rows if rows and rows[-3] == self.end else None

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._found is not None:
            self._found.close()


def _main() -> None:
    begin, end = int(sys.argv[1]), int(sys.argv[2])
    rows = array("Q")
    scanner = Scanner(rows.extend, start=(begin, 0, 0))
    _feed(scanner, 0, begin, end)
    scanner.finish()
    sys.stdout.buffer.write(rows)


if __name__ == "__main__":
    _main()
