"""Workers that their host wants gone: SIGTERM to one process or all, whatever the mapper makes of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch.errors
from skybatch import io_formats, utils
from skybatch.engine import preemptions
from tests.tools.mapping import Outcome, map_items
from tests.tools.processes import wait_until

Batch = list[dict[str, Any]]
TIMES = 5  # more often than a range may be lost
SLOW_S = 1000.0
SLICE_S = 0.1


def takes_for_ever() -> None:
    """Sleep in slices: a signal noted just before a sleep begins does not cut it short; its handler runs after it."""
    deadline = time.monotonic() + SLOW_S
    while time.monotonic() < deadline:
        time.sleep(SLICE_S)


def note_of_call(folder: str, name: str) -> int:
    """How often this was called before, in whatever process; and leaves who called."""
    count = len(list(Path(folder).glob(f"{name}-*")))
    part = Path(folder, f"part-{os.getpid()}")
    part.write_text(f"{os.getpid()} {os.getppid()}")
    part.rename(Path(folder, f"{name}-{count}"))
    return count


def waits(batch: Batch, folder: str, handler: str) -> Batch:
    """The third range takes for ever, TIMES times."""
    if handler == "exits":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    elif handler == "raises":
        signal.signal(signal.SIGTERM, raise_interrupt)
    elif handler == "ignores":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif handler == "says nothing":
        signal.signal(signal.SIGTERM, lambda *_: None)
    if batch[0]["id"] == 8 and note_of_call(folder, "call") < TIMES:
        takes_for_ever()
    return batch


def raise_interrupt(number: int, frame: object) -> None:
    raise InterruptedError("asked to go")


def preempt(notes: Path, whom: str) -> None:
    """Send SIGTERM to each worker that waits, its parent or both."""
    for number in range(TIMES):
        note = notes / f"call-{number}"
        wait_until(note.exists, 60.0, f"the range is in hand for the {number + 1}. time")
        worker, parent = map(int, note.read_text().split())
        for pid in {"worker": [worker], "parent": [parent], "both": [worker, parent]}[whom]:
            os.kill(pid, signal.SIGTERM)


def map_preempted(folder: Path, whom: str, handler: str) -> Outcome:
    notes = folder / "notes"
    notes.mkdir()
    preempting = threading.Thread(target=preempt, args=(notes, whom))
    preempting.start()
    try:
        return map_items(folder, waits, max_retries=0, mapper_args={"folder": str(notes), "handler": handler})
    finally:
        preempting.join()


CASES = [
    ("parent", "none"),
    ("parent", "ignores"),
    ("worker", "none"),
    ("worker", "exits"),
    ("both", "none"),
    ("both", "raises"),
    ("both", "says nothing"),
]


@pytest.mark.parametrize(("whom", "handler"), CASES, ids=lambda value: value)
def test_preempted_worker_is_replaced_and_nobody_is_charged(tmp_path: Path, whom: str, handler: str) -> None:
    outcome = map_preempted(tmp_path, whom, handler)
    assert outcome.ids == list(range(40))
    assert outcome.attempts == {}
    assert [(f.start, f.end, f.attempt, f.kind) for f in outcome.failures] == [(8, 11, 0, "preempted")] * TIMES


def ends_itself(batch: Batch) -> Batch:
    if any(item["id"] == 17 for item in batch):
        os.kill(os.getpid(), signal.SIGTERM)
        takes_for_ever()
    return batch


def test_item_that_has_its_worker_terminated_is_set_aside_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemptions, "TERMINATED_MAX", 1)
    outcome = map_items(tmp_path, ends_itself, on_error="skip", max_retries={"lost": 0})
    assert outcome.ids == [index for index in range(40) if index != 17]
    kinds = [failure.kind for failure in outcome.failures]
    assert kinds[:2] == ["preempted", "lost"] and kinds[-1] == "lost"
    assert outcome.failures[-1].message == "the worker was killed by SIGTERM"


def is_told_to_go_with_all(batch: Batch, engine: int) -> Batch:
    """As a host does that goes down: every process gets the signal, the engine too."""
    if batch[0]["id"] == 8:
        for pid in (os.getppid(), engine, os.getpid()):
            os.kill(pid, signal.SIGTERM)
        takes_for_ever()
    return batch


def test_job_whose_host_goes_down_is_paused_with_nobody_charged(tmp_path: Path) -> None:
    with pytest.raises(skybatch.errors.Paused, match="interrupted by SIGTERM") as caught:
        map_items(tmp_path, is_told_to_go_with_all, mapper_args={"engine": os.getpid()})
    assert caught.value.exit_code == 128 + signal.SIGTERM
    job = skybatch.engine.job.find_job(caught.value.job_id)
    assert {failure.kind for failure in job.errors()} <= {"preempted"}


@dataclass
class ReducingOnce(io_formats.OutputWriter):
    """The machine wants the process that merges gone, once."""

    flag: str

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        if not os.path.exists(self.flag):
            open(self.flag, "x").close()
            os.kill(os.getppid(), signal.SIGTERM)
            takes_for_ever()
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def same(batch: Batch) -> Batch:
    return batch


def test_job_whose_merging_process_is_preempted_is_paused(tmp_path: Path) -> None:
    writer = ReducingOnce(str(tmp_path / "out.jsonl"), str(tmp_path / "flag"))
    with pytest.raises(skybatch.errors.Paused, match="told to go by the machine") as caught:
        map_items(tmp_path, same, output=writer)
    job = skybatch.engine.job.resume(caught.value.job_id)
    assert Outcome(job, tmp_path / "out.jsonl").ids == list(range(40))
