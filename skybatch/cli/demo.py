"""`skybatch demo`."""

from __future__ import annotations

import click


@click.command()
def demo() -> int:
    """Map the standard library's source files, kill the engine half-way, resume, and compare the bytes."""
    from skybatch import demo as demonstration

    return demonstration.main() or 0
