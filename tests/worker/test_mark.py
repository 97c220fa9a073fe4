"""The ranges in hand, as the parent reads them when the worker is gone."""

from __future__ import annotations

import os
import signal

from skybatch.worker.mark import MAPPING, READING, WRITING, Mark, size_for


def mark_of(concurrency: int) -> tuple[Mark, Mark]:
    """The worker's view and the parent's."""
    memory = os.memfd_create("test")
    os.ftruncate(memory, size_for(concurrency))
    views = Mark(memory, concurrency), Mark(memory, concurrency)
    os.close(memory)
    views[0].clear()
    return views


def test_what_is_taken_up_is_held_until_it_is_put_down() -> None:
    worker, parent = mark_of(2)
    assert parent.held() == []
    worker.take_up(MAPPING + 1, 8, 11)
    worker.take_up(READING, 0, 0)
    worker.take_up(WRITING, 4, 7)
    assert [hand[:3] for hand in parent.held()] == [(MAPPING + 1, 8, 11), (READING, 0, 0), (WRITING, 4, 7)]
    worker.put_down(READING)
    worker.put_down(MAPPING)
    assert [hand.start for hand in parent.held()] == [8, 4]
    worker.take_up(MAPPING + 1, 12, 15)
    assert [hand.start for hand in parent.held()] == [4, 12]  # held longest first
    worker.clear()
    assert parent.held() == []


def test_a_killed_process_leaves_its_mark() -> None:
    worker, parent = mark_of(1)
    pid = os.fork()
    if pid == 0:
        worker.take_up(MAPPING, 1 << 40, (1 << 40) + 3)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (hand,) = parent.held()
    assert (hand.start, hand.end) == (1 << 40, (1 << 40) + 3)
