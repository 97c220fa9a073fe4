"""Formats of users' scripts, the faster kinds too, reach workers without being installed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.api.scripts import command, run, run_well, write

WORDS = [f"word{number}" for number in range(500)]

READER = """
    from array import array
    from dataclasses import dataclass
    from pathlib import Path

    from skybatch.io_formats import WindowReader


    @dataclass
    class LinesReader(WindowReader):
        key: str = "line"

        def build_index(self, folder):
            self._offsets, at = array("Q", [0]), 0
            for line in open_lines(self.path):
                at += len(line)
                self._offsets.append(at)
            Path(folder, "offsets").write_bytes(self._offsets.tobytes())
            return len(self._offsets) - 1

        def open_index(self, folder):
            self._offsets = array("Q", Path(folder, "offsets").read_bytes())

        def window_end(self, start, end):
            return min(end, start + 20)

        def read_window(self, start, end):
            return Path(self.path).read_bytes()[self._offsets[start] : self._offsets[end + 1]]

        def decode(self, window, first, start, end):
            lines = window.split(b"\\n")[start - first : end - first + 1]
            return [{self.key: line.decode()} for line in lines]


    def open_lines(path):
        return Path(path).read_bytes().splitlines(keepends=True)
"""

WRITER = """
    import json
    import zipfile
    from dataclasses import dataclass

    from skybatch.io_formats import Assembler, SegmentWriter


    @dataclass
    class ZipWriter(SegmentWriter):
        column: str = "line"

        def encode(self, results, start_idx):
            rows = enumerate(results, start_idx)
            return b"".join(json.dumps([NAME % item, row[self.column]]).encode() + b"\\n" for item, row in rows)

        def assembler(self, sink, survey):
            return Zip(sink)


    NAME = "%08d.txt"


    class Zip(Assembler):
        def __init__(self, sink):
            self._sink, self._archive = sink, None

        def add(self, payload):
            for line in payload.splitlines():
                name, text = json.loads(line)
                self._open().writestr(zipfile.ZipInfo(name), text)

        def finish(self):
            self._open().close()

        def _open(self):
            if self._archive is None:
                self._archive = zipfile.ZipFile(self._sink, "w")
            return self._archive
"""

REST = """
    import os
    import signal

    import skybatch


    def shout(batch):
        if batch[0]["line"] == "word200" and not os.path.exists("struck"):
            open("struck", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if batch[0]["line"] > "word4" and os.path.exists("broken"):
            raise ValueError("not yet")
        return [{"line": item["line"].upper()} for item in batch]


    if __name__ == "__main__":
        outputs = [ZipWriter("out/words.zip"), skybatch.JsonWriter("out/words.jsonl")]
        skybatch.Dataset(LinesReader("words.txt")).map(shout, batch_size=8, workers=2, max_retries=0, output=outputs)
"""


def beside(folder: Path) -> Path:
    """A script whose formats lie in a module beside it."""
    write(folder, "my_formats.py", READER + WRITER)
    return write(folder, "script.py", "    from my_formats import LinesReader, ZipWriter\n" + REST)


def within(folder: Path) -> Path:
    """A script with its formats."""
    return write(folder, "script.py", READER + WRITER + REST)


def check(folder: Path) -> None:
    expected = [word.upper() for word in WORDS]
    lines = (folder / "out" / "words.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == expected
    with zipfile.ZipFile(folder / "out" / "words.zip") as archive:
        assert archive.namelist() == [f"{number:08d}.txt" for number in range(500)]
        assert [archive.read(name).decode() for name in archive.namelist()] == expected
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["words.jsonl", "words.zip"]


@pytest.mark.parametrize("place", [pytest.param(within, marks=pytest.mark.full), beside])
def test_a_window_reader_and_an_assembled_output_of_a_script(place: object, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    assert callable(place)
    run_well(place(tmp_path))  # a worker is killed on the way
    assert (tmp_path / "struck").exists()
    check(tmp_path)


@pytest.mark.full
def test_they_are_there_when_the_job_is_resumed_elsewhere_and_the_script_is_gone(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    script = beside(tmp_path)
    (tmp_path / "broken").touch()
    assert run(script).returncode == 1
    (tmp_path / "broken").unlink()
    script.unlink()
    (tmp_path / "my_formats.py").unlink()
    (tmp_path / "elsewhere").mkdir()
    resumed = command("resume", cwd=tmp_path / "elsewhere")
    assert resumed.returncode == 0, resumed.stderr
    check(tmp_path)
