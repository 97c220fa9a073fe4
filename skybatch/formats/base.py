"""The contracts between skybatch and formats: `InputReader` and `OutputWriter`, and their faster kinds.

A third party writes the methods of the first two and no more. `WindowReader` and `SegmentWriter` are for
formats that want what the built-in ones have: reads that span many ranges, results stored in few files.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from skybatch.errors import UsageError

Item = dict[str, Any]


class _HasPath:
    """Whose `path` is text, or a list of texts, whatever kind of path it is given."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, _text_of(value) if name == "path" else value)


def _text_of(path: object) -> object:
    if isinstance(path, (list, tuple)):
        return [_text_of(each) for each in path]
    if not isinstance(path, os.PathLike):
        return path
    text = os.fspath(path)
    if isinstance(text, str) and re.match(r"[a-z][a-z0-9+.-]+:/(?!/)", text):
        raise UsageError(f"{path!r}: pathlib takes the second slash out of a URL; give it as text")
    return text


@dataclass
class InputReader(_HasPath, ABC):
    """Random access to an indexed dataset. Subclass as a dataclass; its fields must be JSON values.

    `path` may be given as an `os.PathLike`, and is text from then on. An instance is frozen into the job as its class
    and its fields, and made anew in every process that needs it, so `__init__` must not do anything that costs.
    """

    path: str

    requires: ClassVar[dict[str, str]] = {}
    """Modules that must be importable in workers, and the distribution that provides each; checked at their start."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of items. Called once, in the engine, before the first batch; again on resume."""

    @abstractmethod
    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[Item]:
        """The items `start_idx` to `end_idx`, both included.

        Called in a worker process, on its reading thread, in any order; again when a range is tried again.
        `cache_dir` is a folder of this job on that machine, shared by its workers and kept between calls.
        What it raises is charged to that range. Another number of items than asked for is an error.
        """

    def fingerprint(self) -> dict[str, Any]:
        """What tells this input from a changed one, as JSON. Called once at the start and at each resume.

        The default knows nothing; skybatch compares length and fields in any case.
        """
        return {}

    def check(self) -> None:
        """Raise UsageError when the input cannot be read. Called once, before a job exists."""


class WindowReader(InputReader):
    """A reader that reads many ranges at once and decodes each when the mapper wants it.

    Reading happens on the reading thread and decoding on the mapper's, so that the first can run ahead
    without competing for the interpreter.
    """

    decodes_anywhere: ClassVar[bool] = False
    """Whether `decode` works without an index, in a process of another machine, but for telling where a fault is."""

    _in_job = True  # False while an index for use without a job is made: nothing large is kept beside that

    @abstractmethod
    def build_index(self, folder: str) -> int:
        """Make whatever `read_window` needs, in `folder`; return the number of items. Once, in the engine."""

    @abstractmethod
    def open_index(self, folder: str) -> None:
        """Take up the index made by `build_index`. Once per process that reads."""

    @abstractmethod
    def window_end(self, start: int, end: int) -> int:
        """The last item, `end` at most, that a window from `start` may hold without taking much memory."""

    @abstractmethod
    def read_window(self, start: int, end: int) -> Any:
        """Read items `start` to `end` undecoded. On the reading thread."""

    @abstractmethod
    def decode(self, window: Any, first: int, start: int, end: int) -> list[Item]:
        """Items `start` to `end` out of a window that begins with item `first`. On the mapper's thread.

        A record that cannot be read raises RecordError naming file, line and byte offset.
        """

    def __len__(self) -> int:
        """Number of items, for use without a job: by an index made once in a temporary folder."""
        return self._own_index()

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[Item]:
        """The items `start_idx` to `end_idx`, for use without a job, as `__len__`."""
        self._own_index()
        return self.decode(self.read_window(start_idx, end_idx), start_idx, start_idx, end_idx)

    def _own_index(self) -> int:
        count: int | None = getattr(self, "_own_count", None)
        if count is None:
            import shutil  # which, with what it imports, workers need not wait for
            import tempfile
            import weakref

            folder = tempfile.mkdtemp(prefix="skybatch-")
            weakref.finalize(self, shutil.rmtree, folder, True)
            self._in_job = False
            try:
                count = self._own_count = self.build_index(folder)
            finally:
                self._in_job = True
            self.open_index(folder)
        return count


@dataclass
class OutputWriter(_HasPath, ABC):
    """Where results go. Subclass as a dataclass; its fields must be JSON values.

    `path` is the output the user asked for, given as text or as an `os.PathLike`. What `utils.get_batch_path` gives is
    unique to the attempt, so a writer is safe against late and double attempts without knowing of them.
    """

    path: str

    requires: ClassVar[dict[str, str]] = {}
    """As InputReader.requires."""

    accepts_any_count: ClassVar[bool] = False
    """Whether a batch may have another number of results than items (`one_to_one=False`)."""

    @abstractmethod
    def upload_batch(self, results: list[Item], start_idx: int, end_idx: int, job_id: str) -> str:
        """Store one batch's results, durably when it returns; return the path written.

        Called in a worker, on its writing thread, once per range and attempt; again for the same range when
        an attempt is repeated. What it raises is charged to that range. Files that it writes on that thread through
        `skybatch.utils` are made durable for it, many at once, before the engine is told that the range is done.
        """

    @abstractmethod
    def reduce_results(self, job_id: str) -> None:
        """Merge the batch files into the output. Called once all ranges are done, in a process of its own.

        It may be called again after a crash. What it writes to its own path through `skybatch.utils` is
        held back and published atomically after it returns.
        """

    @abstractmethod
    def cleanup(self, job_id: str) -> None:
        """Delete temporary files. Called after the output is published and recorded; maybe more than once."""

    def check(self) -> None:
        """Raise UsageError when the writer's fields make no sense. Called once, before a job exists."""

    def commit_path(self) -> str:
        """The file that says the output is complete: the output itself, or the manifest of a folder.

        What `reduce_results` writes there is held back and published last, on the condition that nobody else did.
        """
        return self.path


class Assembler(ABC):
    """Builds an output out of payloads where copying them one after the other will not do.

    Lives in the engine, on the merging thread; sees every payload once, in order. What it makes of them must not
    depend on where one payload ends and the next begins. Where `commit_path` is a manifest in a folder, files that it
    builds, durably, in `<sink.name>.files/` are put beside the manifest just before that is published.
    """

    @abstractmethod
    def add(self, payload: bytes) -> None:
        """The next batch, as `encode` made it. Raises Restart when what was built so far cannot hold it."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left. The sink is closed, made durable and published by the caller."""


class Restart(Exception):
    """An assembler must begin anew and be told of all payloads beforehand."""


class SegmentWriter(OutputWriter):
    """A writer whose output is a header, the encoded batches in order, and a footer: one file.

    skybatch stores the encoded batches of many ranges in one segment file and merges segments by copying
    bytes, so neither calls nor memory grow with the size of a batch.
    """

    @abstractmethod
    def encode(self, results: list[Item], start_idx: int) -> bytes:
        """One batch as bytes; the first result belongs to item `start_idx`. In a worker, on the mapper's thread.

        Raises ResultError naming item and key for a value that cannot be written.
        """

    @property
    def is_assembled(self) -> bool:
        """Whether `assembler` builds the output; else it is header, payloads and footer, copied as they are.

        Asked often. The default is whether the class has an `assembler` of its own.
        """
        return type(self).assembler is not SegmentWriter.assembler

    def assembler(self, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> Assembler | None:
        """Who builds the output, written to `sink`; None for header, payloads and footer as they are.

        Without a `survey` it begins while payloads are still being made, and may raise Restart on one it did not
        expect; then it is made once more, over an empty sink, with a `survey` that gives all payloads beforehand.
        """
        return None

    def header(self) -> bytes:
        """What the output begins with."""
        return b""

    def footer(self) -> bytes:
        """What the output ends with."""
        return b""

    def upload_batch(self, results: list[Item], start_idx: int, end_idx: int, job_id: str) -> str:
        """Store one batch by hand, in a segment of its own, for `reduce_results`; the engine does without this."""
        from skybatch.formats import batchfiles, segment

        folder, payload = batchfiles.folder(self.path, job_id), self.encode(results, start_idx)
        return segment.store_batch(folder, batchfiles.attempt(), start_idx, end_idx, payload)

    def reduce_results(self, job_id: str, *, partial: bool = False) -> None:
        """Merge by hand what a job left behind, from any machine that sees it; the engine does without this.

        Raises MissingBatches for gaps unless `partial`; OutputExists for an output that is from somewhere else. A
        resume of that job may replace what this wrote.
        """
        from skybatch.formats import by_hand

        by_hand.reduce(self, job_id, partial=partial)

    def cleanup(self, job_id: str) -> None:
        """Delete the job's batch files and segments of this output."""
        from skybatch.formats import batchfiles

        batchfiles.delete(self.path, job_id)
