"""Publishing against a small model: an engine dies between any two steps, strangers meddle, items are retried.

The journal, the files and the code that publishes are the real ones; only what an engine has around them is not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skybatch import disk
from skybatch.engine import finish, placing
from skybatch.engine.finish import Finishing
from skybatch.engine.folder import JobFolder
from skybatch.engine.placing import Conflict, standing
from skybatch.formats.json_format import JsonWriter
from skybatch.journal import journal as journals
from skybatch.journal.journal import Journal
from skybatch.journal.rows import Changes, JobRow, Run

STATES = ("open", "publishing", "published", "cleaned")


class Died(BaseException):
    """The engine was killed."""


@contextmanager
def dying_at(boundary: int | None) -> Iterator[None]:
    """Within, the engine dies at the n-th boundary."""
    passed = 0

    def reach(name: str, detail: str = "") -> None:
        nonlocal passed
        passed += 1
        if passed == boundary:
            raise Died

    with (
        mock.patch.object(finish, "reach", reach),
        mock.patch.object(placing, "reach", reach),
        mock.patch.multiple(disk, before=reach, after=reach),
        mock.patch.multiple(journals, before=reach, after=reach),
    ):
        yield


@dataclass
class Versioned(JsonWriter):
    """What is published differs from version to version."""

    version: int = 0

    def header(self) -> bytes:
        return b"ours, version %d\n" % self.version


class Publishing(RuleBasedStateMachine):
    """One job with one output and one item, which is set aside, so that nothing is ever cleaned up."""

    @initialize(before=st.sampled_from([None, b"before"]))
    def start(self, before: bytes | None) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.final = self.folder / "out.jsonl"
        if before is not None:
            self.final.write_bytes(before)
        self.writer = Versioned(str(self.final))
        self.replaces = standing(self.writer)
        self.there = before  # what must stand there, unless an engine of ours may put a version there
        self.foreign = False  # it is a stranger's
        self.published = False  # the present version, for all the journal says
        self.job = JobFolder(self.folder / "0000000000ab")
        self.job.path.mkdir()
        row = JobRow(id=self.job.id, name="", created_at=1.0, batch_size=1, state="running", length=1)
        with Journal.create(self.job.journal, row, [str(self.final)]) as journal:
            journal.commit(Changes(dead=[Run(start=0, end=0, size=1, state="dead", attempt=1)]))

    @property
    def ours(self) -> bytes:
        return self.writer.header()

    @rule(boundary=st.none() | st.integers(1, 40))
    def engine(self, boundary: int | None) -> None:
        """An engine goes on with it, to the end, or until it dies."""
        died = conflict = False
        with Journal.open(self.job.journal) as journal:
            journal.take_over()
            before = STATES.index(journal.outputs()[0].state)
            with dying_at(boundary):
                try:
                    Finishing(self.around(journal)).finish()
                except Died:
                    died = True
                except Conflict:
                    conflict = True
        with Journal.open(self.job.journal) as journal:
            after = STATES.index(journal.outputs()[0].state)
        assert after >= before
        self.judge(died=died, conflict=conflict, done=after >= 2)

    def judge(self, *, died: bool, conflict: bool, done: bool) -> None:
        now = self.final.read_bytes() if self.final.exists() else None
        if self.published or self.foreign:
            assert now == self.there, "what a stranger put there, or took away, was touched"
        else:
            assert now in (self.there, self.ours), "neither what was there before nor all of the new"
            assert now == self.ours or died, "it ended and has published nothing"
        assert conflict == (self.foreign and not self.published and not died) or died
        self.there = now
        self.published = self.published or done

    @rule(content=st.sampled_from([b"a stranger's", b"another stranger's"]))
    def stranger_writes(self, content: bytes) -> None:
        self.final.unlink(missing_ok=True)
        self.final.write_bytes(content)
        self.there, self.foreign = content, True

    @rule()
    def stranger_deletes(self) -> None:
        self.final.unlink(missing_ok=True)
        self.there, self.foreign = None, False

    @precondition(lambda self: getattr(self, "published", False))
    @rule()
    def retried(self) -> None:
        """The item is tried again, and fails again; the output is another one all the same."""
        with Journal.open(self.job.journal) as journal:
            assert journal.retry() == 1
            journal.commit(Changes(dead=[Run(start=0, end=0, size=1, state="dead", attempt=1)]))
        self.writer.version += 1
        self.published = False

    @invariant()
    def nothing_is_half_written(self) -> None:
        if hasattr(self, "final") and self.final.exists():
            assert self.final.read_bytes() == self.there

    def around(self, journal: Journal) -> Any:
        spec = SimpleNamespace(id=self.job.id, replaces=[self.replaces], overwrite=True, on_error="skip")
        return SimpleNamespace(
            journal=journal,
            spec=spec,
            formats=SimpleNamespace(writers=[self.writer]),
            folder=self.job,
            merging={},
            runs_here=False,
        )

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)
            assert not os.path.exists(self.folder)


TestPublishing = Publishing.TestCase
TestPublishing.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
