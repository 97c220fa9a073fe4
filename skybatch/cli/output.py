"""Writing to a terminal or a pipe: JSON, tables, and text of strangers made inert."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
CONTROLS |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, as docs/cli.md describes it.")


def emit_json(value: Any) -> None:
    """Write a record, or a list of records, as indented JSON."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Records as dicts, lists of records as lists of dicts."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def inert(text: str) -> str:
    """Text that cannot command a terminal: control characters are written as escapes; newlines stay."""
    return text.encode("utf-8", "backslashreplace").decode().translate(CONTROLS)


def cell(value: object) -> str:
    """One line of inert text; `-` for nothing."""
    if value is None or value == "":
        return "-"
    return inert(f"{value:,}" if isinstance(value, int) else str(value)).replace("\n", " ").replace("\t", " ")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write columns as wide as they need; nothing is cut."""
    lines = [list(headings), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def named(start: int, end: int) -> str:
    """`item 4`, `items 4-7`."""
    return f"item {start}" if start == end else f"items {start}-{end}"


def moment(seconds: float | None) -> str:
    """Local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds is not None else "-"


def indented(text: str) -> str:
    """Inert text, four spaces in."""
    return "\n".join(f"    {line}" for line in inert(text.rstrip("\n")).split("\n"))
