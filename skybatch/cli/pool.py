"""`skybatch pool`: apply, check, list, show, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from skybatch.cli import exits
from skybatch.cli.output import emit_json, inert, json_option, table
from skybatch.cli.shapes import PoolShape, SlotShape

if TYPE_CHECKING:
    from skybatch.engine.pool_check import Checked
    from skybatch.engine.pools import Pool


@click.group()
def pool() -> None:
    """Keep named executor configurations; `local` is always there."""


@pool.command("apply")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--pool", "name", required=True, metavar="NAME", help="The name it gets.")
@click.option(
    "--run-setup/--skip-setup", "run_setup", default=None,
    help="Run the pool's setup in every place, or do not; default: on other machines, not on this one.",
)
@click.option("-y", "--yes", is_flag=True, help="Accepted for the reference's sake: nothing is ever asked.")
def apply(file: Path, name: str, run_setup: bool | None, yes: bool) -> int:
    """Check FILE, a pool.yaml, and keep it as NAME, replacing an earlier one; run its setup on other machines."""
    from skybatch import plugins
    from skybatch.engine import pools

    made = pools.read(file, name)
    pools.keep(made)
    click.echo(f"skybatch: pool {name} is kept: {made.executor}, {_workers(made)}", err=True)
    if made.ignored:
        click.echo(f"skybatch: without meaning here, and ignored: {', '.join(made.ignored)}", err=True)
    if made.setup:
        if run_setup is None:
            run_setup = plugins.executor(made.executor).elsewhere
        if run_setup and not _set_up(made):
            click.echo(f"skybatch: when that is mended: skybatch pool apply {file} --pool {name}", err=True)
            return exits.FAILED
        if not run_setup:
            click.echo("skybatch: setup is not run (--run-setup runs it):", err=True)
            click.echo(inert(made.setup.rstrip()), err=True)
    _tell_running(name)
    return exits.DONE


def _set_up(made: Pool) -> bool:
    """Run the pool's setup in all its places, its output shown; whether it went well in all of them."""
    import tempfile

    from skybatch.engine.pool_setup import set_up

    ends: dict[str, str | None] = {}

    def done(place: str, error: str | None) -> None:
        ends[place] = error
        how = "setup is done" if error is None else inert(error)
        click.echo(f"skybatch: {place or made.executor}: {how}", err=True)

    def said(place: str, text: str) -> None:
        for line in text.splitlines():
            click.echo(f"{place or made.executor}: {inert(line)}", err=True)

    with tempfile.TemporaryDirectory(prefix="skybatch-") as folder:
        set_up(made, said, done, folder)
    if not ends:
        click.echo("skybatch: the pool has no place to run its setup in", err=True)
    return bool(ends) and not any(ends.values())


def _tell_running(pool: str) -> None:
    """Have the jobs that run on a pool take its change over."""
    from skybatch.engine import control
    from skybatch.engine.folder import home, job_folders

    for folder in job_folders(home()):
        answer = control.ask(folder, "pool", name=pool) or {}
        if answer.get("adopted"):
            click.echo(f"skybatch: job {folder.id}, which runs on it, takes the change over", err=True)
        elif "why" in answer:
            click.echo(f"skybatch: job {folder.id} runs on as it was: {inert(answer['why'])}", err=True)


@pool.command("check")
@click.argument("name")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True, metavar="SECONDS",
    help="How long to wait for slots and workers.",
)  # fmt: skip
@json_option
def check(name: str, timeout: float, as_json: bool) -> int:
    """Start one worker in each slot of the pool NAME, and tell what is found there."""
    import tempfile

    from skybatch.engine import pools
    from skybatch.engine.pool_check import check_pool

    found: list[Checked] = []
    with tempfile.TemporaryDirectory(prefix="skybatch-") as folder:
        check_pool(pools.get(name), timeout, found.append, folder)
    found.sort(key=lambda one: (one.place, len(one.slot), one.slot))
    if as_json:
        emit_json([SlotShape(**vars(one)) for one in found])
    else:
        _show_slots(found)
    return exits.DONE if found and not any(one.error for one in found) else exits.FAILED


def _show_slots(found: list[Checked]) -> None:
    rows = [
        (
            one.slot,
            one.place or one.facts.get("host"),
            one.facts.get("python"),
            ", ".join(f"{name} {version}" for name, version in one.facts.get("versions", {}).items()),
            ", ".join(gpu["name"] for gpu in one.facts.get("gpus", [])),
            f"{one.facts['disk_free'] / 1e9:.0f} GB" if "disk_free" in one.facts else None,
            f"{one.round_trip_s * 1000:.2f} ms" if one.round_trip_s is not None else None,
        )
        for one in found
        if not one.error
    ]
    if rows:
        table(("SLOT", "PLACE", "PYTHON", "VERSIONS", "GPUS", "DISK FREE", "ROUND TRIP"), rows)
    for one in found:
        if one.error:
            click.echo(f"skybatch: {one.slot or one.place or 'here'}: {inert(one.error)}", err=True)
    if not found:
        click.echo("skybatch: the pool has no slots", err=True)


def _workers(made: Pool) -> str:
    return f"{made.workers} worker{'s' if made.workers > 1 else ''}" if made.workers else "a worker per slot"


@pool.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all pools."""
    from skybatch.engine import pools

    found = [_shape(pools.get(name)) for name in pools.names()]
    if as_json:
        emit_json(found)
    else:
        table(("POOL", "EXECUTOR", "WORKERS"), [(one.name, one.executor, one.workers) for one in found])


@pool.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the pool NAME as a pool.yaml."""
    from skybatch.engine import pools

    found = pools.get(name)
    if as_json:
        emit_json(_shape(found))
    else:
        click.echo(inert(found.to_yaml()), nl=False)


@pool.command("delete")
@click.argument("name")
def delete(name: str) -> None:
    """Forget the pool NAME; jobs that run on it go on."""
    from skybatch.engine import pools

    pools.delete(name)
    click.echo(f"skybatch: pool {name} is deleted", err=True)


def _shape(found: Pool) -> PoolShape:
    return PoolShape(
        name=found.name,
        executor=found.executor,
        workers=found.workers,
        env=dict(found.env),
        activate_env=found.activate_env,
        setup=found.setup,
        options=dict(found.options),
    )
