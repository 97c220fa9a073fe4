"""`skybatch doctor`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from skybatch.cli.exits import DONE, FAILED
from skybatch.cli.output import cell, emit_json, json_option
from skybatch.cli.shapes import Check
from skybatch.errors import SkybatchError

LEAST_PYTHON = (3, 11)
LEAST_SQLITE = (3, 35)
LEAST_FREE = 1 << 30  # bytes
EXTRAS = {
    "parquet": ("pyarrow", "ParquetReader and ParquetWriter"),
    "image": ("PIL", "ImageReader and ImageWriter"),
    "zstd": ("zstandard", "files compressed with zstd, .zst"),
    "s3": ("s3fs", "paths that begin with s3://"),
    "gcs": ("gcsfs", "paths that begin with gs://"),
    "gpu": ("pynvml", "workers on this machine's GPUs"),
    "ray": ("ray", "workers on a Ray cluster"),
    "dask": ("distributed", "workers on a Dask cluster"),
    "testing": ("pytest", "tests of formats and executors of your own"),
}
"""What each optional part imports, and what it is for."""


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Check that jobs can run here: Python, SQLite, the job folders' place, space, extras and plugins."""
    found = list(checks())
    if as_json:
        emit_json(found)
    else:
        for check in found:
            remedy = f"; {check.remedy}" if check.remedy else ""
            click.echo(
                f"{'ok ' if check.ok else 'BAD'}  {check.name}: {cell(check.found)}{cell(remedy) if remedy else ''}"
            )
    return DONE if all(check.ok for check in found) else FAILED


def checks() -> Iterator[Check]:
    """All checks, in the order they are shown."""
    yield _version("Python", sys.version_info[:3], LEAST_PYTHON, sys.executable)
    yield _version("SQLite", sqlite3.sqlite_version_info, LEAST_SQLITE, "of this Python")
    yield _attempt("job folders", _home)
    yield _attempt("filesystem", _filesystem)
    yield _attempt("free space", _space)
    yield from _extras()
    yield from _plugins()


def _version(name: str, found: tuple[int, ...], least: tuple[int, ...], where: str) -> Check:
    wanted = ".".join(map(str, least))
    return Check(
        name=name,
        ok=found >= least,
        found=f"{'.'.join(map(str, found))}, {where}",
        remedy=None if found >= least else f"{wanted} or newer is needed",
    )


def _attempt(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, found=look(), remedy=None)
    except (SkybatchError, OSError) as error:
        return Check(name=name, ok=False, found=str(error), remedy="or set SKYBATCH_HOME to another folder")


def _home() -> str:
    from skybatch.engine.folder import JobFolder, home

    JobFolder(home()).check_trusted()
    return f"{home()}, writable by you alone"


def _filesystem() -> str:
    from skybatch.engine.folder import JobFolder, filesystem_type, home

    JobFolder(home()).check_filesystem()
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return "not known on this system"
    return filesystem_type(mounts, os.path.realpath(home())) or "not known"


def _space() -> str:
    from skybatch.engine.folder import home

    free = shutil.disk_usage(home()).free
    if free < LEAST_FREE:
        raise OSError(f"only {free >> 20:,} MB left at {home()}: make room")
    return f"{free / 1e9:,.1f} GB at {home()}"


def _extras() -> Iterator[Check]:
    for name, (module, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Check(
            name=f"extra {name}",
            ok=True,
            found=f"{'there' if there else 'not there'}, for {purpose}",
            remedy=None if there else f"to have it: pip install 'skybatch[{name}]'",
        )


def _plugins() -> Iterator[Check]:
    from skybatch import plugins

    for plugin in plugins.loaded():
        yield Check(
            name=f"plugin {plugin.name}",
            ok=plugin.error is None,
            found=plugin.error or f"{plugin.version}, {plugin.location}",
            remedy="uninstall or mend it" if plugin.error else None,
        )
