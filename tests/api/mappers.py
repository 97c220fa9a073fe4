"""Mappers of every form, in a module that is not installed."""

from __future__ import annotations

import asyncio
from typing import Any

import skybatch

Batch = list[dict[str, Any]]


def double(batch: Batch) -> Batch:
    return [{"i": item["i"], "twice": item["i"] * 2} for item in batch]


def scale(batch: Batch, factor: int) -> Batch:
    return [{"i": item["i"], "twice": item["i"] * factor} for item in batch]


@skybatch.remote_function
def loading() -> None:
    for batch in skybatch.load():
        skybatch.save_results(double(batch))


@skybatch.remote_function
def loading_with_arguments(factor: int) -> None:
    for batch in skybatch.load():
        skybatch.save_results(scale(batch, factor))


@skybatch.remote_function
async def loading_async() -> None:
    async for batch in skybatch.load():
        await asyncio.sleep(0)
        skybatch.save_results(double(batch))


class Scale:
    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def __call__(self, batch: Batch) -> Batch:
        return scale(batch, self.factor)


async def double_async(batch: Batch) -> Batch:
    await asyncio.sleep(0.001)
    return double(batch)


class Together:
    """Waits until four batches are in flight at once."""

    def __init__(self) -> None:
        self.flying = 0
        self.together = asyncio.Event()

    async def __call__(self, batch: Batch) -> Batch:
        self.flying += 1
        if self.flying == 4:
            self.together.set()
        await self.together.wait()
        return double(batch)


def seeded(batch: Batch) -> Batch:
    told = skybatch.context()
    return [{"start": told.start, "end": told.end, "attempt": told.attempt, "seed": told.seed} for _ in batch]


def twice_or_not_at_all(batch: Batch) -> Batch:
    return [item for item in batch for _ in range(item["i"] % 3)]


def where(batch: Batch) -> Batch:
    import os
    import threading

    main = threading.current_thread() is threading.main_thread()
    return [{"pid": os.getpid(), "main": main} for _ in batch]
