"""Thousands of decisions about unruly workers; every one is checked against a model."""

from __future__ import annotations

import pytest

from skybatch.engine.events import Settings
from tests.engine import simulate as small_jobs
from tests.engine.simulator import Simulator, World

SINGLE = World()  # expensive ranges: grants of one
MANY = World(
    range_s=0.003, death=0.0002, flake=0.0005, poison=0.0002, killers=0.00005, hang=0.0001, workers=200
)
CALM = World(
    poison=0, killers=0, flake=0, death=0, hang=0, gone=0, double=0, slow_workers=0, storage=0, preempted=0, wrong=0
)
STORM = World(death=0.05, hang=0.02, gone=0.05, double=0.2, flake=0.05, poison=0.01, killers=0.005)


def simulate(seed: int, world: World, *, length: int, batch_size: int) -> Simulator:
    simulator = Simulator(seed, Settings(length=length, batch_size=batch_size), world)
    try:
        simulator.run()
    except AssertionError as error:
        error.add_note(f"seed {seed}, {world}, length {length}, batch_size {batch_size}")
        raise
    return simulator


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("world", "length", "batch_size"),
    [(SINGLE, 2_000, 1), (MANY, 40_000, 4), (CALM, 3_000, 2), (STORM, 3_000, 3)],
    ids=["single", "many", "calm", "storm"],
)
def test_every_range_ends_and_winners_are_disjoint(
    seed: int, world: World, length: int, batch_size: int
) -> None:
    simulate(seed, world, length=length, batch_size=batch_size)


def test_a_calm_world_has_no_late_answer_and_no_second_try() -> None:
    simulator = simulate(7, CALM, length=2_000, batch_size=1)
    assert simulator.late == 0
    assert simulator.referee.decisions == 3 * simulator.won + 1  # granted, won, ended; finished


@pytest.mark.full
def test_a_million_decisions() -> None:
    decisions = late = dead = 0
    for seed in range(100, 104):
        for world, length, batch_size in [
            (SINGLE, 60_000, 1),
            (SINGLE, 120_000, 4),
            (MANY, 400_000, 4),
            (STORM, 50_000, 3),
        ]:
            simulator = simulate(seed, world, length=length, batch_size=batch_size)
            decisions += simulator.referee.decisions
            late += simulator.late
            dead += simulator.scheduler.dead_items
    print(f"{decisions:,} decisions, {late:,} late answers, {dead:,} dead items")
    assert decisions >= 1_000_000
    assert late and dead


@pytest.mark.full
def test_two_thousand_small_jobs_in_worlds_of_their_own() -> None:
    ends = [small_jobs.run(seed) for seed in range(2000)]
    assert sum(1 for end in ends if end.scheduler.finished) > 1900  # the others' workers kept dying


def test_a_small_job_is_the_same_whenever_it_is_run() -> None:
    first, again = small_jobs.run(42), small_jobs.run(42)
    assert (first.now, first.referee.decisions) == (again.now, again.referee.decisions)
