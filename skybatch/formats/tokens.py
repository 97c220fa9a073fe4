"""How local files that a job has put in place are recognised: by inode, size and modification time.

A link and a rename keep all three. What was put by hand is noted in the job's temporary folder.
"""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skybatch.formats import batchfiles, storage

Token = dict[str, Any]
NOTE = "by-hand.json"


def token_of(path: str) -> Token | None:
    """How the local file at `path` is recognised; None when there is none."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return {"inode": stat.st_ino, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def is_same(one: str, other: str) -> bool:
    """Whether two local files have the same bytes: then it does not matter whose they are."""
    return os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)


def noted(output_path: str, job_id: str) -> list[Token]:
    """The local files that were put in an output's place by hand."""
    try:
        tokens: list[Token] = json.loads(Path(batchfiles.folder(output_path, job_id), NOTE).read_bytes())
        return tokens
    except FileNotFoundError:
        return []


def note(output_path: str, job_id: str, files: Iterable[str]) -> None:
    """Note local files that are about to be put in place by hand, beside those that were before."""
    tokens = [*noted(output_path, job_id), *filter(None, map(token_of, files))]
    storage.write_bytes(f"{batchfiles.folder(output_path, job_id)}/{NOTE}", json.dumps(tokens).encode())
