"""Several engines that want one job, and engines that run apart from whoever asked for them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.tools.bench import TIMEOUT_S, Bench, end_of
from tests.tools.processes import wait_until

LOCKED = 5
AT_ONCE_S = 1.0  # promised

# Two resumes that are let go together once everything is imported, so that they meet at the lock
RACER = """
import os, sys, time
import skybatch.engine.job, skybatch.errors, skybatch.engine.run
import skybatch
print("ready", flush=True)
sys.stdin.readline()
begun = time.monotonic()
try:
    skybatch.resume(sys.argv[1])
except skybatch.SkybatchError as error:
    print(error, file=sys.stderr)
    print(time.monotonic() - begun)
    os._exit(error.exit_code)
"""


def race(bench: Bench) -> tuple[int, int, float]:
    """Two resumes at once; the exit codes of winner and loser, and the seconds the loser took.

    The winner is killed once the loser has ended, so that the job is there for the next race.
    """
    racers = [bench.spawn(["-c", RACER, bench.job_id], stdin=subprocess.PIPE) for _ in range(2)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    wait_until(lambda: any(racer.poll() is not None for racer in racers), TIMEOUT_S, "one racer gives up")
    loser, winner = sorted(racers, key=lambda racer: racer.returncode is None)
    still_running = winner.poll() is None
    told = end_of(loser)
    assert still_running, told
    winner.kill()
    end_of(winner)
    bench.wait_for_no_process()
    return winner.returncode, loser.returncode, float(told.out)


def races(bench: Bench, count: int) -> None:
    bench.crash(bench.start(failpoint="after-commit:2"))
    for _ in range(count):
        epoch = bench.look().epoch
        winner, loser, seconds = race(bench)
        assert (winner, loser) == (-signal.SIGKILL, LOCKED)
        assert seconds < AT_ONCE_S
        assert bench.look().epoch <= epoch + 1  # the loser has changed nothing
        bench.check(done=False)
    bench.succeed(bench.start_resume())
    bench.check(done=True)


def test_of_two_resumes_at_once_one_goes_on(tmp_path: Path) -> None:
    races(Bench(tmp_path, items=32, mapping_s=0.5), 3)


@pytest.mark.full
def test_of_two_resumes_at_once_one_goes_on_every_time(tmp_path: Path) -> None:
    races(Bench(tmp_path, items=32, mapping_s=0.5), 20)


def test_the_command_says_that_another_engine_is_at_work(tmp_path: Path) -> None:
    bench = Bench(tmp_path, items=60, mapping_s=0.1)
    engine = bench.start()
    bench.wait_for_note("ranges.log")
    rival = end_of(bench.start_resume())
    assert rival.code == LOCKED
    assert f"process {engine.pid}" in rival.err
    assert "Traceback" not in rival.err
    bench.succeed(engine)
    bench.check(done=True)
    assert bench.look().epoch == 1


# Engines apart from the script

WAITER = """
import sys
import skybatch
from skybatch.engine.job import find_job
job = find_job(sys.argv[1])
print("waiting" if job.engine_running else "idle", flush=True)
print(job.wait(60).state)
"""


def test_a_detached_engine_outlives_the_script_and_all_of_its_process_group(tmp_path: Path) -> None:
    bench = Bench(tmp_path, items=60, stream=False, mapping_s=0.1, linger=True)
    script = bench.start(start_new_session=True)
    assert script.stdout is not None
    job_id = script.stdout.readline().strip()
    assert job_id == bench.job_id
    waiter = bench.spawn(["-c", WAITER, job_id])
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == "waiting\n"

    os.killpg(script.pid, signal.SIGHUP)
    assert end_of(script).code == -signal.SIGHUP

    ended = end_of(waiter)
    assert (ended.code, ended.out) == (0, "cleaned\n"), ended
    bench.wait_for_no_process()
    bench.check(done=True)
    assert bench.look().epoch == 1  # the script has run nothing
