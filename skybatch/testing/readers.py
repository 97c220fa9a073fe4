"""The contract of `InputReader` and `WindowReader` as tests."""

from __future__ import annotations

import dataclasses
import json
import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from skybatch.engine import spec
from skybatch.errors import RecordError, UsageError
from skybatch.formats import storage
from skybatch.formats.base import InputReader, Item, WindowReader
from skybatch.testing.elsewhere import read_elsewhere
from skybatch.testing.watching import watched

T = TypeVar("T")
ALL_RANGES_UP_TO = 12
"""With more items than this, ranges are tried at both ends and around the middle only."""


class ReaderSuite:
    """What every reader must do. Inherit it; say how yours is made, and the items it has:

        class TestMyReader(skybatch.testing.ReaderSuite):
            expected = [{"n": 1}, {"n": 2}, {"n": 3}]

            def make(self, tmp_path):
                (tmp_path / "numbers.txt").write_text("1 2 3")
                return MyReader(str(tmp_path / "numbers.txt"))

    The other methods may be overridden: where the suite cannot know, it skips a test and says which method it wants.
    """

    expected: Sequence[Item] = ()
    """All items, three or more; ten show more. May be a property."""

    def make(self, tmp_path: Path) -> InputReader:
        """The reader, its input written below `tmp_path`. Called once per test."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make(self, tmp_path) that returns the reader")

    def comparable(self, item: Item) -> Any:
        """An item as something that `==` compares, where items hold what it does not (images, arrays)."""
        return item

    def missing(self, tmp_path: Path) -> InputReader | None:
        """A reader whose input is not there; None for readers that need no input."""
        reader = self.make(tmp_path)
        if not isinstance(reader.path, str) or not reader.path:
            return None
        return dataclasses.replace(reader, path=str(tmp_path / "not" / "there"))

    def change(self, tmp_path: Path) -> None:
        """Change the input that `make` wrote, such that fingerprint or length must tell."""
        pytest.skip("to test that a changed input is noticed, define change(self, tmp_path)")

    def malformed(self, tmp_path: Path) -> tuple[InputReader, int]:
        """A reader with one record that cannot be read, and that item's index: `return MyReader(path), 1`."""
        pytest.skip("to test what a malformed record does, define malformed(self, tmp_path)")

    # What the tests share

    @pytest.fixture(autouse=True)
    def _home_of_the_suite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def reader(self, tmp_path: Path) -> InputReader:
        """The reader under test."""
        assert len(self.expected) >= 3, "a suite shows little with fewer than three `expected` items"
        return self.make(tmp_path)

    @pytest.fixture
    def cache(self, tmp_path: Path) -> str:
        """A `cache_dir`."""
        folder = tmp_path / "cache"
        folder.mkdir()
        return str(folder)

    def check_items(self, got: Any, start: int, end: int, call: str) -> None:
        """Assert that `got` is what items `start` to `end` must be."""
        assert type(got) is list, f"{call} must return a list of items, not {type(got).__name__}"
        count = end - start + 1
        assert len(got) == count, f"{call} returned {len(got)} items instead of {count}: both ends are included"
        for index, item in enumerate(got, start):
            assert type(item) is dict, f"{call}: an item must be a dict; item {index} is {item!r}"
            same = self.comparable(item) == self.comparable(self.expected[index])
            assert same, f"{call}: item {index} is {item!r}, and `expected` has {self.expected[index]!r}"

    def _check_batch(self, reader: InputReader, start: int, end: int, cache: str) -> None:
        got = reader.download_batch(start, end, cache)
        self.check_items(got, start, end, f"download_batch({start}, {end})")

    # Making one

    def test_it_is_made_again_from_its_fields(self, reader: InputReader, cache: str) -> None:
        """Workers make the reader from its class and its fields, which must be JSON."""
        self._check_batch(made_again(reader), 0, len(self.expected) - 1, cache)

    def test_making_one_costs_nothing(self, reader: InputReader) -> None:
        """Every process makes its own; opening, listing and connecting belong into the other methods."""
        with watched() as seen:
            made_again(reader)
        assert not seen, f"__init__ and __post_init__ must not do what costs; they did: {', '.join(seen)}"

    def test_check_accepts_the_input(self, reader: InputReader) -> None:
        """`check` is silent when all is well, and may be called on an instance that reads afterwards."""
        assert reader.check() is None  # type: ignore[func-returns-value]
        assert len(reader) == len(self.expected)

    def test_check_refuses_an_input_that_is_not_there(self, tmp_path: Path) -> None:
        """A job that cannot read must not begin."""
        reader = self.missing(tmp_path)
        if reader is None:
            pytest.skip("this reader needs no input")
        try:
            reader.check()
        except UsageError as error:
            assert reader.path in str(error), "the message must name the path that is missing"
            return
        except Exception as error:
            pytest.fail(f"check() must raise skybatch.errors.UsageError, or InputMissing, not {error!r}")
        pytest.fail("check() must raise skybatch.errors.InputMissing when the input is not there")

    # Reading

    def test_the_length_is_that_of_the_items(self, reader: InputReader) -> None:
        """`len()` is the number of items, each time it is asked for."""
        assert [len(reader), len(reader)] == [len(self.expected)] * 2, "len() is not the number of `expected` items"

    def test_every_range_has_its_items(self, reader: InputReader, cache: str) -> None:
        """`download_batch` returns a list of dicts: the items from `start_idx` to `end_idx`, both included."""
        for start, end in ranges(len(self.expected)):
            self._check_batch(reader, start, end, cache)

    def test_ranges_are_read_in_any_order_and_again(self, reader: InputReader, cache: str) -> None:
        """Workers get ranges from anywhere, and again when something failed."""
        asked = 2 * ranges(len(self.expected))
        random.Random(0).shuffle(asked)
        for start, end in asked:
            self._check_batch(reader, start, end, cache)

    def test_items_belong_to_the_mapper(self, reader: InputReader, cache: str) -> None:
        """A mapper may change its items; what is read again must not show it."""
        last = len(self.expected) - 1
        for item in reader.download_batch(0, last, cache):
            item.clear()
        self._check_batch(reader, 0, last, cache)

    def test_a_new_instance_reads_without_being_asked_its_length(self, reader: InputReader, cache: str) -> None:
        """Workers do not call `len()` before they read."""
        last = len(self.expected) - 1
        self._check_batch(made_again(reader), last, last, cache)

    def test_the_cache_folder_may_be_filled_by_others(self, reader: InputReader, cache: str) -> None:
        """Workers on one machine share `cache_dir`, one after the other and at once."""
        last = len(self.expected) - 1
        several = [made_again(reader) for _ in range(3)]
        at_once([lambda each=each: self._check_batch(each, 0, last, cache) for each in several])  # type: ignore[misc]
        self._check_batch(made_again(reader), 0, last, cache)

    def test_it_is_read_on_another_thread_than_made_it(self, reader: InputReader, cache: str) -> None:
        """The length is asked for on one thread and batches are read on another, in the inline executor on one object.

        SQLite connections and event loops mind; open them where they are used.
        """
        len(reader)
        for start, end in ((0, 0), (1, len(self.expected) - 1)):
            at_once([lambda start=start, end=end: self._check_batch(reader, start, end, cache)])  # type: ignore[misc]

    def test_another_process_reads_the_same(self, reader: InputReader, tmp_path: Path) -> None:
        """The class travels to workers as source, or by its module's name; the fields as JSON; an index as files."""
        index = None
        if isinstance(reader, WindowReader):
            index = _folder(tmp_path / "index")
            reader.build_index(str(index))
        items = read_elsewhere(reader, index, tmp_path / "elsewhere", size=2)
        self.check_items(items, 0, len(self.expected) - 1, "another process")

    def test_a_malformed_record_is_that_items_failure(self, tmp_path: Path, cache: str) -> None:
        """RecordError with the item's index; the items around it can be read."""
        reader, index = _checked(self.malformed(tmp_path))
        with pytest.raises(RecordError) as caught:
            reader.download_batch(0, len(reader) - 1, cache)
        assert caught.value.item == index, f"RecordError must carry item={index}, and has item={caught.value.item}"
        for near in (index - 1, index + 1):
            if 0 <= near < len(reader):
                assert len(reader.download_batch(near, near, cache)) == 1

    # Changes

    def test_the_fingerprint_is_json_and_stays(self, reader: InputReader, cache: str) -> None:
        """It is kept in the job's journal, and compared when the job is resumed."""
        first = reader.fingerprint()
        assert type(first) is dict, f"fingerprint() must return a dict, not {type(first).__name__}"
        assert json.loads(json.dumps(first, allow_nan=False)) == first, "fingerprint() must be JSON with str keys"
        self._check_batch(reader, 0, 0, cache)
        assert reader.fingerprint() == first, "fingerprint() is another one after reading"
        assert made_again(reader).fingerprint() == first, "a new instance has another fingerprint() of the same input"

    def test_a_changed_input_is_noticed(self, reader: InputReader, tmp_path: Path) -> None:
        """Length or fingerprint tell, so that a job is not resumed over other items."""
        before = (len(reader), reader.fingerprint())
        self.change(tmp_path)
        fresh = made_again(reader)
        after = (len(fresh), fresh.fingerprint())
        assert after != before, "neither len() nor fingerprint() tells that the input changed"

    # WindowReader

    @pytest.fixture
    def windows(self, reader: InputReader, tmp_path: Path) -> WindowReader:
        """A WindowReader whose index another instance built."""
        if not isinstance(reader, WindowReader):
            pytest.skip("not a WindowReader")
        index = str(_folder(tmp_path / "index"))
        count = reader.build_index(index)
        assert count == len(self.expected), f"build_index() returned {count} instead of the number of items"
        assert reader.build_index(index) == count, "build_index() must work over what a run that was killed left behind"
        fresh = made_again(reader)
        fresh.open_index(index)
        return fresh

    def test_windows_have_the_same_items(self, windows: WindowReader) -> None:
        """`decode` cuts any range out of what `read_window` read, whatever `window_end` makes of it."""
        for size in (1, 2, 3, len(self.expected)):
            for start, end in ranges(len(self.expected)):
                self._check_windows(windows, start, end, size)

    def _check_windows(self, reader: WindowReader, start: int, end: int, size: int) -> None:
        at = start
        while at <= end:
            reach = reader.window_end(at, end)
            assert at <= reach <= end, f"window_end({at}, {end}) must be from {at} to {end}, not {reach}"
            window = reader.read_window(at, reach)
            for first in range(at, reach + 1, size):
                last = min(first + size - 1, reach)
                got = reader.decode(window, at, first, last)
                self.check_items(got, first, last, f"decode(read_window({at}, {reach}), {at}, {first}, {last})")
            at = reach + 1

    def test_a_window_may_be_longer_than_window_end_says(self, windows: WindowReader) -> None:
        """A batch is read whole, even when it is larger than a window should be."""
        last = len(self.expected) - 1
        got = windows.decode(windows.read_window(0, last), 0, 0, last)
        self.check_items(got, 0, last, f"decode(read_window(0, {last}), 0, 0, {last})")

    def test_windows_are_read_ahead_of_those_being_decoded(self, windows: WindowReader) -> None:
        """`read_window` runs on the reading thread while `decode` runs on the mapper's."""
        found: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        last = len(self.expected) - 1

        def read_ahead() -> None:
            for at in range(last + 1):
                found.put((at, windows.read_window(at, last)))

        at_once([read_ahead])
        for _ in range(last + 1):
            at, window = found.get_nowait()
            self.check_items(windows.decode(window, at, at, last), at, last, f"decode(window, {at}, {at}, {last})")

    def test_decoding_twice_gives_new_items(self, windows: WindowReader) -> None:
        """A mapper may change its items; a second decode of the window must not show it."""
        last = len(self.expected) - 1
        window = windows.read_window(0, last)
        for item in windows.decode(window, 0, 0, last):
            item.clear()
        self.check_items(windows.decode(window, 0, 0, last), 0, last, f"decode(window, 0, 0, {last}) again")


def _checked(made: object) -> tuple[InputReader, int]:
    match made:
        case (InputReader() as reader, int(index)):
            count = len(reader)
            assert 0 <= index < count, f"malformed() returned the index {index}; the reader has {count} items"
            return reader, index
    pytest.fail(f"malformed() must return a tuple (reader, index of the item that cannot be read), not {made!r}")


R = TypeVar("R", bound=InputReader)


def made_again(reader: R) -> R:
    """The reader as workers make it: from its fields, by way of JSON."""
    return type(reader)(**json.loads(json.dumps(spec.fields_of(reader, "reader"))))


def ranges(count: int) -> list[tuple[int, int]]:
    """Ranges to try of `count` items: all, or with many items those where readers go wrong."""
    places: Iterator[int] = iter(range(count))
    if count > ALL_RANGES_UP_TO:
        middle = count // 2
        places = (at for at in range(count) if at < 3 or at >= count - 3 or abs(at - middle) < 2)
    at = list(places)
    return [(start, end) for start in at for end in at if start <= end]


def at_once(actions: Sequence[Callable[[], object]]) -> None:
    """Run each on a thread of its own, all at the same time; raise the first exception of any."""
    errors: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _folder(path: Path) -> Path:
    storage.make_folders(str(path))
    return path
