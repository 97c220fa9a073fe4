"""Real jobs under random SIGKILL and SIGSTOP, and on a store that fails; outputs are compared, journals checked.

    python -m tests.chaos run --minutes 10 [--seed N]              jobs of all shapes, until the time is over
    python -m tests.chaos kills --engines 500 --workers 500        jobs of 2,000 ranges, until so many are killed

Both print what was survived, and end with 1 at the first broken promise, with the seed that repeats that job
(`--seed SEED --jobs 1`) and the folder it lies in.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.chaos.attack import Attack, Tally, Violation, Weapons, same, spans_of
from tests.faults.test_publish_stores import StoreBench
from tests.tools.bench import Bench
from tests.tools.proxy import CutReply, Fault, LoseReply, Request, Reset, Status, running
from tests.tools.servers import running_moto, s3_environment

AT_ONCE = 2
KILLED: dict[str, Any] = {
    "items": 4000,
    "batch_size": 2,
    "reader": "counter",
    "outputs": ["yaml", "json"],
    "mapping_s": 0.001,
    "planning_s": 0.1,
    "finishing_s": 0.1,
}
SHAPES: dict[str, dict[str, Any]] = {
    "two merged files": KILLED,
    "an indexed input, sixteen outputs": {
        "items": 600, "batch_size": 3, "mapping_s": 0.005,
        "outputs": ["json", *(f"more{number}" for number in range(15))],
    },
    "parquet to parquet": {
        "items": 1000, "batch_size": 5, "mapping_s": 0.005,
        "reader": "parquet", "outputs": ["parquet"],
    },
    "folders": {"items": 800, "batch_size": 4, "outputs": ["shards", "texts"], "mapping_s": 0.005},
    "custom files per item": {"items": 400, "batch_size": 4, "outputs": ["text", "json"], "mapping_s": 0.01},
    "a passing failure": {"items": 400, "batch_size": 4, "mapper": "stumble", "mapping_s": 0.01},
}
IN_STORE: dict[str, Any] = {"items": 400, "batch_size": 4, "outputs": ["json", "zipped", "merged", "shards"]}


@dataclass
class Arena:
    """Where jobs run; what undisturbed runs have made is kept."""

    folder: Path
    store: str | None = None  # an S3 that does not fail

    def __post_init__(self) -> None:
        self._made: dict[str, dict[str, bytes]] = {}
        self._lock = threading.Lock()

    def job(self, seed: int, weapons: Weapons, shapes: list[str]) -> Tally:
        """Run the seed's job under attack. Raises Violation."""
        luck = random.Random(f"job {seed}")
        shape = luck.choice(shapes)
        tally = self._in_store(seed, weapons) if shape == "store" else self._on_disk(seed, shape, weapons)
        shutil.rmtree(self.folder / str(seed), ignore_errors=True)
        return tally

    def _on_disk(self, seed: int, shape: str, weapons: Weapons) -> Tally:
        options = SHAPES[shape]
        undisturbed = self._undisturbed(shape, lambda folder: _outputs_of(Bench(folder, **options)))
        attack = Attack(Bench(self.folder / str(seed), **options), seed, weapons)
        tally = attack.run()
        same(attack.bench.outputs(), undisturbed, attack.bench.folder)
        lost = spans_of(options["items"], options["batch_size"]) - set(attack.bench.ranges_taken_up())
        if lost and tally.worker_kills == 0:
            raise Violation(f"never mapped: {sorted(lost)[:5]}")
        return tally

    def _in_store(self, seed: int, weapons: Weapons) -> Tally:
        assert self.store is not None
        undisturbed = self._undisturbed("store", self._undisturbed_objects)
        bucket = f"s3://chaos-{seed}-{os.getpid()}"
        _make_bucket(bucket)
        with running(self.store, _faulty(seed)) as proxy:
            bench = StoreBench(self.folder / str(seed), bucket, **IN_STORE)
            slower = replace(weapons, life_s=8.0)
            tally = Attack(bench, seed, slower, env={"AWS_ENDPOINT_URL": proxy.url}).run()
        same(bench.objects(), undisturbed, bench.folder)
        return tally

    def _undisturbed_objects(self, folder: Path) -> dict[str, bytes]:
        bucket = f"s3://undisturbed-{os.getpid()}"
        _make_bucket(bucket)
        bench = StoreBench(folder, bucket, **IN_STORE)
        bench.succeed(bench.start())
        return bench.objects()

    def _undisturbed(self, shape: str, make: Callable[[Path], dict[str, bytes]]) -> dict[str, bytes]:
        with self._lock:
            if shape not in self._made:
                self._made[shape] = make(self.folder / f"undisturbed-{len(self._made)}")
            return self._made[shape]


def _outputs_of(bench: Bench) -> dict[str, bytes]:
    bench.succeed(bench.start())
    return bench.outputs()


def _make_bucket(bucket: str) -> None:
    from skybatch.formats import stores

    stores.of("s3://").call(bucket.removeprefix("s3://"), "create_bucket", Bucket=bucket.removeprefix("s3://"))  # type: ignore[attr-defined]


def _faulty(seed: int) -> Callable[[Request], Fault | None]:
    """A store that is throttled, drops connections, cuts replies off and loses them."""
    luck = random.Random(f"store {seed}")

    def rule(request: Request) -> Fault | None:
        chance = luck.random()
        if chance < 0.02:
            return Status(503, "SlowDown")
        if chance < 0.03:
            return Reset()
        if chance < 0.035:
            return CutReply()
        if chance < 0.045 and request.method in ("PUT", "POST"):
            return LoseReply()
        return None

    return rule


def fight(
    arena: Arena, seeds: Iterator[int], weapons: Weapons, shapes: list[str], ended: Callable[[Tally], bool]
) -> Tally:
    """Run jobs, several at once, until `ended` says so of what they have survived together. Raises Violation."""
    total, lock = Tally(), threading.Lock()
    failed = threading.Event()

    def work() -> None:
        while not failed.is_set():
            with lock:
                if ended(total):
                    return
                seed = next(seeds)
            try:
                tally = arena.job(seed, weapons, shapes)
            except BaseException as error:
                failed.set()
                error.add_note(f"seed {seed}; the job lies in {arena.folder / str(seed)}")
                raise
            with lock:
                total.add(tally)
                killed = f"{tally.engine_kills.total()} engines, {tally.worker_kills} workers killed"
                print(f"  seed {seed}: {killed}", flush=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(work) for _ in range(AT_ONCE)]:
            future.result()
    return total


def report(tally: Tally, seconds: float) -> None:
    """Print what was survived."""
    print(f"{tally.jobs} jobs of {tally.ranges:,} ranges in {seconds:.0f} s: 0 lost, 0 duplicated, all bytes equal")
    killed = f"{tally.engine_kills.total()} engines killed, {tally.worker_kills} workers or their parents"
    print(f"  {killed}; {tally.stops} processes stopped for a moment")
    print(f"  {tally.again} ranges run again; {tally.at_risk} were granted and not committed at a kill")
    if tally.pauses:
        print(f"  {tally.pauses} times an engine gave up for now, its store away or its workers killed")
    for phase, count in tally.engine_kills.most_common():
        print(f"  {phase:10} {count:5}")


@contextmanager
def arena_of(folder: str | None, *, store: bool) -> Iterator[Arena]:
    """A place for jobs; it stays when a promise is broken."""
    place = Path(folder or tempfile.mkdtemp(prefix="skybatch-chaos-"))
    with ExitStack() as stack:
        url = stack.enter_context(running_moto(place)) if store else None
        if url is not None:
            os.environ.update(s3_environment(url))
        yield Arena(place, url)
    shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "kills"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--engines", type=int, default=500)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=10**9)
    parser.add_argument("--folder")
    asked = parser.parse_args()
    begun = time.monotonic()
    seeds = iter(range(asked.seed, asked.seed + asked.jobs))
    print(f"seed {asked.seed}")

    def over(total: Tally) -> bool:
        if asked.what == "run":
            return time.monotonic() - begun > 60 * asked.minutes or total.jobs >= asked.jobs
        return total.engine_kills.total() >= asked.engines and total.worker_kills >= asked.workers

    shapes = ["two merged files"] if asked.what == "kills" else [*SHAPES, "store"]
    weapons = Weapons(stops=True, engine_kills=15) if asked.what == "run" else Weapons(stops=False)
    try:
        with arena_of(asked.folder, store=asked.what == "run") as arena:
            report(fight(arena, seeds, weapons, shapes, over), time.monotonic() - begun)
    except Violation as violation:
        print(f"BROKEN: {violation}\n{' '.join(getattr(violation, '__notes__', []))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
