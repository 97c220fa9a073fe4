"""`skybatch fsck`, `rebuild` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skybatch.cli import exits
from skybatch.cli.output import cell, emit_json, inert, json_option, plain
from skybatch.cli.shapes import Exported, ExportedOutput
from skybatch.cli.shapes import status as status_of

if TYPE_CHECKING:
    from skybatch.engine.fsck import Report
    from skybatch.engine.job import Job


@click.command()
@click.argument("job", required=False)
@click.option("--deep", is_flag=True, help="Read every stored result too, and check it against its checksum.")
@json_option
def fsck(job: str | None, deep: bool, as_json: bool) -> int:
    """Check JOB's journal in itself and against what lies in storage. Changes nothing.

    Ends with 1 when there are problems, each told with the command that mends it.
    """
    from skybatch.engine.fsck import fsck as check
    from skybatch.engine.job import find_job

    report = check(find_job(job).folder, deep=deep)
    if as_json:
        emit_json(report)
    else:
        _show(report)
    return exits.FAILED if report.problems else exits.DONE


def _show(report: Report) -> None:
    for problem in report.problems:
        click.echo(f"{inert(problem.what)}\n  to mend it: {inert(problem.remedy)}")
    for note in report.notes:
        click.echo(f"note: {inert(note)}")
    found = f"{len(report.problems)} problems" if len(report.problems) != 1 else "1 problem"
    verdict = found if report.problems else "sound"
    how = "read whole" if report.deep else "by name and size; --deep reads them"
    seen = f"{report.winners:,} of {cell(report.items)} items done, {report.files:,} stored files ({how})"
    click.echo(f"skybatch: job {report.job_id}: {verdict}; {seen}", err=True)
    if report.engine_running:
        click.echo("skybatch: an engine runs it: what that writes meanwhile may look like a problem", err=True)


@click.command()
@click.argument("output")
def rebuild(output: str) -> None:
    """Make the journal anew of the job that writes to OUTPUT; a job's id will do too.

    For a journal that is lost or damaged: what is left of it is kept beside the new one. Results that are stored whole
    count as done; the rest, and what was set aside, is mapped again by `skybatch resume`.
    """
    from skybatch.engine.rebuild import rebuild as make_anew

    rebuilt = make_anew(output)
    if rebuilt.aside:
        click.echo(f"skybatch: what was left of the old journal is {rebuilt.aside}", err=True)
    click.echo(
        f"skybatch: job {rebuilt.job_id}: {rebuilt.finished:,} of {rebuilt.items:,} items are done; the input is taken "
        f"for what the job began with\n  to go on: skybatch resume {rebuilt.job_id}",
        err=True,
    )


@click.command()
@click.argument("job", required=False)
@click.option(
    "-o", "--output", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, not to stdout."
)
def export(job: str | None, file: Path | None) -> None:
    """Write what there is to know of JOB as one JSON object, for records and other programs."""
    from skybatch.engine.job import find_job

    exported = exported_job(find_job(job))
    if file is None:
        emit_json(exported)
        return
    file.write_text(json.dumps(plain(exported), indent=2, ensure_ascii=False) + "\n")


def exported_job(job: Job) -> Exported:
    """The record. Raises JournalDamaged."""
    import platform
    import sqlite3
    from importlib.metadata import version

    from skybatch.formats.masking import masked
    from skybatch.journal.reading import Reader

    spec = job.spec
    codes: dict[str, int] = {}
    attempts: dict[str, int] = {}
    failures: dict[str, int] = {}
    with Reader(job.folder.journal) as journal:
        row, outputs = journal.job(), journal.outputs()
        for run in journal.runs():
            if run.state == "won":
                items = run.end - run.start + 1
                codes[run.code or ""] = codes.get(run.code or "", 0) + items
                attempts[str(run.attempt)] = attempts.get(str(run.attempt), 0) + items
        for failure in journal.failures():
            failures[failure.kind] = failures.get(failure.kind, 0) + 1
    named = spec.refs["mapper"]
    settings = (
        *("batch_size", "limit", "one_to_one", "concurrency", "max_retries", "batch_timeout_s", "on_error"),
        *("max_failed_items", "max_failed_fraction", "speculate", "overwrite", "run"),
    )
    known = json.loads(masked(json.dumps({**{key: getattr(spec, key) for key in settings}, "input": spec.reader})))
    return Exported(
        skybatch=version("skybatch"),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        job=status_of(job),
        input={"class": str(spec.refs["reader"].get("name")), **known.pop("input")},
        mapper=f"{named.get('module')}:{named.get('name')}",
        settings=known,
        fingerprint=row.input_fingerprint,
        codes=codes,
        attempts=attempts,
        failures=failures,
        outputs=[ExportedOutput(path=masked(each.path), state=each.state, token=each.token) for each in outputs],
    )
