"""One job under attack: its engine and workers are killed and stopped at random, until it is done."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from skybatch.engine.folder import JobFolder
from skybatch.engine.fsck import fsck
from tests.tools.bench import Bench
from tests.tools.invariants import Snapshot, Span, uncommitted
from tests.tools.processes import belonging_to

SILENT_S = 60.0
"""A job that comes no further for so long hangs."""
WORKERS_KILLED = re.compile("the worker was killed by SIGKILL|the worker's parent was killed|the worker died")
"""What an engine says that gives up, resumably, since several workers in a row were killed before anything was done."""
PHASE_OF = {
    "planning": "planning",
    "running": "mapping",
    "reducing": "reduce",
    "publishing": "publish",
    "published": "cleanup",
    "cleaned": "the end",
}


class Violation(Exception):
    """A promise was broken."""


@dataclass(kw_only=True)
class Weapons:
    """What is to be done to jobs, each so often; None: as often as it comes."""

    engine_kills: int | None = None
    worker_kills: int | None = None
    stops: bool = True  # SIGSTOP, and SIGCONT a moment later, of anything
    life_s: float = 1.2  # an engine lives at most so long


@dataclass(kw_only=True)
class Tally:
    """What jobs survived."""

    engine_kills: Counter[str] = field(default_factory=Counter)  # by phase
    worker_kills: int = 0
    stops: int = 0
    pauses: int = 0  # storage was away for too long
    jobs: int = 0
    ranges: int = 0
    again: int = 0  # ranges run once more
    at_risk: int = 0  # ranges granted and not committed, summed over the kills

    def add(self, other: Tally) -> None:
        """Count another's too."""
        self.engine_kills.update(other.engine_kills)
        for name in ("worker_kills", "stops", "pauses", "jobs", "ranges", "again", "at_risk"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Attack:
    """Runs a bench's job to its end under fire. `env` is what its processes get beside the bench's own."""

    def __init__(self, bench: Bench, seed: int, weapons: Weapons, env: dict[str, str] | None = None) -> None:
        self.bench, self.luck, self.weapons, self.env = bench, random.Random(seed), weapons, env or {}
        self.tally = Tally(jobs=1)
        self.at_risk: Counter[Span] = Counter()

    def run(self) -> Tally:
        """Until the job is done. Raises Violation."""
        while not self._one_engine():
            pass
        self._check()
        return self.tally

    def _one_engine(self) -> bool:
        """Start an engine and attack it; whether it came to the end of the job."""
        engine = self._launch()
        until = time.monotonic() + self.luck.uniform(0.0, self.weapons.life_s)
        kills = self.weapons.engine_kills
        may_kill = kills is None or self.tally.engine_kills.total() < kills
        deadline = time.monotonic() + SILENT_S
        while engine.poll() is None and (not may_kill or time.monotonic() < until):
            self._harass(engine)
            time.sleep(self.luck.uniform(0.0, 0.05))
            if time.monotonic() > deadline:
                raise Violation(self._hung(engine))
        if engine.poll() is None:
            engine.kill()
        out, err = engine.communicate()
        self.bench.wait_for_no_process()
        if not (self.bench.home / "jobs").exists():
            return False  # killed before there was a job
        if engine.returncode == -signal.SIGKILL:
            self._count_kill()
            return False
        if engine.returncode == 75 or (engine.returncode == 1 and WORKERS_KILLED.search(err)):
            self.tally.pauses += 1
            return False
        if engine.returncode != 0:
            raise Violation(f"exit code {engine.returncode}\n{out}\n{err}")
        return True

    def _launch(self) -> subprocess.Popen[str]:
        """A new engine, for a new job until there is one."""
        if not any(self.bench.home.glob("jobs/*/spec.json")):
            return self.bench.start(env=self.env)
        return self.bench.start_resume(env=self.env)

    def _count_kill(self) -> None:
        if any(self.bench.home.glob("jobs/*/spec.json")):
            found = self._look()
            self.tally.engine_kills[PHASE_OF.get(found.state, found.state)] += 1
            self._risk(found)

    def _look(self) -> Snapshot:
        return self.bench.look()

    def _risk(self, found: Snapshot) -> None:
        spans = uncommitted(found)
        self.at_risk.update(spans)
        self.tally.at_risk += len(spans)

    def _harass(self, engine: subprocess.Popen[str]) -> None:
        """Kill or stop something, or nothing."""
        weapons = self.weapons
        others = [pid for pid in belonging_to(self.bench.home) if pid != engine.pid]
        chance = self.luck.random()
        wanted = weapons.worker_kills
        if chance < 0.06 and others and (wanted is None or self.tally.worker_kills < wanted):
            self._kill_worker(self.luck.choice(others))
        elif chance < 0.09 and weapons.stops:
            self._stop(self.luck.choice([engine.pid, *others]))

    def _kill_worker(self, pid: int) -> None:
        """A worker or its parent."""
        if any(self.bench.home.glob("jobs/*/spec.json")):
            before = self._look()
            if _signal(pid, signal.SIGKILL):
                self.tally.worker_kills += 1
                self._risk(before)
                self._risk(self._look())

    def _stop(self, pid: int) -> None:
        if _signal(pid, signal.SIGSTOP):
            time.sleep(self.luck.uniform(0.0, 0.3))
            _signal(pid, signal.SIGCONT)
            self.tally.stops += 1

    def _check(self) -> None:
        """The job is done; see what it has kept of its promises."""
        times = Counter(self.bench.ranges_taken_up())
        self.tally.ranges = len(times)
        self.tally.again = times.total() - len(times)
        report = fsck(JobFolder(self.bench.job_folder), deep=True)
        if report.problems:
            raise Violation(f"fsck: {report.problems}")
        too_often = {span: count for span, count in times.items() if count > 1 + self.at_risk[span]}
        if too_often:
            raise Violation(f"run again without having been at risk: {too_often}")

    def _hung(self, engine: subprocess.Popen[str]) -> str:
        told = [f"nothing happened for {SILENT_S} s in {self.bench.folder}"]
        for pid in [engine.pid, *belonging_to(self.bench.home)]:
            shown = subprocess.run(["py-spy", "dump", "--pid", str(pid)], capture_output=True, text=True, check=False)
            told.append(f"{pid}:\n{shown.stdout}{shown.stderr}")
        return "\n".join(told)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def spans_of(items: int, batch_size: int) -> set[Span]:
    """All ranges of a job that nothing was split in."""
    return {Span(start, min(start + batch_size, items) - 1) for start in range(0, items, batch_size)}


def same(outputs: dict[str, bytes], undisturbed: dict[str, bytes], folder: Path) -> None:
    """Raise Violation unless all files are equal, byte for byte."""
    if outputs != undisturbed:
        differing = [name for name in outputs.keys() | undisturbed.keys() if outputs.get(name) != undisturbed.get(name)]
        raise Violation(f"not the bytes of an undisturbed run: {sorted(differing)} in {folder}")
