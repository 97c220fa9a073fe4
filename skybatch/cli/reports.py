"""`skybatch logs` and `errors`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skybatch.cli.output import cell, emit_json, indented, inert, json_option, moment, named
from skybatch.cli.shapes import Failure, LogFile
from skybatch.errors import UnknownName

if TYPE_CHECKING:
    from skybatch.engine.job import Job

BLOCK = 1 << 16
SUMMARY_LINES, ITEMS_SHOWN = 10, 5


@click.command()
@click.argument("job", required=False)
@click.option("--worker", metavar="N", help="Only this worker's, by number; or `engine`, for a detached engine's.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), metavar="N", default=100, show_default=True,
    help="How many of each log's last lines; 0 for all.",
)  # fmt: skip
@json_option
def logs(job: str | None, worker: str | None, lines: int, as_json: bool) -> None:
    """Show what JOB's workers printed. On a terminal, control characters are shown as escapes."""
    from skybatch.engine.job import find_job

    files = _wanted(_log_files(find_job(job)), worker)
    if as_json:
        emit_json(files)
        return
    for log in files:
        if len(files) > 1:
            click.echo(f"==> {log.name} ({log.path}) <==")
        _show_log(Path(log.path), lines)
    if not files:
        click.echo("skybatch: nothing was logged", err=True)


def _log_files(job: Job) -> list[LogFile]:
    paths = sorted(job.folder.logs.glob("*.log"), key=lambda path: (len(path.name), path.name))
    return [LogFile(name=path.stem, path=str(path), bytes=path.stat().st_size) for path in paths]


def _wanted(files: list[LogFile], worker: str | None) -> list[LogFile]:
    if worker is None:
        return files
    found = [log for log in files if log.name in (worker, f"worker-{worker}")]
    if not found:
        raise UnknownName("worker", worker, [log.name for log in files])
    return found


def _show_log(path: Path, lines: int) -> None:
    terminal = sys.stdout.isatty()
    with open(path, "rb") as file:
        if lines:
            file.seek(_offset_of_last(file.fileno(), lines))
        last = b"\n"
        while block := file.read(BLOCK):
            last = block[-1:]
            click.echo(inert(block.decode("utf-8", "backslashreplace")) if terminal else block, nl=False)
    if last != b"\n":
        click.echo()


def _offset_of_last(fd: int, lines: int) -> int:
    """Where the last `lines` lines begin, reading from the end only what they need."""
    end = position = os.fstat(fd).st_size
    wanted = lines
    while position > 0:
        start = max(0, position - BLOCK)
        block = os.pread(fd, position - start, start)
        place = len(block)
        while (place := block.rfind(b"\n", 0, place)) >= 0:
            if start + place == end - 1:
                continue  # the newline that ends the last line
            wanted -= 1
            if wanted == 0:
                return start + place + 1
        position = start
    return 0


@click.command()
@click.argument("job", required=False)
@click.option(
    "-n", "--number", type=click.IntRange(min=0), metavar="N", default=20, show_default=True,
    help="How many of the newest failures; 0 for all that are kept.",
)  # fmt: skip
@click.option(
    "--export", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the items that failed for good to FILE, as JSON Lines: index, item, class, message, ...",
)  # fmt: skip
@json_option
def errors(job: str | None, number: int, file: Path | None, as_json: bool) -> None:
    """Show what failed in JOB, tries that were made good later included; the newest is last."""
    from skybatch.engine.job import find_job

    found = find_job(job)
    if file is not None:
        count = found.export_errors(file)
        click.echo(f"skybatch: {count:,} items that failed for good are in {file}", err=True)
        return
    _summarize(found)
    failures = _failures(found)[-number:]
    if as_json:
        emit_json(failures)
        return
    before = None
    last = {(failure.start, failure.end): place for place, failure in enumerate(failures)}
    for place, failure in enumerate(failures):
        gave_up = failure.dead and last[failure.start, failure.end] == place
        _show_failure(failure, before, gave_up)
        before = failure.traceback
    if not failures:
        click.echo("skybatch: nothing failed", err=True)


def _summarize(job: Job) -> None:
    """What failed for good, by class and message, when there is more than one of it; on stderr, as a heading."""
    from skybatch.journal.reading import Reader

    counts: dict[tuple[str, str], list[int]] = {}
    with Reader(job.folder.journal) as reader:
        for run, failure in reader.dead_failures():
            what = (failure.kind, failure.message) if failure else ("unknown", "")
            counts.setdefault(what, []).append(run.start)
    for (kind, message), items in sorted(counts.items(), key=lambda each: -len(each[1]))[:SUMMARY_LINES]:
        shown = ", ".join(map(str, items[:ITEMS_SHOWN])) + (", ..." if len(items) > ITEMS_SHOWN else "")
        click.echo(f"{len(items):,} set aside, {kind}: {cell(message)}  (items {shown})", err=True)
    if len(counts) > SUMMARY_LINES:
        click.echo(f"and {len(counts) - SUMMARY_LINES:,} other kinds", err=True)


def _failures(job: Job) -> list[Failure]:
    from skybatch.journal.reading import Reader

    with Reader(job.folder.journal) as reader:
        dead = [(run.start, run.end) for run in reader.runs() if run.state == "dead"]
        rows = reader.failures()
    return [
        Failure(
            start=row.start,
            end=row.end,
            item=row.item,
            attempt=row.attempt,
            kind=row.kind,
            message=row.message,
            traceback=row.traceback,
            worker=row.worker,
            at=row.at,
            dead=_lies_in(row.start, row.end, dead),
        )
        for row in rows
    ]


def _lies_in(start: int, end: int, stretches: list[tuple[int, int]]) -> bool:
    """Whether one of the stretches, which are in order and apart, holds all of `start` to `end`."""
    from bisect import bisect_right

    place = bisect_right(stretches, (start, sys.maxsize)) - 1
    return place >= 0 and stretches[place][0] <= start and end <= stretches[place][1]


def _show_failure(failure: Failure, traceback_before: str | None, gave_up: bool) -> None:
    where = named(failure.start, failure.end)
    if failure.item is not None and failure.start != failure.end:
        where += f" (at item {failure.item})"
    what = f"try {failure.attempt}, {failure.kind}{', set aside' if gave_up else ''}"
    click.echo(f"{moment(failure.at)}  {where}, {what}: {cell(failure.message)}")
    if failure.traceback and failure.traceback == traceback_before:
        click.echo("    (the same traceback)")
    elif failure.traceback:
        click.echo(indented(failure.traceback))
