"""skybatch: an embedded batch engine. Every name here is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skybatch import io_formats, registry, utils
    from skybatch.engine.dataset import Dataset
    from skybatch.engine.job import Job, jobs, resume, retry
    from skybatch.errors import JobFailed, Paused, SkybatchError
    from skybatch.hookspecs import hookimpl
    from skybatch.io_formats import (
        CounterReader,
        CsvReader,
        CsvWriter,
        FilesReader,
        ImageReader,
        ImageWriter,
        InputReader,
        JsonReader,
        JsonWriter,
        OutputWriter,
        ParquetReader,
        ParquetWriter,
        TextReader,
        TextWriter,
        YamlWriter,
    )
    from skybatch.worker.mapper import remote_function
    from skybatch.worker.runtime import Context, context, load, save_results

__version__ = "0.1.0"

__all__ = [
    "Context",
    "CounterReader",
    "CsvReader",
    "CsvWriter",
    "Dataset",
    "FilesReader",
    "ImageReader",
    "ImageWriter",
    "InputReader",
    "Job",
    "JobFailed",
    "JsonReader",
    "JsonWriter",
    "OutputWriter",
    "ParquetReader",
    "ParquetWriter",
    "Paused",
    "SkybatchError",
    "TextReader",
    "TextWriter",
    "YamlWriter",
    "context",
    "hookimpl",
    "io_formats",
    "jobs",
    "load",
    "registry",
    "remote_function",
    "resume",
    "retry",
    "save_results",
    "utils",
]

_HOMES = {
    "skybatch.engine.dataset": ("Dataset",),
    "skybatch.engine.job": ("Job", "jobs", "resume", "retry"),
    "skybatch.errors": ("JobFailed", "Paused", "SkybatchError"),
    "skybatch.hookspecs": ("hookimpl",),
    "skybatch.io_formats": (
        "CounterReader",
        "CsvReader",
        "CsvWriter",
        "FilesReader",
        "ImageReader",
        "ImageWriter",
        "InputReader",
        "JsonReader",
        "JsonWriter",
        "OutputWriter",
        "ParquetReader",
        "ParquetWriter",
        "TextReader",
        "TextWriter",
        "YamlWriter",
    ),
    "skybatch.worker.mapper": ("remote_function",),
    "skybatch.worker.runtime": ("Context", "context", "load", "save_results"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'skybatch' has no attribute {name!r}")
    from skybatch.worker import stand_ins

    value = stand_ins.named(_HOME_OF[name], name) if name in _HOME_OF else stand_ins.module(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
