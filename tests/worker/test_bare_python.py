"""What travels to hosts needs Python 3.9 and the standard library, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import skybatch

ROOT = Path(skybatch.__file__).parent
TRAVELLING = [
    *sorted((ROOT / "worker").glob("*.py")),
    *(ROOT / name for name in ("__init__.py", "errors.py", "failpoints.py", "io_formats.py", "registry.py")),
    ROOT / "formats" / "base.py",
    ROOT / "formats" / "masking.py",
]
ENGINES_OWN = {"storing.py", "relay.py", "travelling.py", "reducing.py"}
"""Of the worker's room, what runs with formats beside it."""


def test_the_core_is_written_for_python_3_9() -> None:
    files = [str(path) for path in TRAVELLING if path.name not in ENGINES_OWN]
    vermin = str(Path(sys.executable).with_name("vermin"))
    words = [vermin, "--no-tips", "-t=3.9-", "--eval-annotations", "--violations", *files]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("name", skybatch.__all__)
def test_every_name_can_be_imported_where_nothing_is_installed(name: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT.parent)!r}); from skybatch.worker import stand_ins\n"
        f"stand_ins.allowed = True\nfrom skybatch import {name}"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_who_uses_what_is_not_there_is_told_why() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT.parent)!r}); from skybatch.worker import stand_ins\n"
        "stand_ins.allowed = True\nimport skybatch\n"
        "class Mine(skybatch.JsonWriter):\n    pass\n"
        "for use in (lambda: Mine('x'), lambda: skybatch.resume('x'), lambda: skybatch.Dataset(None)):\n"
        "    try:\n        use()\n    except skybatch.SkybatchError as error:\n        print(error)\n"
    )
    told = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.count("cannot be used in this worker") == 2, told  # writers need nothing until they write
