"""`skybatch reduce`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skybatch.errors import UsageError

if TYPE_CHECKING:
    from skybatch.engine.partial import Partial

STRETCHES_SHOWN = 10


@click.command()
@click.argument("job", required=False)
@click.option("--partial", is_flag=True, help="Write what is finished so far; required.")
def reduce(job: str | None, partial: bool) -> None:
    """Write what JOB has finished so far to OUTPUT.partial beside each output, without what is missing.

    An older one is replaced. JOB stays as it is and can be resumed; it must not run meanwhile. A job that is mapped
    needs no `reduce`: `resume` merges and publishes it.
    """
    from skybatch.engine.job import find_job
    from skybatch.engine.partial import reduce_partially

    found = find_job(job)
    if not partial:
        raise UsageError(
            f"to merge and publish job {found.id}: skybatch resume {found.id}\n"
            f"  to write what is finished so far: skybatch reduce --partial {found.id}"
        )
    written = reduce_partially(found.folder)
    for path in written.paths:
        click.echo(path)
    click.echo(f"skybatch: {written.done:,} of {written.length:,} items; missing: {_missing(written)}", err=True)


def _missing(written: Partial) -> str:
    """Stretches of items, the first few of them."""
    shown = [f"{start}-{end}" if end > start else f"{start}" for start, end in written.missing[:STRETCHES_SHOWN]]
    rest = len(written.missing) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more stretches" if rest else "")
