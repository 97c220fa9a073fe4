"""Signals, the terminal gone, output unread: the engine stops in a resumable state and says how to go on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tools.bench import TIMEOUT_S, Bench, Ended, end_of
from tests.tools.processes import belonging_to

ORPHANS_GONE_S = 10.0  # promised
ITEMS = 60
LONG = 100.0  # seconds that nobody is to wait for
ASKED_TO_STOP = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SAMPLED = [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.full) for number in (signal.SIGINT, signal.SIGHUP))]

EXEC = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"

# A session leader with standard input as its terminal, as a shell would start it
WITH_TERMINAL = f"import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {EXEC}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the job puts out when nothing happens to it."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), items=ITEMS)
    bench.succeed(bench.start())
    return bench.outputs()


def assert_stopped(bench: Bench, ended: Ended, number: int, state: str = "paused") -> None:
    """The job stands in a resumable state, its workers are gone, and the way on was told."""
    assert ended.code == 128 + number, ended
    assert f"skybatch resume {bench.job_id}" in ended.err
    assert "Traceback" not in ended.err
    bench.wait_for_no_process(ORPHANS_GONE_S)
    assert bench.look().state == state
    bench.check(done=False)


def assert_resumes(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    bench.succeed(bench.start_resume())
    bench.check(done=True)
    assert bench.outputs() == undisturbed


@pytest.mark.parametrize("number", SAMPLED)
def test_the_first_signal_lets_batches_in_hand_finish(
    number: signal.Signals, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    bench = Bench(tmp_path, items=ITEMS, mapping_s=0.15)
    engine = bench.start()
    bench.wait_for_note("ranges.log", count=3)
    engine.send_signal(number)
    assert_stopped(bench, end_of(engine), number)
    begun = bench.ranges_taken_up()
    assert sum(end - start + 1 for start, end in bench.look().won) == 4 * len(begun) < ITEMS
    assert_resumes(bench, undisturbed)
    assert set(Counter(bench.ranges_taken_up()).values()) == {1}  # nothing was done twice


def test_the_second_signal_kills_the_workers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mapping_s=LONG)
    engine = bench.start(stderr=subprocess.PIPE)
    bench.wait_for_note("ranges.log", count=2)
    engine.send_signal(signal.SIGINT)
    told = read_until(engine, "once more")
    assert f"skybatch resume {bench.job_id}" in told
    assert engine.poll() is None
    engine.send_signal(signal.SIGINT)
    ended = end_of(engine)
    assert_stopped(bench, ended, signal.SIGINT)


def test_the_third_signal_leaves_at_once(tmp_path: Path) -> None:
    """The engine is stopped so that all three find it at the same place; which of them comes last is the kernel's."""
    bench = Bench(tmp_path, mapping_s=LONG)
    engine = bench.start()
    bench.wait_for_note("ranges.log", count=2)
    for number in (signal.SIGSTOP, *ASKED_TO_STOP, signal.SIGCONT):
        engine.send_signal(number)
    ended = end_of(engine)
    last = next((number for number in ASKED_TO_STOP if ended.code == 128 + number), signal.SIGTERM)
    assert_stopped(bench, ended, last, "running")


@pytest.mark.parametrize("number", SAMPLED)
@pytest.mark.parametrize(
    ("phase", "state"), [("planning", "paused"), ("reducing", "paused"), ("cleaning", "published")]
)
def test_other_phases_are_left_at_the_first_signal(
    phase: str, state: str, number: signal.Signals, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    bench = Bench(tmp_path, items=ITEMS, reader="counter", planning_s=0.5, finishing_s=0.5)
    engine = bench.start()
    bench.wait_for_note("phases.log", f"{phase}\n")
    published = bench.inodes()
    engine.send_signal(number)
    assert_stopped(bench, end_of(engine), number, state)
    assert bench.inodes() == published
    assert_resumes(bench, undisturbed)
    assert published.items() <= bench.inodes().items()


def test_a_terminal_that_goes_away_ends_it_resumably(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = Bench(tmp_path, items=ITEMS, mapping_s=0.15)
    bench.crash(bench.start(failpoint="planned"))
    ours, theirs = pty.openpty()
    engine = on_terminal(bench, theirs, bench.resuming)
    bench.wait_for_note("ranges.log", count=3)
    os.close(ours)  # the kernel sends SIGHUP, and writing to the terminal fails from now on
    assert engine.wait(TIMEOUT_S) == 128 + signal.SIGHUP
    bench.wait_for_no_process(ORPHANS_GONE_S)
    assert bench.look().state == "paused"
    assert_resumes(bench, undisturbed)


def test_a_key_pressed_on_the_terminal_reaches_the_engine_alone(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """Workers have sessions of their own, so that Ctrl-C does not break into their batches."""
    bench = Bench(tmp_path, items=ITEMS, mapping_s=0.15)
    ours, theirs = pty.openpty()
    engine = on_terminal(bench, theirs, bench.script)
    bench.wait_for_note("ranges.log", count=3)
    os.write(ours, b"\x03")
    assert engine.wait(TIMEOUT_S) == 128 + signal.SIGINT
    assert f"skybatch resume {bench.job_id}" in os.read(ours, 1 << 16).decode()
    os.close(ours)
    bench.wait_for_no_process(ORPHANS_GONE_S)
    assert sum(end - start + 1 for start, end in bench.look().won) == 4 * len(bench.ranges_taken_up())
    assert_resumes(bench, undisturbed)
    assert set(Counter(bench.ranges_taken_up()).values()) == {1}


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = Bench(tmp_path, items=ITEMS, mapping_s=0.05)
    ignoring = f"import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); {EXEC}"
    engine = bench.spawn(["-c", ignoring, *bench.script])
    bench.wait_for_note("ranges.log", count=3)
    engine.send_signal(signal.SIGHUP)
    bench.succeed(engine)
    assert bench.outputs() == undisturbed


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both", "neither is open at all"])
def test_nobody_reads_what_it_says(closed: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """As behind `| head`, or with descriptors closed: the job is done all the same, and says so by its exit code."""
    bench = Bench(tmp_path, items=ITEMS)
    bench.crash(bench.start(failpoint="after-commit:2"))
    if closed == "neither is open at all":
        closing = f"import os, sys; os.closerange(0, 3); {EXEC}"
        engine = bench.spawn(["-c", closing, *bench.resuming])
    else:
        unread, written = os.pipe()
        os.close(unread)
        streams: dict[str, Any] = dict.fromkeys(("stdout", "stderr") if closed == "both" else (closed,), written)
        engine = bench.start_resume(**streams)
        os.close(written)
    assert end_of(engine).code == 0
    bench.wait_for_no_process()
    bench.check(done=True)
    assert bench.outputs() == undisturbed


def test_an_unread_engine_is_interrupted_as_any_other(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = Bench(tmp_path, items=ITEMS, mapping_s=0.15)
    bench.crash(bench.start(failpoint="planned"))
    unread, written = os.pipe()
    os.close(unread)
    engine = bench.start_resume(stdout=written, stderr=written)
    os.close(written)
    bench.wait_for_note("ranges.log", count=3)
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    bench.wait_for_no_process(ORPHANS_GONE_S)
    assert bench.look().state == "paused"
    assert_resumes(bench, undisturbed)


def test_workers_and_their_offspring_go_with_a_killed_engine(tmp_path: Path) -> None:
    """Even while C code holds the interpreter's lock, and when children have sessions of their own."""
    bench = Bench(tmp_path, mapper="seize")
    engine = bench.start()
    bench.wait_for_note("ranges.log", "seized\n", count=2)
    bench.wait_for_note("ranges.log", "grandchild\n", count=4)
    assert len(belonging_to(bench.home)) >= 1 + 2 * (2 + 4)
    engine.kill()
    bench.crash(engine)


def on_terminal(bench: Bench, terminal: int, arguments: list[str]) -> subprocess.Popen[str]:
    """Python as a shell on a terminal starts it; takes the descriptor over."""
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    engine = bench.spawn(["-c", WITH_TERMINAL, *arguments], start_new_session=True, **streams)
    os.close(terminal)
    return engine


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a process says on stderr, up to the line that has `text`."""
    assert process.stderr is not None
    told = ""
    while text not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    return told
