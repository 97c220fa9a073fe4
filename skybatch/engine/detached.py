"""A detached engine: a process of its own session that outlives the script that asked for it.

Run as `python -m skybatch.engine.detached JOB_FOLDER READY_FD`, with RunOptions and GoOn as JSON on stdin.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from skybatch.engine.folder import JobFolder
from skybatch.engine.resuming import GoOn, resume_engine
from skybatch.engine.run_options import RunOptions
from skybatch.errors import JobFailed, JobLocked, SkybatchError
from skybatch.journal.lock import is_held


def start(folder: JobFolder, options: RunOptions | None, how: GoOn) -> None:
    """Start a detached engine; return once it holds the job's lock and can be watched. Raises JobLocked, JobFailed."""
    if is_held(folder.path):
        raise JobLocked(f"job {folder.id}: another engine runs it; nothing was changed")
    read_end, write_end = os.pipe()
    log = os.open(folder.logs / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    package = Path(__file__).resolve().parents[2]
    search = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "skybatch.engine.detached", str(folder.path), str(write_end)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=[write_end],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
    )
    os.close(write_end)
    os.close(log)
    assert process.stdin is not None
    with process.stdin:
        asked = {"options": dataclasses.asdict(options) if options else None, "how": dataclasses.asdict(how)}
        process.stdin.write(json.dumps(asked).encode())
    with os.fdopen(read_end, "rb") as ready:
        if ready.read(1) != b"+":
            ended = process.wait()
            words = (folder.logs / "engine.log").read_text(errors="replace")[-2000:].strip()
            raise JobFailed(
                folder.id,
                f"the engine did not start: {words}",
                f"skybatch resume {folder.id}",
                exit_code=ended,
            )
    process.returncode = 0  # it is on its own from here; nobody waits for it


def main() -> int:
    """Be the engine; the exit code is the job's."""
    folder = JobFolder(Path(sys.argv[1]))
    asked = json.loads(sys.stdin.read())
    options = RunOptions(**asked["options"]) if asked["options"] else None
    ready = int(sys.argv[2])
    os.set_inheritable(ready, False)
    try:
        resume_engine(folder, options, None, lambda: _say_ready(ready), GoOn(**asked["how"]))
    except SkybatchError as error:
        print(f"skybatch: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _say_ready(fd: int) -> None:
    os.write(fd, b"+")
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
