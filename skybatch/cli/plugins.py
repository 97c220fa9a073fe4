"""`skybatch plugins`."""

from __future__ import annotations

import click

from skybatch.cli.output import cell, emit_json, json_option
from skybatch.cli.shapes import PluginShape


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the plugins that are loaded, from where, and what they provide."""
    from skybatch import plugins as loader

    found = [
        PluginShape(name=one.name, version=one.version, location=one.location, provides=one.provides, error=one.error)
        for one in loader.loaded()
    ]
    if as_json:
        emit_json(found)
        return
    for one in found:
        click.echo(f"{cell(one.name)} {cell(one.version)}  {cell(one.location)}")
        for line in one.provides:
            click.echo(f"    {cell(line)}")
        if one.error:
            click.echo(f"    could not be loaded: {cell(one.error)}")
