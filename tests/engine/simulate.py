"""Whole jobs under the simulator, one seed after the other, each in a world of its own.

    python -m tests.engine.simulate --seeds 100000 [--first N]

prints the first seed at which a decision was wrong, and ends with 1; `--seeds 1 --first N` repeats it alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from random import Random

from skybatch.engine.events import Settings
from skybatch.engine.retries import budgets
from tests.engine.simulator import Simulator, World


def job_of(seed: int) -> Simulator:
    """The job that a seed stands for: small, and in a world between calm and stormy."""
    draw = Random(f"world {seed}")

    def rarely(most: float) -> float:
        return draw.choice([0.0, most * draw.random() ** 2])

    world = World(
        workers=draw.choice([1, 2, 3, 8, 40]),
        range_s=draw.choice([0.001, 0.1, 1.0, 30.0]),
        poison=rarely(0.05),
        killers=rarely(0.02),
        flake=rarely(0.1),
        death=rarely(0.05),
        hang=rarely(0.05),
        gone=rarely(0.1),
        double=rarely(0.5),
        slow_workers=rarely(0.3),
        storage=rarely(0.02),
        preempted=rarely(0.1),
        wrong=rarely(0.3),
        fat=rarely(0.02),
    )
    batch_size = draw.choice([1, 2, 3, 7, 16])
    if draw.random() < 0.3 and batch_size > 1:
        world = replace(world, memory=draw.randrange(1, batch_size))
    tries = {name: draw.randrange(4) for name in ("mapper", "timeout", "memory", "lost")}
    settings = Settings(
        length=draw.randrange(1, 400),
        batch_size=batch_size,
        budgets=budgets({**tries, "storage": 20}),
        depth=draw.choice([1, 2, 4]),
        speculate=draw.random() < 0.5,
    )
    return Simulator(seed, settings, world)


def run(seed: int) -> Simulator:
    """Run the seed's job to its end. Raises AssertionError, with the command that repeats it, at a wrong decision."""
    simulator = job_of(seed)
    try:
        simulator.run()
    except AssertionError as error:
        error.add_note(f"to repeat it: python -m tests.engine.simulate --seeds 1 --first {seed}")
        error.add_note(f"{simulator.settings}\n{simulator.world}")
        raise
    return simulator


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    decisions = sum(run(seed).referee.decisions for seed in range(asked.first, asked.first + asked.seeds))
    print(f"seeds {asked.first} to {asked.first + asked.seeds - 1}: {decisions:,} decisions, none wrong")


if __name__ == "__main__":
    main()
