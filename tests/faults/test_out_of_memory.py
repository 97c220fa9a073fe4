"""Memory that runs out, for good or by the kernel's hand: ranges are cut to what fits, and nothing is lost."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skybatch.journal.reading import Reader
from tests.tools.mapping import Outcome, map_items
from tests.tools.memory_limits import MemoryLimit, memory_limit

Batch = list[dict[str, Any]]
ITEMS = 320
EACH = 12 << 20  # bytes that an item takes while it is mapped
LIMIT = 200 << 20  # room for a worker, its parent and ten items, not for sixteen


@pytest.fixture
def limit() -> Iterator[MemoryLimit]:
    with memory_limit(LIMIT) as made:
        yield made


def takes_much(batch: Batch, each: int) -> Batch:
    held = [b"x" * each for _ in batch]
    return [{"id": item["id"], "first": len(block)} for item, block in zip(batch, held, strict=True)]


def takes_much_for_one(batch: Batch, each: int) -> Batch:
    for item in batch:
        if item["id"] == 17:
            b"x" * each
    return batch


def takes_much_in_few_bytes_of_space(batch: Batch, each: int, room: int, note: str) -> Batch:
    """Under a limit of the process' own, with a note of the process."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
        with open(note, "a") as file:
            file.write(f"{os.getpid()}\n")
    return takes_much(batch, each)


def sizes(outcome: Outcome, kind: str) -> list[int]:
    """How many items each failure of this kind had, in the order of the failures."""
    return [failure.end - failure.start + 1 for failure in outcome.failures if failure.kind == kind]


def remembered(outcome: Outcome) -> tuple[int | None, set[int]]:
    """The size that is known to fit, and the sizes of the ranges in the job's second half."""
    with Reader(outcome.job.folder.journal) as journal:
        return journal.job().fits, {run.size for run in journal.runs() if run.start >= ITEMS // 2}


def undisturbed(folder: Path, each: int) -> bytes:
    """The output where memory is no matter."""
    folder.mkdir()
    return map_items(folder, takes_much, ITEMS, batch_size=1, mapper_args={"each": each}).output.read_bytes()


def test_batches_that_the_kernel_kills_for_are_cut_to_what_fits(tmp_path: Path, limit: MemoryLimit) -> None:
    outcome = map_items(
        tmp_path, takes_much, ITEMS, batch_size=32, mapper_args={"each": EACH}, activate_env=limit.joining
    )
    assert outcome.output.read_bytes() == undisturbed(tmp_path / "undisturbed", EACH)
    ran_out = sizes(outcome, "memory")
    assert len(ran_out) == len(outcome.failures) == limit.kills
    assert len(ran_out) <= 14 and set(ran_out) <= {32, 31, 16, 15}  # an item less where the first was tried alone
    assert remembered(outcome) == (8, {8})
    assert outcome.failures[0].message == "out of memory: the worker was killed by SIGKILL"


def test_item_that_never_fits_is_set_aside_alone(tmp_path: Path, limit: MemoryLimit) -> None:
    outcome = map_items(
        tmp_path,
        takes_much_for_one,
        batch_size=8,
        mapper_args={"each": 2 * LIMIT},
        activate_env=limit.joining,
        on_error="skip",
        max_retries=1,
    )
    assert outcome.ids == [index for index in range(40) if index != 17]
    assert {failure.kind for failure in outcome.failures} == {"memory"}
    assert outcome.failures[-1].item == 17 and outcome.job.progress().items_dead == 1


def test_batches_that_raise_memory_errors_are_cut_and_the_worker_goes_on(tmp_path: Path) -> None:
    each, note = 4 << 20, tmp_path / "note"
    arguments = {"each": each, "room": 12 * each, "note": str(note)}
    outcome = map_items(tmp_path, takes_much_in_few_bytes_of_space, ITEMS, batch_size=32, mapper_args=arguments)
    assert outcome.output.read_bytes() == undisturbed(tmp_path / "undisturbed", each)
    ran_out = sizes(outcome, "memory")
    assert len(ran_out) == len(outcome.failures) <= 14
    assert set(ran_out) <= {32, 31, 16, 15}  # one less where the first item was tried alone
    assert remembered(outcome) == (8, {8})
    assert "MemoryError" in outcome.failures[0].message
    assert len(note.read_text().split()) == 1  # one process did it all


def starves_the_writing_thread(batch: Batch, flag: str) -> Batch:
    """What is mapped from now on cannot be stored, for want of memory; once."""
    from skybatch.worker.storing import Storing

    def take(storing: Storing, group: list[Any]) -> None:
        raise MemoryError

    if batch[0]["id"] == 8 and not os.path.exists(flag):
        open(flag, "x").close()
        Storing.take = take  # type: ignore[method-assign]
    return batch


def test_worker_that_runs_out_of_memory_in_our_own_code_is_replaced(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, starves_the_writing_thread, mapper_args={"flag": str(tmp_path / "flag")})
    assert outcome.ids == list(range(40))
    assert {failure.kind for failure in outcome.failures} <= {"memory"}
    assert b"MemoryError" in outcome.log
