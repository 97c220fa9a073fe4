"""`skybatch run`, `resume` and `retry`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skybatch.cli.exits import DONE, DONE_WITH_DEAD_LETTERS
from skybatch.cli.output import json_option

if TYPE_CHECKING:
    from skybatch.engine.dataset import Dataset
    from skybatch.engine.job import Job

workers_option = click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="How many workers, instead of the pool's number."
)
pool_option = click.option("--pool", metavar="NAME", help="The pool to run on.")
detach_option = click.option(
    "--detach", is_flag=True, help="Return when an engine of its own session runs the job; print its id."
)


@click.command()
@click.argument("jobfile", type=click.Path(dir_okay=False, path_type=Path))
@pool_option
@workers_option
@click.option("--overwrite", is_flag=True, help="Replace what stands at the outputs' places.")
@click.option("--resume", is_flag=True, help="Go on with the unfinished job of the same file, if there is one.")
@detach_option
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Map the first N items only.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Map one batch, or --limit items, in this process and show items and results: no job, no output.",
)
@json_option
def run(
    jobfile: Path,
    pool: str | None,
    workers: int | None,
    overwrite: bool,
    resume: bool,
    detach: bool,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run the job that JOBFILE describes; paths in it are relative to it."""
    if as_json and not dry_run:
        raise click.UsageError("--json is for --dry-run; to see a job as JSON: skybatch status --json")
    if dry_run and (resume or detach):
        raise click.UsageError("--dry-run starts no job: it goes with neither --resume nor --detach")
    from skybatch.engine import jobfile as jobfiles
    from skybatch.engine.dataset import Dataset

    arguments = jobfiles.read(jobfile).to_map_arguments()
    given: dict[str, Any] = {"pool_name": pool, "workers": workers, "overwrite": overwrite or None}
    kwargs = {**arguments.kwargs, **{key: value for key, value in given.items() if value is not None}}
    dataset = Dataset(arguments.reader, limit=limit or arguments.limit)
    if dry_run:
        return _try(dataset, arguments.mapper, kwargs, limit, as_json)
    job = dataset.map(arguments.mapper, stream=not detach, resume=resume, **kwargs)
    return end_of(job, detach)


def _try(dataset: Dataset, mapper: Any, kwargs: dict[str, Any], limit: int | None, as_json: bool) -> int:
    """Map a few items without a job, and show them; `limit` as given on the command line."""
    from skybatch.cli.dry_run import show
    from skybatch.engine.preview import untried

    for writer in untried(kwargs["output"]):
        what = f"{type(writer).__name__}.upload_batch() is not tried: a dry run writes nothing"
        click.echo(f"skybatch: {what}", err=True)
    if kwargs.keys() & {"pool_name", "activate_env"}:
        click.echo("skybatch: mapped in this process: pool and activate_env are not used", err=True)
    used = ("output", "batch_size", "mapper_args", "concurrency", "one_to_one")
    options = {key: kwargs[key] for key in used if key in kwargs}
    return show(dataset.preview(mapper, limit=limit, **options), as_json=as_json)


def going_on(command: Callable[..., int]) -> click.Command:
    """A command that has an engine go on with a job: what it may be told."""
    options = [
        click.argument("job", required=False),
        pool_option,
        workers_option,
        click.option(
            "--code",
            type=click.Choice(["stored", "current"]),
            default="stored",
            help="Which code to go on with: the job's own (stored), or the files' as they are now.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(["fail", "skip"]),
            help="When items fail for good, from now on: publish without them (skip), or nothing (fail).",
        ),
        click.option(
            "--max-failed-items",
            type=click.IntRange(min=0),
            metavar="N",
            help="So many items may fail for good, from now on.",
        ),
        click.option(
            "--max-failed-fraction",
            type=click.FloatRange(0, 1),
            metavar="F",
            help="The same as a share of all items, 0 to 1.",
        ),
        detach_option,
    ]
    for option in reversed(options):
        command = option(command)
    return click.command()(command)


@going_on
def resume(job: str | None, detach: bool, **how: Any) -> int:
    """Go on with JOB, with the code it was started with; on the pool it ran on unless told otherwise."""
    from skybatch.engine import job as jobs

    return end_of(jobs.resume(job, stream=not detach, **how), detach)


@going_on
def retry(job: str | None, detach: bool, **how: Any) -> int:
    """Try the items of JOB again that failed for good, and only them; publish it with their results in their places.

    Left out, JOB is the one that has such items.
    """
    from skybatch.engine import job as jobs

    return end_of(jobs.retry(job, stream=not detach, **how), detach)


def end_of(job: Job, detached: bool) -> int:
    """The exit code of a job that came this far; the id of a detached one on stdout."""
    if detached:
        click.echo(job.id)
        return DONE
    return DONE_WITH_DEAD_LETTERS if job.progress().items_dead else DONE
