"""One worker's life: take batches from the reading thread, map them, pass results to the writing thread."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import Any

from skybatch.errors import DISK_FULL, ResultError, is_of_storage
from skybatch.formats.base import Item, SegmentWriter
from skybatch.formats.masking import masked
from skybatch.worker import mapper, runtime, ways
from skybatch.worker.fault import describe, describe_fault, end_if_told_to, kind_of, release, spoils_the_process
from skybatch.worker.frames import Frame
from skybatch.worker.mark import MAPPING, Mark, NoMark
from skybatch.worker.outbox import Fault, Result
from skybatch.worker.reading import Loaded
from skybatch.worker.serve import Channel


class Batch:
    """One range on its way through the mapper."""

    __slots__ = ("attempt", "end", "grant", "items", "last", "size", "slot", "start", "taken_at")

    def __init__(self, loaded: Loaded, start: int, end: int, items: list[Item], slot: int) -> None:
        self.grant, self.attempt = loaded.grant, loaded.attempt
        self.start, self.end, self.items = start, end, items
        self.last = end == loaded.grant_end
        self.size, self.slot = loaded.size, slot
        self.taken_at = time.monotonic()


class Session:
    """Iterate for batches; hand over results or failures, in the order the batches were taken."""

    def __init__(self, channel: Channel, mark: Mark | NoMark, config: Frame) -> None:
        self._channel, self._mark, self._config = channel, mark, config
        self.job_id: str = config["job_id"]
        self.current: Batch | None = None
        self.ended = False
        self._pid = os.getpid()
        self._one_to_one: bool = config["one_to_one"]
        self._enter_folder(config)
        self.mapper, self._encoders, self._wants_results, self._feed, self._outbox = ways.choose(
            channel, mark, config, self._cut_short
        )
        self._loaded: Loaded | None = None
        self._next = 0

    def run(self) -> None:
        """Serve grants until told to stop."""
        runtime.set_session(self)
        try:
            self._work()
        finally:
            runtime.set_session(None)

    def _work(self) -> None:
        self._feed.start()
        self._outbox.start()
        try:
            self._channel.send({"op": "ready"})  # an engine that has failed already hears it no more
            concurrency = self._config.get("concurrency", 1)
            mapper.drive(self, self.mapper, self._config["mapper_args"], concurrency)
        finally:
            self._end_copy(sys.exc_info()[1])
            self._outbox.close()
            runtime.set_session(None)

    def __iter__(self) -> Session:
        return self

    def __next__(self) -> Batch:
        batch = self.take()
        if batch is None:
            raise StopIteration
        return batch

    def take(self, slot: int = 0) -> Batch | None:
        """The next batch, waiting for it; None when the worker is to stop."""
        self._end_copy(None)
        while not self.ended:
            loaded = self._loaded
            if loaded is None or self._next > loaded.end:
                loaded = self._load()
                if loaded is None:
                    break
            start = self._next
            end = self._next = min(start + loaded.size - 1, loaded.end)
            self._next += 1
            self._mark.take_up(MAPPING + slot, start, end)
            try:
                if loaded.error is not None:
                    raise loaded.error
                items = loaded.items(start, end)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and loaded.error is None:
                    raise
                if is_of_storage(error, DISK_FULL):  # no item is to blame
                    self._channel.send({"op": "storage", **describe(error)})
                    self.ended = True
                    return None
                if loaded.again is not None:
                    loaded.again(loaded, start, end)
                else:
                    self._outbox.put(self._fault(Batch(loaded, start, end, [], slot), error, "read"))
                self._mark.put_down(MAPPING + slot)
                continue
            self.current = batch = Batch(loaded, start, end, items, slot)
            return batch
        return None

    def _load(self) -> Loaded | None:
        self._mark.begin()  # the mapper is made; from now on its time is counted by batches
        loaded = self._feed.get_now()
        if loaded is None:
            self._outbox.flush()
            loaded = self._feed.get()
        if loaded.grant < 0:
            self.ended = True
            return None
        self._loaded, self._next = loaded, loaded.start
        return loaded

    def _cut_short(self) -> None:
        """Draining: no further batch is taken (called on the receiving thread)."""
        self.ended = True

    def check(self, batch: Batch, results: Any) -> None:
        """Raise ValueError or TypeError when `results` cannot be those of `batch`."""
        if type(results) is not list:
            raise TypeError(f"{_named(batch)}: results must be a list of dicts, not {_type(results)}")
        expected = batch.end - batch.start + 1  # not len(batch.items): the mapper may have emptied that list
        if len(results) != expected and self._one_to_one:
            raise ValueError(
                f"{_named(batch)}: {len(results)} results for {expected} item{'' if expected == 1 else 's'} "
                "(for another number of results than items: one_to_one=False)"
            )
        if {*map(type, results)} - {dict}:
            self._refuse_other_types(batch, results)

    def _refuse_other_types(self, batch: Batch, results: list[Any]) -> None:
        for index, result in enumerate(results, batch.start):
            if not isinstance(result, dict):
                raise ResultError(f"item {index}: a result must be a dict, not {_type(result)}", item=index)

    def encode(self, batch: Batch, results: list[Item]) -> list[bytes]:
        """The results as the segment outputs store them. Raises ResultError naming the output."""
        return [_encode(writer, results, batch.start) for writer in self._encoders]

    def hand_over(self, batch: Batch, results: Any) -> None:
        """What the mapper returned for `batch`; what cannot be written fails the batch."""
        self._end_copy(None)
        try:
            self.check(batch, results)
        except BaseException as error:
            self.fail(batch, error)
            return
        try:
            payloads = self.encode(batch, results)
        except BaseException as error:
            self.fail(batch, error, "write")
        else:
            self.pass_on(batch, results, payloads)

    def pass_on(self, batch: Batch, results: list[Item], payloads: list[bytes]) -> None:
        """Checked and encoded results, on to the writing thread."""
        self._end_copy(None)
        self._mark.put_down(MAPPING + batch.slot)
        batch.items = []  # the batch waits to be stored; its items need not wait with it
        self._outbox.put(Result(batch, payloads, results if self._wants_results else None))

    def fail(self, batch: Batch, error: BaseException, stage: str = "mapper") -> None:
        """The mapper failed on `batch`, or its results cannot be written."""
        self._end_copy(error)
        if self._channel.own_process and stage == "mapper":
            end_if_told_to(error)
        self._mark.put_down(MAPPING + batch.slot)
        if isinstance(error, KeyboardInterrupt) and isinstance(self._mark, NoMark):
            raise error  # Ctrl-C reaches the worker only where it shares the engine's process
        self._outbox.put(self._fault(batch, error, stage))
        if self._channel.own_process and spoils_the_process(error):
            self.ended = True  # the engine starts another worker; what else is in hand here is charged with nothing

    def _end_copy(self, error: BaseException | None) -> None:
        """End a process that the mapper forked and that leaves the mapper: it is a worker without its threads."""
        if os.getpid() == self._pid:
            return
        status = 0
        try:
            if isinstance(error, SystemExit) and isinstance(error.code, (int, type(None))):
                status = error.code or 0
            elif error is not None:
                status = 1
                traceback.print_exception(type(error), error, error.__traceback__)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)

    def tell(self, error: BaseException) -> None:
        """An exception that no batch is to blame for goes to the log."""
        traceback.print_exception(type(error), error, error.__traceback__)

    def _fault(self, batch: Batch, error: BaseException, stage: str) -> Fault:
        kind, batch.items = kind_of(error, stage), []
        if kind == "memory":
            release(error)
        return Fault(batch, kind, describe_fault(error, stage))

    def _enter_folder(self, config: Frame) -> None:
        cwd = config.get("cwd")
        if cwd and os.path.isdir(cwd):
            os.chdir(cwd)


def _encode(writer: SegmentWriter, results: list[Item], start: int) -> bytes:
    try:
        return writer.encode(results, start)
    except ResultError as error:
        raise ResultError(f"output {masked(writer.path)}: {error}", item=error.item) from error


def _named(batch: Batch) -> str:
    return f"item {batch.start}" if batch.start == batch.end else f"items {batch.start}-{batch.end}"


def _type(value: object) -> str:
    return type(value).__name__
