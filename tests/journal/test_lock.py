"""One engine at a time; a forked child holds nothing of its parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from skybatch.errors import JobLocked, JournalError
from skybatch.journal import JobLock, Reader, forking, holder, is_held
from tests.journal.support import new_journal, won

HOLD = """
import sys
from pathlib import Path
from skybatch.journal import JobLock
JobLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_engine_is_told_at_once_who_has_the_job(tmp_path: Path) -> None:
    with JobLock(tmp_path), pytest.raises(JobLocked, match=f"process {os.getpid()}") as caught:
        JobLock(tmp_path).acquire()
    assert caught.value.exit_code == 5


def test_a_released_lock_can_be_taken_and_its_file_stays(tmp_path: Path) -> None:
    lock = JobLock(tmp_path)
    assert not is_held(tmp_path)
    with lock:
        assert (lock.held, is_held(tmp_path), holder(tmp_path)) == (True, True, os.getpid())
        inode = (tmp_path / "lock").stat().st_ino
    lock.release()
    assert (lock.held, is_held(tmp_path), holder(tmp_path)) == (False, False, None)
    with lock:
        assert (tmp_path / "lock").stat().st_ino == inode


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_held(tmp_path)
        with pytest.raises(JobLocked, match=f"process {process.pid}"):
            JobLock(tmp_path).acquire()
        process.kill()
        process.wait()
    with JobLock(tmp_path):
        pass


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        JobLock(tmp_path).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_forked_child_holds_neither_lock_nor_database(tmp_path: Path) -> None:
    """The child outlives the parent's release, tries everything, and exits through the interpreter."""
    script = f"""
import os, sys
from pathlib import Path
from tests.journal.support import new_journal, won
from skybatch.errors import JournalError
from skybatch.journal import JobLock, Journal, Reader, is_held

folder = Path({str(tmp_path)!r})
lock = JobLock(folder)
lock.acquire()
journal = new_journal(folder / "journal.db")
reader = Reader(folder / "journal.db")
journal.commit(won(0, 9))
go_read, go_write = os.pipe()
done_read, done_write = os.pipe()
if os.fork() == 0:
    os.close(go_write)
    assert not lock.held
    for question in (journal, reader):
        try:
            question.job()
        except JournalError:
            pass
        else:
            os._exit(1)
    lock.release()
    journal.close()
    os.write(done_write, b"child has let go")
    os.read(go_read, 1)  # until the parent has gone on without us
    del journal, reader, lock
    sys.exit(0)
os.close(go_read)
assert os.read(done_read, 100) == b"child has let go"
assert lock.held and is_held(folder)
lock.release()
assert not is_held(folder)  # though the child still lives
lock.acquire()
journal.commit(won(10, 19))
os.close(go_write)
_, status = os.wait()
assert status == 0, status
assert (folder / "journal.db-wal").exists()  # the child did not clean up under us
journal.commit(won(20, 29))
assert reader.counts().won_items == 30
journal.close()
reader.close()
assert sum(1 for _ in Journal.open(folder / "journal.db").winners()) == 3
print("fine")
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "fine\n", "")


def test_what_is_never_freed_outlives_its_last_name() -> None:
    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    forking.never_free(thing)
    del thing
    assert seen() is not None


def test_a_closed_reader_is_nothing_to_a_fork(tmp_path: Path) -> None:
    with new_journal(tmp_path / "journal.db") as journal:
        journal.commit(won(0, 9))
    reader = Reader(tmp_path / "journal.db")
    reader.close()
    pid = os.fork()
    if pid == 0:
        try:
            reader.job()
        except JournalError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
