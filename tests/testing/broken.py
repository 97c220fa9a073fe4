"""Readers and writers that break one rule each, under the suites. Run by test_suites.py, never collected by itself."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from skybatch import InputReader, OutputWriter, utils
from skybatch.errors import InputMissing, ResultError
from skybatch.io_formats import SegmentWriter, WindowReader
from skybatch.testing import ReaderSuite, WriterSuite

Items = list[dict[str, Any]]


@dataclass
class Numbers(InputReader):
    """A file of numbers, as it should be read."""

    def check(self) -> None:
        if not os.path.exists(self.path):
            raise InputMissing(f"input {self.path}: does not exist")

    def fingerprint(self) -> dict[str, Any]:
        return {"size": os.path.getsize(self.path)}

    def _numbers(self) -> list[int]:
        return json.loads(Path(self.path).read_text())

    def __len__(self) -> int:
        return len(self._numbers())

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Items:
        return [{"n": n} for n in self._numbers()[start_idx : end_idx + 1]]


class OfNumbers(ReaderSuite):
    expected: ClassVar = [{"n": n} for n in range(6)]
    reader_class: ClassVar[type] = Numbers

    def make(self, tmp_path: Path) -> Any:
        path = tmp_path / "numbers.json"
        path.write_text("[0, 1, 2, 3, 4, 5]")
        return self.reader_class(str(path))

    def change(self, tmp_path: Path) -> None:
        (tmp_path / "numbers.json").write_text("[0, 1, 2, 3, 4, 55]")


class TestGood(OfNumbers):
    pass


class TestExclusive(OfNumbers):
    """Fails: test_every_range_has_its_items."""

    @dataclass
    class reader_class(Numbers):
        def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Items:
            return super().download_batch(start_idx, end_idx - 1, cache_dir)


class TestEager(OfNumbers):
    """Fails: test_making_one_costs_nothing."""

    @dataclass
    class reader_class(Numbers):
        def __post_init__(self) -> None:
            self.all = self._numbers() if os.path.exists(self.path) else []


class TestUnchecked(OfNumbers):
    """Fails: test_check_refuses_an_input_that_is_not_there."""

    @dataclass
    class reader_class(Numbers):
        def check(self) -> None:
            pass


class TestBlind(OfNumbers):
    """Fails: test_a_changed_input_is_noticed."""

    @dataclass
    class reader_class(Numbers):
        def fingerprint(self) -> dict[str, Any]:
            return {}


class TestRestless(OfNumbers):
    """Fails: test_the_fingerprint_is_json_and_stays."""

    @dataclass
    class reader_class(Numbers):
        def fingerprint(self) -> dict[str, Any]:
            return {"asked at": os.urandom(8).hex()}


class TestSharing(OfNumbers):
    """Fails: test_items_belong_to_the_mapper."""

    @dataclass
    class reader_class(Numbers):
        def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Items:
            if not hasattr(self, "items"):
                self.items = super().download_batch(0, len(self) - 1, cache_dir)
            return self.items[start_idx : end_idx + 1]


class TestWithState(OfNumbers):
    """Fails: test_it_is_made_again_from_its_fields."""

    @dataclass
    class reader_class(Numbers):
        connection: Any = field(default_factory=object)


class TestForward(OfNumbers):
    """Fails: test_ranges_are_read_in_any_order_and_again."""

    @dataclass
    class reader_class(Numbers):
        def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Items:
            self.at = max(getattr(self, "at", 0), start_idx)
            return super().download_batch(max(start_idx, self.at), end_idx, cache_dir)


class TestBoundToAThread(OfNumbers):
    """Fails: test_it_is_read_on_another_thread_than_made_it."""

    @dataclass
    class reader_class(Numbers):
        def _numbers(self) -> list[int]:
            if not hasattr(self, "connection"):
                self.connection = sqlite3.connect(":memory:")
            self.connection.execute("select 1")
            return super()._numbers()

        def __del__(self) -> None:
            if hasattr(self, "connection"):
                self.connection.close()


class TestNeedsItsLength(OfNumbers):
    """Fails: test_a_new_instance_reads_without_being_asked_its_length."""

    @dataclass
    class reader_class(Numbers):
        def __len__(self) -> int:
            self.numbers = self._numbers()
            return len(self.numbers)

        def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Items:
            return [{"n": n} for n in self.numbers[start_idx : end_idx + 1]]


class TestLocalGlobal(OfNumbers):
    """Fails: test_another_process_reads_the_same."""

    @dataclass
    class reader_class(Numbers):
        def __post_init__(self) -> None:
            os.environ.setdefault("READER_OF_PID", str(os.getpid()))

        def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Items:
            offset = os.environ["READER_OF_PID"] != str(os.getpid())
            return [{"n": item["n"] + offset} for item in super().download_batch(start_idx, end_idx, cache_dir)]


@dataclass
class Windows(WindowReader, Numbers):
    def build_index(self, folder: str) -> int:
        Path(folder, "numbers").write_text(Path(self.path).read_text())
        return len(self._numbers())

    def open_index(self, folder: str) -> None:
        self.index = json.loads(Path(folder, "numbers").read_text())

    def window_end(self, start: int, end: int) -> int:
        return min(end, start + 1)

    def read_window(self, start: int, end: int) -> Any:
        return self.index[start : end + 1]

    def decode(self, window: Any, first: int, start: int, end: int) -> Items:
        return [{"n": n} for n in window[start - first : end - first + 1]]


class TestGoodWindows(OfNumbers):
    reader_class = Windows


class TestWindowsPastTheEnd(OfNumbers):
    """Fails: test_windows_have_the_same_items."""

    @dataclass
    class reader_class(Windows):
        def window_end(self, start: int, end: int) -> int:
            return start + 3


class TestWindowsFromTheFirst(OfNumbers):
    """Fails: test_windows_are_read_ahead_of_those_being_decoded."""

    @dataclass
    class reader_class(Windows):
        def read_window(self, start: int, end: int) -> Any:
            self.window = super().read_window(start, end)
            return None

        def decode(self, window: Any, first: int, start: int, end: int) -> Items:
            return super().decode(self.window, first, start, end)


@dataclass
class Lines(OutputWriter):
    """A number per line, as it should be written."""

    def text(self, results: Items, start: int) -> bytes:
        for index, result in enumerate(results, start):
            if not isinstance(result["n"], int):
                raise ResultError(f"item {index}: not a number", item=index)
        return b"".join(b"%d\n" % result["n"] for result in results)

    def upload_batch(self, results: Items, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.upload_bytes_to_cloud(self.text(results, start_idx), path)
        return path

    def reduce_results(self, job_id: str) -> None:
        files = utils.list_batch_files(self.path, job_id)
        utils.upload_bytes_to_cloud(b"".join(Path(file).read_bytes() for file in files), self.path)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


class OfLines(WriterSuite):
    results: ClassVar = [{"n": n} for n in range(6)]
    expected = b"0\n1\n2\n3\n4\n5\n"
    unwritable: ClassVar = {"n": "many"}
    writer_class: ClassVar[type] = Lines

    def make(self, tmp_path: Path) -> Any:
        return self.writer_class(str(tmp_path / "out.txt"))


class TestGoodWriter(OfLines):
    pass


class TestUnfenced(OfLines):
    """Fails: test_attempts_do_not_disturb_each_other."""

    @dataclass
    class writer_class(Lines):
        def upload_batch(self, results: Items, start_idx: int, end_idx: int, job_id: str) -> str:
            path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
            path = f"{os.path.dirname(path)}/{start_idx:012d}-{end_idx:012d}-0.jsonl"
            utils.upload_bytes_to_cloud(self.text(results, start_idx), path)
            return path

        def reduce_results(self, job_id: str) -> None:
            folder = Path(utils.get_batch_path(self.path, 0, 0, job_id)).parent
            data = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
            utils.upload_bytes_to_cloud(data, self.path)


class TestNumbersItsBatches(OfLines):
    """Fails: test_batches_cut_otherwise_give_the_same_bytes."""

    expected: ClassVar = [0, 1, 2, 3, 4, 5]

    def read(self, path: Path) -> list[int]:
        return [int(line) for line in path.read_text().splitlines() if not line.startswith("#")]

    @dataclass
    class writer_class(Lines):
        def text(self, results: Items, start: int) -> bytes:
            return b"# a batch\n" + super().text(results, start)


class TestAppends(OfLines):
    """Fails: test_reducing_twice_gives_the_same_bytes."""

    @dataclass
    class writer_class(Lines):
        def reduce_results(self, job_id: str) -> None:
            files = utils.list_batch_files(self.path, job_id)
            with open(self.path, "ab") as file:
                file.writelines(Path(name).read_bytes() for name in files)


class TestTidiesTooMuch(OfLines):
    """Fails: test_cleanup_takes_what_is_temporary_and_no_more."""

    @dataclass
    class writer_class(Lines):
        def cleanup(self, job_id: str) -> None:
            super().cleanup(job_id)
            Path(self.path).unlink(missing_ok=True)


class TestTakesAnything(OfLines):
    """Fails: test_what_cannot_be_written_is_that_items_failure."""

    @dataclass
    class writer_class(Lines):
        def text(self, results: Items, start: int) -> bytes:
            return b"".join(f"{result['n']}\n".encode() for result in results)


class TestChangesResults(OfLines):
    """Fails: test_results_are_left_as_they_are."""

    @dataclass
    class writer_class(Lines):
        def text(self, results: Items, start: int) -> bytes:
            text = super().text(results, start)
            for result in results:
                result["n"] = str(result["n"])
            return text


class TestUnordered(OfLines):
    """Fails: test_the_order_of_uploads_does_not_matter."""

    @dataclass
    class writer_class(Lines):
        def reduce_results(self, job_id: str) -> None:
            files = sorted(utils.list_batch_files(self.path, job_id), key=lambda file: file.split("-")[-1])
            utils.upload_bytes_to_cloud(b"".join(Path(file).read_bytes() for file in files), self.path)


@dataclass
class Segments(SegmentWriter):
    def encode(self, results: Items, start_idx: int) -> bytes:
        return Lines.text(self, results, start_idx)  # type: ignore[arg-type]


class TestGoodSegments(OfLines):
    writer_class = Segments


class TestSaysItIsAssembled(OfLines):
    """Fails: test_whether_it_is_assembled_is_told_beforehand."""

    @dataclass
    class writer_class(Segments):
        is_assembled = True


class TestHeadsEachBatch(OfLines):
    """Fails: test_encoding_keeps_nothing."""

    @dataclass
    class writer_class(Segments):
        def encode(self, results: Items, start_idx: int) -> bytes:
            self.calls = getattr(self, "calls", 0) + 1
            return b"%d calls\n" % self.calls + super().encode(results, start_idx)
