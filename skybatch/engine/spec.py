"""What a job is, frozen: everything that must be the same when it is resumed. JSON, `spec.json` in its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from skybatch.engine import credentials
from skybatch.errors import JournalDamaged, UsageError
from skybatch.formats import storage
from skybatch.formats.base import InputReader, OutputWriter

FORMAT = 1
ON_ERROR = ("fail", "skip")


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One `map()` call. Secrets are in it as `${ENV:NAME}` references only."""

    id: str
    name: str
    created_at: float  # seconds since the epoch
    cwd: str  # where workers run
    code: str  # hash of the captured code, the name of its folder
    refs: dict[str, dict[str, Any]]  # how to find mapper, reader, output0, ... in it
    reader: dict[str, Any]  # the reader's fields
    outputs: list[dict[str, Any]]  # the writers' fields
    mapper_args: dict[str, Any]
    batch_size: int
    one_to_one: bool
    concurrency: int
    max_retries: int | dict[str, int]  # one number, or one by class of failure
    batch_timeout_s: float | None
    on_error: str  # one of ON_ERROR; a resume may bring another
    overwrite: bool
    replaces: list[dict[str, Any] | None]  # what stood at each output's place when overwriting was allowed
    run: dict[str, Any]  # pool, executor and workers asked for; a run may choose others
    format: int = FORMAT
    limit: int | None = None  # items from the first on; None: all
    max_failed_items: int | None = None  # more items that fail for good stop the job; a resume may bring another
    max_failed_fraction: float | None = None  # the same as a share of the dataset, above 0 and up to 1
    speculate: bool = False  # idle workers get second copies of the slowest ranges

    def identity(self) -> str:
        """Equal for two calls that ask for the same: input, limit, outputs, mapper's name, batch size; not the code."""
        asked = [
            self.cwd,
            {key: {k: v for k, v in ref.items() if k in ("module", "name")} for key, ref in self.refs.items()},
            self.reader,
            self.outputs,
            self.mapper_args,
            self.batch_size,
            self.one_to_one,
            *([] if self.limit is None else [{"limit": self.limit}]),
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]

    def cut(self, length: int) -> int:
        """How many of the input's `length` items the job maps."""
        return length if self.limit is None else min(length, self.limit)

    def allowed_failures(self, length: int) -> int | None:
        """How many of `length` items may fail for good before the job is stopped; None: any number."""
        allowed = [] if self.max_failed_items is None else [self.max_failed_items]
        if self.max_failed_fraction is not None:
            allowed.append(int(self.max_failed_fraction * length))
        return min(allowed, default=None)

    def save(self, path: Path) -> None:
        """Write it durably; once it is there, the job exists."""
        storage.write_bytes(str(path), orjson.dumps(dataclasses.asdict(self), option=orjson.OPT_INDENT_2))
        os.chmod(path, 0o600)

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        """Read what `save` wrote. Raises JournalDamaged when it is not there or not readable."""
        try:
            values = orjson.loads(path.read_bytes())
            if isinstance(values, dict):
                _refuse_newer(path, values)
            return cls(**values)
        except FileNotFoundError:
            raise JournalDamaged(f"{path}: missing; the job cannot be resumed without it") from None
        except (ValueError, TypeError) as error:
            raise JournalDamaged(f"{path}: not a job's spec of this version: {error}") from None


def _refuse_newer(path: Path, values: dict[str, Any]) -> None:
    unknown = [repr(name) for name in values if name not in {field.name for field in dataclasses.fields(JobSpec)}]
    if values.get("format", FORMAT) > FORMAT:
        what = f"format {values['format']}, this one knows {FORMAT}"
    elif unknown:
        what = f"this one does not know {', '.join(unknown)}"
    else:
        return
    raise JournalDamaged(
        f"{path}: written by a newer skybatch ({what}); nothing was changed; upgrade skybatch, "
        f"then: skybatch resume {values.get('id')}"
    )


def require_dataclass(cls: type, what: str) -> None:
    """Raise UsageError unless `cls`, of a reader or writer, is a dataclass, with all that looks like its fields."""
    if not dataclasses.is_dataclass(cls):
        raise UsageError(
            f"{what} is not a dataclass; workers make it anew from its fields: decorate it with @dataclass"
        )
    known = {field.name for field in dataclasses.fields(cls)}
    for base in cls.__mro__:
        missed = [name for name in _annotated(base) if name not in known]
        if missed and dataclasses.is_dataclass(base) and "__dataclass_fields__" not in vars(base):
            raise UsageError(
                f"{what}: {base.__name__} has fields ({', '.join(missed)}) but no @dataclass of its own: decorate it"
            )


def _annotated(cls: type) -> list[str]:
    """What in the class itself looks like a field."""
    annotations = inspect.get_annotations(cls).items()
    return [name for name, hint in annotations if not name.startswith("_") and "ClassVar" not in str(hint)]


def fields_of(instance: InputReader | OutputWriter, what: str) -> dict[str, Any]:
    """The fields of a reader or writer, as JSON. Raises UsageError naming the field that cannot be kept."""
    kind = type(instance).__name__
    require_dataclass(type(instance), f"{what} {kind}")
    values = {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.init}
    for name, value in values.items():
        values[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            if orjson.loads(orjson.dumps(values[name])) != _as_json(values[name]):
                raise TypeError("it changes when written as JSON")
        except TypeError as error:
            raise UsageError(f"{what} {kind}: field {name!r} cannot be kept in the job's spec: {error}") from None
    credentials.refuse_in_fields(f"{what} {kind}", values)
    try:
        inspect.signature(type(instance)).bind(**values)
    except TypeError as error:
        raise UsageError(
            f"{what} {kind} cannot be made anew from its fields ({', '.join(values)}): {error}; "
            "make every argument a field of the class, decorated with @dataclass"
        ) from None
    return values


def _as_json(value: Any) -> Any:
    return [_as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def absolute_input(path: str | list[str]) -> str | list[str]:
    """An input's path, or several, as kept: local ones absolute; none stays none."""
    if isinstance(path, str):
        return storage.local_path(path) if path and storage.is_local(path) else path
    return [storage.local_path(each) if storage.is_local(each) else each for each in path]


def absolute_output(path: str) -> str:
    """An output's path as it is kept: local ones absolute, a trailing slash kept."""
    return storage.local_path(path) if storage.is_local(path) else path
