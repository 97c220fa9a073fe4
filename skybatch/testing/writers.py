"""The contract of `OutputWriter` and `SegmentWriter` as tests."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from skybatch.engine import spec
from skybatch.errors import ResultError
from skybatch.formats import batchfiles, storage
from skybatch.formats.base import Item, OutputWriter, SegmentWriter
from skybatch.formats.batchfiles import Stretch
from skybatch.formats.segment import SegmentFile
from skybatch.testing import jobs
from skybatch.testing.watching import watched

JOB = "0123456789ab"
Cut = tuple[int, int]  # a batch: first and last item


class WriterSuite:
    """What every writer must do. Inherit it; say how yours is made, results for it, and what it makes of them:

        class TestMyWriter(skybatch.testing.WriterSuite):
            results = [{"n": 1}, {"n": 2}, {"n": 3}]
            expected = b"1\\n2\\n3\\n"
            unwritable = {"n": object()}

            def make(self, tmp_path):
                return MyWriter(str(tmp_path / "numbers.txt"))
    """

    results: Sequence[Item] = ()
    """One result per item, four or more; ten show more. May be a property."""

    expected: Any = None
    """What `read` gives for them: bytes for a file, a dict of bytes by relative path for a folder, else its own."""

    unwritable: Item | None = None
    """One result, a dict, that cannot be written, where there is such a thing."""

    def make(self, tmp_path: Path) -> OutputWriter:
        """A writer whose path lies below `tmp_path`. Called several times per test, with different folders."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make(self, tmp_path) that returns the writer")

    def read(self, path: Path) -> Any:
        """The output, as `expected` has it. Override it for formats that are better compared once parsed."""
        return path.read_bytes() if path.is_file() else contents(path)

    # What the tests share

    @pytest.fixture(autouse=True)
    def _home_of_the_suite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "home"))
        assert len(self.results) >= 4, "a suite shows little with fewer than four `results`"

    @pytest.fixture
    def writer(self, tmp_path: Path) -> OutputWriter:
        """The writer under test."""
        return self._writer(tmp_path, "output")

    def _writer(self, tmp_path: Path, name: str) -> OutputWriter:
        folder = tmp_path / name
        folder.mkdir()
        writer = self.make(folder)
        assert Path(writer.path).is_relative_to(folder), "make(tmp_path) must give the writer a path below tmp_path"
        return writer

    def _cuts(self, size: int) -> list[Cut]:
        count = len(self.results)
        return [(start, min(start + size, count) - 1) for start in range(0, count, size)]

    def _batch(self, start: int, end: int) -> list[Item]:
        """Results of one batch; what a writer does to them is not seen by other tests."""
        return [dict(result) for result in self.results[start : end + 1]]

    def _store(self, writer: OutputWriter, cut: Cut, nonce: str, results: list[Item] | None = None) -> str | None:
        """Store one batch as a worker does; where it was put, unless that is a segment."""
        start, end = cut
        batch = self._batch(start, end) if results is None else results
        if isinstance(writer, SegmentWriter):
            store_segment(writer, batch, cut, nonce)
            return None
        batchfiles.set_attempt(nonce)
        try:
            return writer.upload_batch(batch, start, end, JOB)
        finally:
            batchfiles.set_attempt("0")

    def _write(self, writer: OutputWriter, cuts: Sequence[Cut]) -> None:
        """All batches, merged and cleaned up."""
        for number, cut in enumerate(cuts):
            self._store(writer, cut, f"{number:012x}")
        writer.reduce_results(JOB)
        writer.cleanup(JOB)

    def _check_output(self, writer: OutputWriter, what: str) -> None:
        path = Path(writer.path)
        assert path.exists(), f"{what}: there is nothing at the writer's path"
        found = self.read(path)
        assert found == self.expected, f"{what}: the output is not what was expected"

    # Making one

    def test_it_is_made_again_from_its_fields(self, writer: OutputWriter) -> None:
        """Workers make the writer from its class and its fields, which must be JSON."""
        fresh = made_again(writer)
        fresh.check()
        self._write(fresh, self._cuts(3))
        self._check_output(writer, "made again from its fields")

    def test_making_one_costs_nothing(self, writer: OutputWriter) -> None:
        """Every process makes its own; what costs belongs into the other methods."""
        with watched() as seen:
            made_again(writer)
        assert not seen, f"__init__ and __post_init__ must not do what costs; they did: {', '.join(seen)}"

    def test_check_accepts_it_and_writes_nothing(self, writer: OutputWriter) -> None:
        """`check` comes before there is a job: nothing may appear."""
        assert writer.check() is None  # type: ignore[func-returns-value]
        assert not Path(writer.path).exists(), "check() must not write the output"

    # Storing

    def test_a_batch_is_stored_when_upload_returns(self, writer: OutputWriter) -> None:
        """`upload_batch` returns the path it wrote; what is there is whole, and another process finds it."""
        batchfiles.set_attempt("a" * 12)
        path = writer.upload_batch(self._batch(0, 1), 0, 1, JOB)
        batchfiles.set_attempt("0")
        assert type(path) is str, f"upload_batch() must return the path it wrote, not {path!r}"
        assert os.path.exists(storage.local_path(path)), f"upload_batch() returned {path}, and nothing is there"

    def test_results_are_left_as_they_are(self, writer: OutputWriter) -> None:
        """A job may have several outputs: all get the same results."""
        batch = [dict(result) for result in self.results]
        before = [dict(result) for result in batch]
        self._store(writer, (0, len(batch) - 1), "a" * 12, batch)
        assert all(
            old.keys() == new.keys() and all(old[key] is new[key] for key in old)
            for old, new in zip(before, batch, strict=True)
        ), "the writer changed the results it was given; other outputs of the job would see that"

    def test_the_order_of_uploads_does_not_matter(self, writer: OutputWriter, tmp_path: Path) -> None:
        """Batches are done in any order, by several instances; the output is in the items' order."""
        cuts = self._cuts(2)
        random.Random(1).shuffle(cuts)
        others = [made_again(writer) for _ in range(2)]
        for number, cut in enumerate(cuts):
            self._store(others[number % 2], cut, f"{number:012x}")
        writer.reduce_results(JOB)
        self._check_output(writer, "uploaded in another order")

    def test_attempts_do_not_disturb_each_other(self, writer: OutputWriter) -> None:
        """A range may be stored twice, by attempts that overlap; only those that won are merged.

        Batch files are told apart by `utils.get_batch_path`, and found by `utils.list_batch_files`.
        """
        if isinstance(writer, SegmentWriter):
            pytest.skip("segments are kept apart by skybatch")
        last = len(self.results) - 1
        wrong = self._batch(0, last)[:-3:-1]
        lost = self._store(writer, (0, last), "1" * 12) or ""
        if Path(lost).is_relative_to(batchfiles.folder(writer.path, JOB)):
            self._store(writer, (0, 1), "2" * 12, wrong)  # a mapper need not give the same twice
        self._store(writer, (2, last), "4" * 12)
        self._store(writer, (0, 1), "3" * 12)
        if Path(lost).is_relative_to(batchfiles.folder(writer.path, JOB)):
            self._store(writer, (0, 1), "5" * 12, wrong)
        batchfiles.set_catalogue(JOB, lambda: [Stretch(0, 1, 2, "3" * 12), Stretch(2, last, last - 1, "4" * 12)])
        try:
            writer.reduce_results(JOB)
        finally:
            batchfiles.forget_catalogue(JOB)
        self._check_output(writer, "with attempts that lost")

    def test_what_cannot_be_written_is_that_items_failure(self, writer: OutputWriter) -> None:
        """ResultError with the item's index, from `encode` or `upload_batch`."""
        if self.unwritable is None:
            pytest.skip("to test what cannot be written, set `unwritable` to such a result")
        assert isinstance(self.unwritable, dict), f"`unwritable` must be one result, a dict, not {self.unwritable!r}"
        batch = [*self._batch(0, 0), dict(self.unwritable), *self._batch(2, 2)]
        with pytest.raises(ResultError) as caught:
            self._store(writer, (7, 9), "a" * 12, batch)
        assert caught.value.item == 8, f"ResultError must carry item=8, and has item={caught.value.item}"
        assert "8" in str(caught.value), "the message must name the item"

    def test_encoding_keeps_nothing(self, writer: OutputWriter) -> None:
        """The same batch gives the same bytes, whatever was encoded before and by whom."""
        if not isinstance(writer, SegmentWriter):
            pytest.skip("not a SegmentWriter")
        batch, rest = self._batch(0, 1), self._batch(2, len(self.results) - 1)
        first = writer.encode(batch, 0)
        assert type(first) is bytes, f"encode() must return bytes, not {type(first).__name__}"
        writer.encode(rest, 2)
        assert writer.encode(batch, 0) == first, "encode() gave other bytes for the same batch"
        assert made_again(writer).encode(batch, 0) == first, "another instance encodes the same batch otherwise"

    def test_whether_it_is_assembled_is_told_beforehand(self, writer: OutputWriter, tmp_path: Path) -> None:
        """`is_assembled` says whether `assembler` gives one."""
        if not isinstance(writer, SegmentWriter):
            pytest.skip("not a SegmentWriter")
        with open(tmp_path / "sink", "w+b") as sink:
            given = writer.assembler(sink, None) is not None
        assert writer.is_assembled == given, f"is_assembled is {writer.is_assembled}, and assembler() says otherwise"

    # The output

    def test_batches_cut_otherwise_give_the_same_bytes(self, tmp_path: Path) -> None:
        """Bytes depend on results alone, never on batches, which retries split."""
        outputs = []
        for size in (len(self.results), 1, 3):
            writer = self._writer(tmp_path, f"cut{size}")
            self._write(writer, self._cuts(size))
            self._check_output(writer, f"in batches of {size}")
            outputs.append(contents(tmp_path / f"cut{size}"))
        assert outputs[0] == outputs[1] == outputs[2], "the output's bytes depend on how results were cut into batches"

    def test_any_number_of_results_per_item(self, tmp_path: Path) -> None:
        """With `accepts_any_count` a batch may have no results, or more than items."""
        writer = self._writer(tmp_path, "output")
        if not writer.accepts_any_count:
            pytest.skip("needs one result per item")
        self._store(writer, (0, 1), "1" * 12, [])
        self._store(writer, (2, 2), "2" * 12, self._batch(0, len(self.results) - 1))
        self._store(writer, (3, 5), "3" * 12, [])
        writer.reduce_results(JOB)
        self._check_output(writer, "with all results in one batch, and none in the others")

    def test_reducing_twice_gives_the_same_bytes(self, writer: OutputWriter, tmp_path: Path) -> None:
        """A crash may come after the reduce and before that is recorded."""
        for number, cut in enumerate(self._cuts(2)):
            self._store(writer, cut, f"{number:012x}")
        writer.reduce_results(JOB)
        self._check_output(writer, "reduced")
        first = output_of(writer)
        made_again(writer).reduce_results(JOB)
        assert output_of(writer) == first, "reduce_results() gave another output the second time"

    def test_cleanup_takes_what_is_temporary_and_no_more(self, writer: OutputWriter) -> None:
        """`cleanup` may be called again, in another process, and leaves the output alone."""
        for number, cut in enumerate(self._cuts(2)):
            self._store(writer, cut, f"{number:012x}")
        writer.reduce_results(JOB)
        before = output_of(writer)
        for _ in range(2):
            made_again(writer).cleanup(JOB)
            assert output_of(writer) == before, "cleanup() changed the output"
        left = batchfiles.folder(writer.path, JOB)
        assert not os.path.exists(left), f"cleanup() left {left}; utils.delete_batch_files removes it"

    def test_a_job_with_a_death_gives_what_an_undisturbed_one_gives(self, tmp_path: Path) -> None:
        """Two workers, one of which is killed, against the inline executor."""
        outputs = []
        for executor, dies in (("inline", False), ("local", True)):
            writer = self._writer(tmp_path, executor)
            folder = tmp_path / f"{executor}.data"
            folder.mkdir()
            job = jobs.run(writer, self.results, folder, executor=executor, dies=dies, size=2)
            assert job.state == "cleaned"
            assert (folder / "results.pickle.died").exists() == dies
            self._check_output(writer, f"a job ({executor})")
            outputs.append(contents(tmp_path / executor))
        assert outputs[0] == outputs[1], "the job in which a worker died has another output than the undisturbed one"


W = TypeVar("W", bound=OutputWriter)


def made_again(writer: W) -> W:
    """The writer as workers make it: from its fields, by way of JSON."""
    return type(writer)(**json.loads(json.dumps(spec.fields_of(writer, "writer"))))


def store_segment(writer: SegmentWriter, batch: list[Item], cut: Cut, nonce: str) -> None:
    """One batch in a segment of its own, where a worker would put it."""
    folder = Path(batchfiles.folder(writer.path, JOB))
    storage.make_folders(str(folder))
    payload = writer.encode(batch, cut[0])
    segment = SegmentFile(folder, nonce)
    segment.append(*cut, 1, payload)
    segment.seal()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path; temporary ones aside."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: data for name, data in sorted(found.items()) if batchfiles.TEMP_NAME not in name.split("/")}


def output_of(writer: OutputWriter) -> Any:
    """The output's bytes."""
    path = Path(writer.path)
    return path.read_bytes() if path.is_file() else contents(path)
