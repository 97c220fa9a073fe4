"""Python environments beside the project's, for what is measured against it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def python(environment: Path, requirements: Sequence[str], *, install: bool) -> Path | None:
    """A Python that has what is required; None where it has not, and nothing is to be installed."""
    binary, note = environment / "bin" / "python", environment / "requirements.txt"
    wanted = "\n".join(requirements)
    if not (note.exists() and note.read_text() == wanted):
        if not install:
            return None
        print(f"installing {', '.join(requirements)} into {environment}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        pip = [str(binary), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)
        note.write_text(wanted)
    return binary
