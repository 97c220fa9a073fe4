"""`skybatch pool`: apply, list, show, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from skybatch.cli.output import emit_json, inert, json_option, table
from skybatch.cli.shapes import PoolShape

if TYPE_CHECKING:
    from skybatch.engine.pools import Pool


@click.group()
def pool() -> None:
    """Keep named executor configurations; `local` is always there."""


@pool.command("apply")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--pool", "name", required=True, metavar="NAME", help="The name it gets.")
@click.option("-y", "--yes", is_flag=True, help="Accepted for the reference's sake: nothing is ever asked.")
def apply(file: Path, name: str, yes: bool) -> None:
    """Check FILE, a pool.yaml, and keep it as NAME, replacing an earlier one."""
    from skybatch import plugins
    from skybatch.engine import pools

    made = pools.read(file, name)
    plugins.executor(made.executor)
    pools.keep(made)
    click.echo(f"skybatch: pool {name} is kept: {made.executor}, {_workers(made)}", err=True)
    if made.ignored:
        click.echo(f"skybatch: without meaning here, and ignored: {', '.join(made.ignored)}", err=True)
    if made.setup:
        click.echo("skybatch: setup is not run; run it yourself where it is needed:", err=True)
        click.echo(inert(made.setup.rstrip()), err=True)


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
