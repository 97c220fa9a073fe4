"""Workers on this machine: each a process started by exec, behind a small parent that sees to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from skybatch import failpoints
from skybatch.executors.base import Executor, ExecutorOptions, Slot, WorkerChannel, numbered
from skybatch.formats.masking import masked
from skybatch.worker.frames import Decoder, Frame, FrameError, encode, write_all
from skybatch.worker.shapes import require_sense

READ_SIZE = 1 << 16
PARENT = Path(__file__).resolve().parents[1] / "worker" / "parent.py"


class ProcessChannel(WorkerChannel):
    """Frames over the stdin and stdout of a worker's parent."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path | None, activation: str | None = None) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._errors, self._activation = process, errors, activation
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()
        self._decoder = Decoder()
        self._worker_pid = 0

    def fileno(self) -> int:
        """The parent's stdout."""
        return self._from

    def send(self, frame: Frame) -> None:
        """Send one frame whole. Raises OSError when the worker is gone, or was let go."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:  # its number may be another file's by now
            raise BrokenPipeError("the worker was let go")
        write_all(self._to, encode(frame))

    def receive(self) -> list[Frame] | None:
        """Frames that have arrived; call when `fileno` is readable."""
        data = os.read(self._from, READ_SIZE)
        if not data:
            return None
        try:
            frames = require_sense(self._decoder.feed(data))
        except FrameError as error:
            self.close()  # its parent sees to everything that it started
            return [{"op": "lost", "reason": "exit", "message": f"its worker does not make sense: {error}", "held": []}]
        for frame in frames:
            if frame["op"] == "started":
                self._worker_pid = frame["pid"]
        return frames

    def kill(self) -> None:
        """Kill the worker, stopped or not, and have its parent end what that had started; after `close`, that too."""
        assert self._process.stdin is not None
        if self._worker_pid:
            _kill_group(self._worker_pid)
        if self._process.stdin.closed:
            self._process.kill()
        else:
            self._process.send_signal(signal.SIGCONT)
            self.close()

    def close(self) -> None:
        """End of file for the parent, which ends the worker and everything it started."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass

    def wait(self, timeout_s: float) -> bool:
        """Wait for the parent, the last to go."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        assert self._process.stdout is not None
        self._process.stdout.close()
        return True

    def last_words(self) -> str:
        """The end of what activation or the parent printed on stderr, secrets masked."""
        try:
            words = masked(self._errors.read_text(errors="replace")[-2000:].strip()) if self._errors else ""
        except OSError:
            words = ""
        if self._activation and not self._worker_pid:
            return f"after activate_env {self._activation!r}: {words or 'no Python ran'}"
        return words


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class LocalExecutor(Executor):
    """`workers` processes on this machine, by default one per core that this process may use."""

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        self._environment = failpoints.for_workers({**os.environ, **options.env})

    def slots(self) -> list[Slot]:
        """The number asked for, or one per core."""
        return numbered(self.options.workers or len(os.sched_getaffinity(0)))

    def environment(self, slot: Slot) -> dict[str, str]:
        """The environment of the slot's worker."""
        return self._environment

    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        """Start a worker, under the environment of `activate_env` if there is one."""
        errors = Path(self.options.log_folder, f"worker-{slot.name}.err") if self.options.log_folder else None
        with errors.open("ab") if errors else open(os.devnull, "wb") as stderr:
            process = subprocess.Popen(
                command(self.options.activate_env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self.environment(slot),
                start_new_session=True,
                bufsize=0,
            )
        channel = ProcessChannel(process, errors, self.options.activate_env)
        try:
            channel.send(config)
        except BrokenPipeError:
            pass  # its end of file will be seen, with its last words
        return channel


def command(activate_env: str | None) -> list[str]:
    """The command line that starts a worker's parent; no user data in it but the activation line."""
    script = str(PARENT)
    if not activate_env:
        return [sys.executable, "-I", "-S", script]
    return ["bash", "-c", f'{{ {activate_env}\n}} >&2 </dev/null && exec python -I -S "$0"', script]
