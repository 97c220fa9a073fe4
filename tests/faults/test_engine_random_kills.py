"""One job, two hundred SIGKILLs at random moments of every phase: the output is that of an undisturbed run.

What was run again is counted: a range may begin once more only after a kill that found it granted and not
committed.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tools.bench import TIMEOUT_S, Bench
from tests.tools.invariants import Span, uncommitted
from tests.tools.processes import wait_until

# How many kills each phase gets, and within how many seconds each comes after the engine has taken the job over.
# It comes sooner than the phase can be over. Publishing, which is over in a millisecond and comes once for each of many
# outputs, is held up between its two steps in the journal: half of its kills come before the link, half after it.
KILLS = 200
PLAN = {
    "planning": (25, 0.2),
    "mapping": (70, 0.4),
    "reduce": (25, 0.2),
    "publish": (25, 0.2),
    "cleanup": (KILLS, 0.2),
}
JUST_BEGUN_S = 0.002
PUBLISHING_S = 0.25
AT_LEAST_EACH = 10
PHASE_OF = {
    "planning": "planning",
    "running": "mapping",
    "reducing": "reduce",
    "publishing": "publish",
    "published": "cleanup",
    "cleaned": "end",
}
OPTIONS: dict[str, Any] = {
    "items": 4400,
    "batch_size": 2,
    "reader": "counter",
    "outputs": ["yaml", "json", *(f"more{number}" for number in range(16))],
    "mapping_s": 0.02,
    "planning_s": 0.25,
    "finishing_s": 0.25,
}


class Campaign:
    """The kills of one job, and what they put at risk."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.luck = bench, random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.at_risk: Counter[Span] = Counter()

    def phase(self) -> str:
        return PHASE_OF[self.bench.look().state]

    def kill_once(self) -> None:
        """Run the engine for a random while and kill it."""
        engine = self.launch()
        phase = self.phase()
        quota, within_s = PLAN[phase]
        if self.kills[phase] >= quota:  # enough of this one: on to the next
            wait_until(lambda: self.phase() != phase, TIMEOUT_S, f"{phase} is over")
            within_s = JUST_BEGUN_S
        try:
            engine.wait(self.luck.uniform(0.0, within_s))
        except subprocess.TimeoutExpired:
            engine.kill()
        engine.communicate()
        assert engine.returncode == -signal.SIGKILL
        self.bench.wait_for_no_process()
        self.note_kill()

    def launch(self) -> subprocess.Popen[str]:
        """An engine that has the job now."""
        if not (self.bench.home / "jobs").exists():
            engine = self.bench.start(env=self.held_up())
            wait_until(lambda: any(self.bench.home.glob("jobs/*/spec.json")), TIMEOUT_S, "a job")
        else:
            epoch = self.bench.look().epoch
            engine = self.bench.spawn(["-c", RESUME, self.bench.job_id], env=self.held_up())
            wait_until(lambda: self.bench.look().epoch > epoch, TIMEOUT_S, "a takeover")
        return engine

    def held_up(self) -> dict[str, str]:
        place = self.luck.choice(["before-publish", "after-publish"])
        return {"SKYBATCH_LINGER": f"{place}:{PUBLISHING_S}"}

    def note_kill(self) -> None:
        found = self.bench.look()
        self.kills[PHASE_OF[found.state]] += 1
        self.at_risk.update(uncommitted(found))
        if sum(self.kills.values()) % 10 == 0:
            self.bench.check(done=False)


RESUME = "import sys, skybatch; skybatch.resume(sys.argv[1])"  # the command without its imports


@pytest.mark.full
def test_two_hundred_kills_at_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undisturbed = Bench(tmp_path / "undisturbed", **{**OPTIONS, "mapping_s": 0.0})
    undisturbed.succeed(undisturbed.start())
    campaign = Campaign(Bench(tmp_path / "killed", **OPTIONS), seed=20)
    bench = campaign.bench

    begun = time.monotonic()
    while sum(campaign.kills.values()) < KILLS:
        campaign.kill_once()
    seconds = time.monotonic() - begun
    published = bench.inodes()
    bench.succeed(bench.start_resume())

    bench.check(done=True)
    assert bench.outputs() == undisturbed.outputs()
    assert bench.inodes() == published
    times = Counter(bench.ranges_taken_up())
    again = sum(times.values()) - len(times)
    with capsys.disabled():
        print(f"\n{KILLS} kills in {seconds:.0f} s; {again} ranges run again, {campaign.at_risk.total()} at risk")
        for phase in PLAN:
            print(f"  {phase:10} {campaign.kills[phase]:4} {'#' * campaign.kills[phase]}")
    assert all(campaign.kills[phase] >= AT_LEAST_EACH for phase in PLAN)
    assert all(count <= 1 + campaign.at_risk[span] for span, count in times.items())
    assert set(times) == {Span(start, start + 1) for start in range(0, OPTIONS["items"], OPTIONS["batch_size"])}
