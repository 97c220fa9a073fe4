"""Having a job die, or a disk fail, at the n-th boundary that is passed: n = 1, 2, ... until a run passes untouched.

    python -m tests.tools.boundaries TRACE

ends with 1, naming them, when boundaries of the source are not in what jobs have traced: nothing is tested there.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from skybatch.engine.folder import JobFolder
from skybatch.engine.fsck import fsck
from tests.tools.bench import ROOT, Bench, Ended, end_of

EVERY = os.environ.get("EVERY_BOUNDARY") == "1"
"""Whether to take all of them, rather than a sample that is another every day."""
PAUSED = 75


def numbers(step: int) -> Iterator[int]:
    """The boundaries to take, without end."""
    if EVERY:
        step = 1
    first = 1 + time.localtime().tm_yday % step
    while True:
        yield first
        first += step


def attacked(
    make: Callable[[Path], Bench], folder: Path, step: int, fault: str = "", where: str = "*", last: int | None = None
) -> Iterator[tuple[int, Bench, Ended]]:
    """A job for each of these boundaries that was hit there: the boundary, the bench and how its engine ended.

    The engine is killed, or the operation there fails with `fault`, an errno's name; `where` is a pattern of names.
    Up to the `last`, where it is given: a failure that does not matter looks like a run that was not hit.
    """
    for number in numbers(step):
        if last is not None and number > last:
            return
        bench = make(folder / str(number))
        at = f"{where}:{number}:{fault}" if fault else f"{where}:{number}"
        ended = end_of(bench.start(failpoint=at))
        if ended.code == 0 and not fault:
            return  # there are not so many
        bench.wait_for_no_process()
        yield number, bench, ended


def that_can_fail(trace: Path) -> int:
    """How many boundaries in a trace are operations of a disk or store."""
    return sum(line.endswith((".before", ".after")) for line in trace.read_text().splitlines())


def recover(bench: Bench, undisturbed: dict[str, bytes], failpoint: str = "") -> bool:
    """Go on with the job, or begin it anew where it did not come into being, to its end; False: it died once more.

    Asserts that its outputs are those of an undisturbed run, and that its journal is sound.
    """
    if not any(bench.home.glob("jobs/*/spec.json")):
        process = bench.start(failpoint=failpoint)
    else:
        process = bench.start_resume(failpoint=failpoint)
    ended = end_of(process)
    bench.wait_for_no_process()
    if ended.code == -signal.SIGKILL:
        return False
    assert ended.code == 0, ended
    assert bench.outputs() == undisturbed
    assert fsck(JobFolder(bench.job_folder), deep=True).problems == []
    return True


NAMED = re.compile(r'\b(?:reach|before|after)\(\s*"([\w.-]+)"|\bdisk\.(\w+)\(\s*"([\w.]+)"')


def named() -> set[str]:
    """How every boundary named in the source begins: some have more behind, which is said where they are passed."""
    names = set()
    for path in (ROOT / "skybatch").rglob("*.py"):
        if path.name not in ("disk.py", "failpoints.py"):
            for name, operation, step in NAMED.findall(path.read_text()):
                names.add(f"{step}.{operation}" if operation else name)
    return names


def never_passed(trace: Path) -> list[str]:
    """Boundaries of the source that nothing in a trace has passed."""
    with trace.open() as file:
        passed = sorted({line.rstrip("\n") for line in file})
    return sorted(name for name in named() if not any(line.startswith(name) for line in passed))


if __name__ == "__main__":
    missed = never_passed(Path(sys.argv[1]))
    print(f"{len(named())} named boundaries; never passed: {', '.join(missed) or 'none'}")
    sys.exit(1 if missed else 0)
