"""A merge behind a job: how it ends when the engine leaves, and what of its failures ends the job at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from skybatch.engine.merge_behind import MergeBehind
from skybatch.engine.reduction import LostResults, Reduction
from skybatch.engine.stops import Stop
from skybatch.errors import ResultError, StorageFailed
from skybatch.formats.base import Restart
from skybatch.formats.stores import retrying
from tests.journal.support import new_journal
from tests.tools.processes import wait_until


def unanswered() -> Reduction:
    """A store that is asked and asked again, for minutes."""
    retrying.call("s3://far/object", no_answer)
    raise AssertionError("it answered")


def no_answer() -> NoReturn:
    raise ConnectionError("no answer")


def merging(folder: Path, error: Exception) -> MergeBehind:
    """One that has failed."""

    def begin() -> Reduction:
        raise error

    behind = MergeBehind(begin, folder / "journal.db", past_dead=False)
    wait_until(lambda: behind.error is not None, 20, "the merge's failure")
    return behind


def test_a_merge_that_waits_for_a_store_ends_when_it_is_abandoned(tmp_path: Path) -> None:
    new_journal(tmp_path / "journal.db").close()
    behind = MergeBehind(unanswered, tmp_path / "journal.db", past_dead=False)
    behind.abandon()  # without it, SKYBATCH_STORAGE_PATIENCE_S passes first
    assert isinstance(behind.error, StorageFailed) and "no answer" in str(behind.error)


class Nothing(Reduction):
    """Takes nothing in."""

    def __init__(self) -> None:
        self.next = 0

    def advance(self, *args: Any, **kwargs: Any) -> None:
        pass


def test_a_merge_that_is_stopped_just_as_it_takes_note_of_a_commit_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_journal(tmp_path / "journal.db").close()
    behind = MergeBehind(Nothing, tmp_path / "journal.db", past_dead=False)
    clear = behind._told.clear

    def stopped_meanwhile() -> None:
        behind._stop.set()
        behind._told.set()
        clear()

    monkeypatch.setattr(behind._told, "clear", stopped_meanwhile)
    behind.tell()
    behind._thread.join(20)
    assert not behind._thread.is_alive()


@pytest.mark.parametrize(
    "error", [Restart(), LostResults(None, "gone"), StorageFailed("no answer"), OSError(28, "No space left on device")]
)
def test_what_may_be_put_right_until_the_end_is_no_refusal(error: Exception, tmp_path: Path) -> None:
    assert merging(tmp_path, error).refusal("out") is None


def test_what_no_later_try_can_put_right_is_a_refusal(tmp_path: Path) -> None:
    refused = merging(tmp_path, ResultError("item 3: does not fit", item=3)).refusal("out")
    assert refused == Stop(state="failed", cause="output out: item 3: does not fit", exit_code=1)
    fault = merging(tmp_path, KeyError("a fault")).refusal("out")
    assert fault is not None and fault.cause == "reduce of output out: KeyError: 'a fault'" and fault.traceback
