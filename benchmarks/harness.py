"""What the benchmarks share: processes, data, interleaving, medians, and how a figure is reported."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a benchmark is to run."""

    folder: Path  # for data and jobs, on a real disk; removed afterwards
    repeats: int  # of ours and of the rival, interleaved
    scale: float = 1.0  # of the amount of data; other than 1 only to try a benchmark out


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number and what it should be."""

    benchmark: str
    what: str
    value: float
    unit: str  # "x" is a ratio
    at_most: float | None = None
    at_least: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether it is what it should be."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def line(self) -> str:
        """For people."""
        bound = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        verdict = "met" if self.met else "MISSED"
        details = ", ".join(f"{key} {_short(value)}" for key, value in self.details.items())
        return f"{self.benchmark:11} {self.what}: {self.value:.4g} {self.unit} ({bound}: {verdict})  {details}"

    def json(self) -> str:
        """For programs."""
        return json.dumps({**asdict(self), "met": self.met})


class NotHere(Exception):
    """What a benchmark needs is not installed, and is not to be for so little data."""


RowMaker = Callable[[Path, int], Path]
"""Writes a number of rows to a file."""


class Benchmark(Protocol):
    """A module of this package."""

    def run(self, settings: Settings) -> Iterator[Figure]:
        """Measure; figures as they come. Raises AssertionError when an output is wrong."""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def interleaved(repeats: int, *contenders: Callable[[], Any]) -> list[list[Any]]:
    """Results of each contender, who take turns; what earlier ones wrote is on disk before each starts."""
    results: list[list[Any]] = [[] for _ in contenders]
    for _ in range(repeats):
        for contender, found in zip(contenders, results, strict=True):
            os.sync()
            found.append(contender())
    return results


def median(results: list[Any], key: str = "seconds") -> float:
    """The median of one measured number."""
    return float(statistics.median(result[key] for result in results))


def python(*arguments: str, env: dict[str, str] | None = None, binary: str = sys.executable) -> subprocess.Popen[str]:
    """A fresh Python that sees skybatch and this package."""
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [binary, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root, **(env or {})},
    )


def answer(process: subprocess.Popen[str]) -> Any:
    """Wait for it; the JSON in the last line it printed. Raises RuntimeError with what it said when it failed."""
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{err[-3000:]}")
    return json.loads(out.splitlines()[-1]) if out.strip() else None


def start_job(home: Path, **asked: Any) -> subprocess.Popen[str]:
    """Begin one measured job in a process of its own; see one_job.py."""
    return python("-m", "benchmarks.one_job", json.dumps(asked), env={"SKYBATCH_HOME": str(home)})


def job(home: Path, **asked: Any) -> Any:
    """One measured job; its output is replaced."""
    Path(asked["writer"][1]["path"]).unlink(missing_ok=True)
    return answer(start_job(home, **asked))


def json_lines(input: Path, output: Path) -> dict[str, Any]:
    """Reader and writer of a job from one JSON Lines file to another."""
    return {"reader": ["JsonReader", {"path": str(input)}], "writer": ["JsonWriter", {"path": str(output)}]}


def peak_mb(process: int | str) -> float:
    """The most memory that a process had resident (VmHWM), in MB of 1,000,000 bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0].split()[1]) * 1024 / 1e6 if found else 0.0


def first_batch(note: Path) -> float:
    """When the first batch came, by what the mappers noted (see workloads.Identity), on the monotonic clock."""
    return min(map(float, note.read_text().split()))


def small_rows(path: Path, count: int) -> Path:
    """The rows that dispatch is measured with."""
    with path.open("wb") as file:
        file.writelines(b'{"id":%d,"v":"x3"}\n' % number for number in range(count))
    return path


def large_rows(path: Path, count: int) -> Path:
    """Rows of 290 bytes, the line end included."""
    text = "the quick brown fox jumps over the lazy dog; " * 6
    with path.open("wb") as file:
        for number in range(count):
            head = b'{"id":%d,"text":"' % number
            file.write(head + text[: 290 - len(head) - 3].encode() + b'"}\n')
    return path


def from_tests(name: str) -> Any:
    """A module of the tests' tools.

    No import statement names them: the package that a mapper is in travels with everything that it imports, and the
    mappers of benchmarks are in this one.
    """
    return importlib.import_module(f"tests.tools.{name}")


def digest(*paths: Path) -> str:
    """Of the files one after the other."""
    summed = hashlib.blake2b()
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                summed.update(data)
    return summed.hexdigest()


@contextmanager
def workplace(base: str | None) -> Iterator[Path]:
    """A temporary folder on a real disk. Raises SystemExit where `base` lies in memory."""
    with TemporaryDirectory(prefix="skybatch-bench-", dir=base or "/var/tmp") as folder:
        kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
        if kind in ("tmpfs", "ramfs"):
            raise SystemExit(f"{folder} lies in memory; name a folder on a disk: --folder")
        yield Path(folder)


def wait_quietly(process: subprocess.Popen[str]) -> None:
    """Wait for a process whose output is of no interest. Raises RuntimeError when it failed."""
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{err[-3000:]}")
