"""Following a page of the docs: its shell blocks, run one after the other in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def follow(blocks: list[str], folder: Path) -> str:
    """Run shell blocks in a folder where the commands are those of this Python and `hello` is as if installed."""
    commands = folder / "bin"
    commands.mkdir()
    for name, arguments in (("python", ""), ("skybatch", "-m skybatch.cli")):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        command.chmod(0o755)
    installed = folder / "hello" / "hello-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[skybatch]\nhello = hello\n")
    path = os.pathsep.join([str(ROOT), str(folder / "hello")])
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(blocks)],
        cwd=folder,
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
