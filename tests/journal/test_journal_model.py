"""The journal against a small trusted model: a list with one entry per item."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from skybatch.errors import EpochLost, WinnerConflict
from skybatch.journal import Changes, Journal, Reader
from tests.journal.support import dead, grant, new_journal, ranges, retrying, won

LENGTH, BATCH = 37, 4
RANGES = (LENGTH + BATCH - 1) // BATCH
stretches = st.tuples(st.integers(0, RANGES - 1), st.integers(1, RANGES)).map(
    lambda pair: (pair[0] * BATCH, min(sum(pair) * BATCH, LENGTH) - 1)
)


class JournalMachine(RuleBasedStateMachine):
    """Stretches of whole ranges are put at random; the model says which are refused."""

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.db"
        self.journal = new_journal(self.path, length=LENGTH, batch_size=BATCH)
        self.states = ["pending"] * LENGTH
        self.grants: dict[int, tuple[int, int]] = {}
        self.serial = 0

    @rule(stretch=stretches, state=st.sampled_from(["won", "retrying", "dead"]))
    def put(self, stretch: tuple[int, int], state: str) -> None:
        start, end = stretch
        self.serial += 1
        changes = {
            "won": won(start, end, BATCH, nonce=str(self.serial)),
            "retrying": Changes(retrying=[retrying(start, end, BATCH)]),
            "dead": Changes(dead=[dead(start, end, BATCH)]),
        }[state]
        refusing = {"won", "dead"} if state == "won" else {"won"}
        if refusing & set(self.states[start : end + 1]):
            with pytest.raises(WinnerConflict):
                self.journal.commit(changes)
        else:
            self.journal.commit(changes)
            self.states[start : end + 1] = [state] * (end + 1 - start)

    @rule(stretch=stretches)
    def give(self, stretch: tuple[int, int]) -> None:
        start, end = stretch
        if any(start <= e and s <= end for s, e in self.grants.values()):
            return
        self.serial += 1
        self.journal.commit(Changes(grants=[grant(self.serial, start, end, BATCH)]))
        self.grants[self.serial] = stretch

    @rule()
    def end_grants(self) -> None:
        self.journal.commit(Changes(ended_grants=list(self.grants)))
        self.grants.clear()

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = Journal.open(self.path)

    @rule()
    def take_over(self) -> None:
        old, self.journal = self.journal, Journal.open(self.path)
        assert self.journal.take_over() == old.epoch + 1
        with pytest.raises(EpochLost):
            old.commit(Changes(dead=[dead(0, LENGTH - 1, BATCH)]))
        old.close()
        self.grants.clear()

    @invariant()
    def runs_are_the_models(self) -> None:
        states = ["pending"] * LENGTH
        last = -1
        with Reader(self.path) as reader:
            for run in reader.runs():
                assert run.start > last
                last = run.end
                states[run.start : run.end + 1] = [run.state] * (run.end + 1 - run.start)
            assert {g.id: (g.start, g.end) for g in reader.grants()} == self.grants
            assert reader.counts().won_items == self.states.count("won")
            assert reader.counts().dead_ranges == sum(
                self.states[i] == "dead" for i in range(0, LENGTH, BATCH)
            )
        assert states == self.states

    @invariant()
    def the_view_shows_every_range_once_in_order(self) -> None:
        granted = {i for start, end in self.grants.values() for i in range(start, end + 1)}
        expected = []
        for start in range(0, LENGTH, BATCH):
            state = self.states[start]
            if start in granted and state in ("pending", "retrying"):
                state = "granted"
            expected.append((start, min(start + BATCH, LENGTH) - 1, state))
        assert ranges(self.journal) == expected

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.folder.cleanup()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
