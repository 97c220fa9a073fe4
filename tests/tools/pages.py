"""What the pages of executors show, to be read and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "docs" / "executors"
PAGES = {path.stem: path.read_text() for path in FOLDER.glob("*.md")}


def pool_files(name: str) -> list[str]:
    """The pool files of an executor's page."""
    return re.findall(r"```yaml\n(.*?)```", PAGES[name], re.DOTALL)


def shown_pool(name: str, number: int = 0, **instead: Any) -> dict[str, Any]:
    """One of them as a mapping, with other values for what differs from machine to machine."""
    return {**yaml.safe_load(pool_files(name)[number]), **instead}
