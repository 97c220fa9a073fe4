"""`skybatch list`, `status` and `cancel`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from skybatch.cli import exits
from skybatch.cli.output import cell, emit_json, indented, json_option, moment, plain, table
from skybatch.cli.shapes import JobStatus, JobSummary, PlaceStatus, summary
from skybatch.cli.shapes import status as status_of

if TYPE_CHECKING:
    from skybatch.engine.job import Job

FINISHED = ("published", "cleaned")
STOPPED = ("paused", "cancelled", "failed", "conflict")


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all jobs, oldest first."""
    from skybatch.engine.job import all_jobs

    found = [summary(job) for job in all_jobs()]
    if as_json:
        emit_json(found)
    elif found:
        table(("JOB", "STATE", "ITEMS", "DONE", "FAILED", "STARTED", "NAME"), map(_row, found))
    else:
        click.echo("no jobs yet", err=True)


def _row(job: JobSummary) -> tuple[object, ...]:
    started = moment(job.created_at or None)
    return job.id, shown_state(job), job.items, job.items_done, job.items_dead, started, job.name


@click.command()
@click.argument("job", required=False)
@click.option("--watch", is_flag=True, help="Follow it until its engine ends; the exit code is then the job's.")
@json_option
def status(job: str | None, watch: bool, as_json: bool) -> int:
    """Show how far JOB is.

    With --watch and --json, each line is one JSON object: progress events, and at last the status.
    """
    from skybatch.engine.job import find_job

    found = find_job(job)
    if watch:
        _follow(found, as_json)
    now = status_of(found)
    if as_json:
        click.echo(json.dumps(plain(now))) if watch else emit_json(now)
    else:
        _show(now)
    return exits.of_job(now.state, now.items_dead) if watch else exits.DONE


def _follow(job: Job, as_json: bool) -> None:
    """Show progress events until the engine ends; returns at once when none runs."""
    from skybatch.engine import control
    from skybatch.engine.progress import ProgressDisplay

    display = ProgressDisplay(sys.stderr)
    try:
        for event in control.watch(job.folder):
            if as_json:
                click.echo(json.dumps(event))
                sys.stdout.flush()
            elif event.get("event") == "progress":
                display.update(event["done"], event["dead"], event["total"], None, event["state"])
        if job.engine_running:
            job._wait_for_lock()
    finally:
        display.close()


def _show(job: JobStatus) -> None:
    lines = [
        ("job", f"{job.id}  {job.name}"),
        ("state", shown_state(job)),
        ("items", f"{cell(job.items_done)} of {cell(job.items)}, {cell(job.items_dead)} failed for good"),
        ("ranges", f"{cell(job.ranges_done)} of {cell(job.ranges)}"),
        (
            "started",
            f"{moment(job.created_at or None)}, run by {job.epoch} engine{'s' if job.epoch != 1 else ''} so far",
        ),
    ]
    lines += [("ended", moment(job.finished_at))] if job.finished_at else []
    lines += [("output", f"{output.path}  ({output.state})") for output in job.outputs]
    lines += [("folder", job.folder)]
    lines += [("workers", _crew(job))] if job.workers else []
    lines += [("place", _place(place)) for place in job.places]
    lines += [("next", job.next_command)] if job.next_command else []
    for label, value in lines:
        click.echo(f"{label + ':':9}{cell(value)}")
    if job.cause:
        click.echo(f"cause:\n{indented(job.cause)}")


def _crew(job: JobStatus) -> str:
    """`4, 2 of them relayed`, and how many are not at work yet."""
    relayed = sum(worker.mode == "relayed" for worker in job.workers)
    others = [worker.state for worker in job.workers if worker.state != "ready"]
    told = [str(len(job.workers)), *([f"{relayed} of them relayed"] if relayed else [])]
    return ", ".join(told + [f"{others.count(state)} {state}" for state in sorted(set(others))])


def _place(place: PlaceStatus) -> str:
    if place.aside is not None:
        return f"{place.name}  (set aside: {place.aside})"
    facts = place.facts
    used, total = facts.get("memory_used"), facts.get("memory_total")
    told = [f"{used / 1e9:.1f} of {total / 1e9:.1f} GB used"] if used is not None and total else []
    told += [f"{facts['utilisation']} % busy"] if facts.get("utilisation") is not None else []
    told += [f"{facts['round_trip_s'] * 1000:.1f} ms away"] if "round_trip_s" in facts else []
    return f"{place.name}  ({', '.join(told)})" if told else place.name


def shown_state(job: JobSummary) -> str:
    """The state in words: a job that should run and has no engine was interrupted."""
    if job.engine_running or job.state in (*FINISHED, *STOPPED, "damaged"):
        return job.state
    return f"{job.state} (interrupted: no engine runs it)"


@click.command()
@click.argument("job", required=False)
def cancel(job: str | None) -> None:
    """Stop JOB and wait until it has stopped; what is done stays, and `skybatch resume` goes on."""
    from skybatch.engine.job import find_job

    found = find_job(job)
    state = found.state
    if not found.engine_running and state in (*FINISHED, *STOPPED):
        click.echo(f"skybatch: job {found.id} does not run: it is {state}", err=True)
        return
    found.cancel()
    state = found.state
    go_on = "" if state in FINISHED else f"; to go on: skybatch resume {found.id}"
    click.echo(f"skybatch: job {found.id} is {state}{go_on}", err=True)
