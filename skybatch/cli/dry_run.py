"""`skybatch run --dry-run`: items and results on the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from skybatch.cli.exits import DONE, FAILED
from skybatch.cli.output import emit_json, inert, named
from skybatch.cli.shapes import TriedBatch
from skybatch.engine.progress import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skybatch.engine.preview import Previewed

TEXT_MAX, LIST_MAX = 200, 8
"""Longer texts and lists are cut in what people read."""


def show(batches: Sequence[Previewed], *, as_json: bool) -> int:
    """Write items and results to stdout, failures to stderr; the exit code."""
    if as_json:
        emit_json([_record(batch) for batch in batches])
    else:
        for batch in batches:
            _show_batch(batch)
    failed = [batch for batch in batches if batch.error is not None]
    items = sum(batch.end - batch.start + 1 for batch in batches)
    summary = f"skybatch: {counted(items)} tried" + (f"; {len(failed):,} of their batches failed" if failed else "")
    click.echo(f"{summary}; there is no job, and nothing was written", err=True)
    return FAILED if failed else DONE


def _show_batch(batch: Previewed) -> None:
    items, results = batch.items or [], batch.results or []
    paired = len(items) == len(results)
    for offset, item in enumerate(items):
        click.echo(f"item {batch.start + offset}: {_line(item)}")
        if paired:
            click.echo(f"  -> {_line(results[offset])}")
    if not paired:
        for result in results:
            click.echo(f"  -> {_line(result)}")
    if batch.error is not None:
        at = f"item {batch.item}" if batch.item is not None else named(batch.start, batch.end)
        click.echo(f"{at}, {batch.stage}: {inert(batch.traceback or batch.error).rstrip()}", err=True)


def _line(value: object) -> str:
    return inert(json.dumps(_plain(value, short=True), ensure_ascii=False))


def _record(batch: Previewed) -> TriedBatch:
    return TriedBatch(
        start=batch.start,
        end=batch.end,
        items=None if batch.items is None else [_plain(item) for item in batch.items],
        results=None if batch.results is None else [_plain(result) for result in batch.results],
        stage=batch.stage,
        item=batch.item,
        error=batch.error,
        traceback=batch.traceback,
    )


def _plain(value: Any, *, short: bool = False) -> Any:
    """The value as JSON; what JSON does not have by its repr."""
    if isinstance(value, dict):
        return {str(key): _plain(inner, short=short) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        shown = value[:LIST_MAX] if short else value
        rest = [f"... {len(value) - LIST_MAX:,} more"] if len(shown) < len(value) else []
        return [_plain(inner, short=short) for inner in shown] + rest
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and value - value == 0:  # neither NaN nor infinite
        return value
    text = value if isinstance(value, str) else repr(value)
    if short and len(text) > TEXT_MAX:
        return f"{text[:TEXT_MAX]}... {len(text) - TEXT_MAX:,} more characters"
    return text
