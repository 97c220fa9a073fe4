"""Users' scripts, run as users run them: a file in a folder, by a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TIMEOUT_S = 60.0


def write(folder: Path, name: str, text: str) -> Path:
    """A file with this text, dedented."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def run(script: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd or script.parent,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def run_well(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script that must succeed."""
    ended = run(script, *arguments, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `skybatch` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "skybatch.cli", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
