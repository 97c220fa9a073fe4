"""Job files: what `Dataset.map` takes, written as YAML; paths in it are relative to the file.

input: {type: json, path: prompts.jsonl}   # a registered name, or my_formats.py:MyReader, with its fields
mapper: enrich.py:summarise                # or package.module:name
mapper_args: {style: short}
batch_size: 32
output:
  - {type: json, path: out/answers.jsonl, column: [id, answer]}
pool: local                                # or a pool's name, or an inline mapping as in pool.yaml
on_error: skip
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from skybatch import plugins
from skybatch.engine.pools import Pool, get, parse_pool
from skybatch.engine.retries import budgets
from skybatch.engine.settings import check_failure_limits
from skybatch.engine.spec import ON_ERROR, require_dataclass
from skybatch.engine.strict_yaml import Section, load, plain
from skybatch.errors import SkybatchError, UnknownName, UsageError, nearest

T = TypeVar("T")

PLAIN = (
    *("mapper_args", "on_error", "name", "activate_env", "batch_timeout_s"),
    *("max_retries", "max_failed_items", "max_failed_fraction"),
)
REQUIRED = ("input", "mapper", "output")
NUMBERS = ("batch_size", "workers", "concurrency")
LIMIT = "limit"
SWITCHES = ("one_to_one", "overwrite", "speculate")
KEYS = {*REQUIRED, *NUMBERS, *SWITCHES, *PLAIN, "pool", LIMIT}


@dataclass(frozen=True, kw_only=True)
class MapArguments:
    """What `Dataset(reader, limit=limit).map(mapper, **kwargs)` needs."""

    reader: Any  # an InputReader
    limit: int | None  # None: not given
    mapper: Any  # in one of the forms of `Dataset.map`
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """A job file that was read, and checked for everything that needs no user code to be run."""

    path: Path
    section: Section
    pool: Pool | None  # None: not given

    @property
    def folder(self) -> Path:
        """What paths in the file are relative to."""
        return self.path.parent

    def to_map_arguments(self) -> MapArguments:
        """Import the user's code, construct reader and writers; raises UsageError naming file and line."""
        section = self.section
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))  # where Python itself would look, were the file a script
        mapper_reference = section.text("mapper") or ""
        mapper = _placed(section, "mapper", lambda: load_reference(mapper_reference, self.folder))
        return MapArguments(
            reader=_construct(section.section("input"), "input", self.folder),
            limit=section.count(LIMIT, least=1),
            mapper=mapper,
            kwargs=self._keywords(),
        )

    def _keywords(self) -> dict[str, Any]:
        given = {
            key: plain(self.section[key])
            for key in (*NUMBERS, *SWITCHES, *PLAIN)
            if self.section.get(key) is not None
        }
        outputs = [_construct(output, "output", self.folder) for output in _outputs(self.section)]
        return {**given, "output": outputs, **({"pool_name": self.pool} if self.pool else {})}


def read(path: Path) -> JobFile:
    """Read and check a job file; no code it names is imported yet. Raises UsageError."""
    path = Path(os.path.abspath(path))
    section = load(path)
    section.require_known(KEYS, "a job file")
    for key in REQUIRED:
        if section.get(key) in (None, "", [], {}):
            raise section.error(f"{key} is missing")
    for key in (*NUMBERS, LIMIT):
        section.count(key, least=1)
    for key in ("mapper", "name", "activate_env"):
        section.text(key)
    _check_others(section)
    for part in (section.section("input"), *_outputs(section)):
        if not part.text("type"):
            raise part.error("type is missing: a registered name, or file.py:Class")
    return JobFile(path=path, section=section, pool=_pool(section))


def _check_others(section: Section) -> None:
    for key in SWITCHES:
        if section.get(key) not in (None, True, False):
            raise section.error(f"{key} must be true or false", key)
    policy = section.text("on_error")
    if policy and policy not in ON_ERROR:
        raise section.error(
            f"on_error must be one of {', '.join(ON_ERROR)}{nearest(policy, ON_ERROR)}", "on_error"
        )
    timeout = section.get("batch_timeout_s")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0
    ):
        raise section.error(
            f"batch_timeout_s must be a number of seconds, not {timeout!r}", "batch_timeout_s"
        )
    if section.get("max_retries") is not None:
        _checked(section, "max_retries", lambda: budgets(plain(section["max_retries"])))
    items, fraction = section.get("max_failed_items"), section.get("max_failed_fraction")
    _checked(section, "max_failed_items", lambda: check_failure_limits(items=items))
    _checked(section, "max_failed_fraction", lambda: check_failure_limits(fraction=fraction))
    try:
        json.dumps(section.section("mapper_args"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise section.error(f"mapper_args must be JSON: {error}", "mapper_args") from error


def _outputs(section: Section) -> list[Section]:
    given = section["output"]
    outputs = given if isinstance(given, list) else [given]
    for output in outputs:
        if not isinstance(output, Section):
            raise section.error(f"output must be a mapping or a list of mappings, not {output!r}", "output")
    return outputs


def _pool(section: Section) -> Pool | None:
    given = section.get("pool")
    if given is None:
        return None
    if isinstance(given, str):
        return _placed(section, "pool", lambda: get(given))
    return parse_pool(section.section("pool"), "")


def load_reference(reference: str, folder: Path) -> Any:
    """The object that `file.py:name` or `package.module:name` names; raises UsageError.

    A file is imported under its own name, so its `__main__` blocks do not run; `name` may be dotted.
    """
    place, separator, name = reference.rpartition(":")
    if not separator or not place or not name:
        raise UsageError(f"{reference!r} must be file.py:name or package.module:name")
    module = _import_file(folder / place) if place.endswith(".py") else _import_module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UnknownName(f"name in {place}", part, _defined_in(found, module))
        found = getattr(found, part)
    return found


def _defined_in(found: Any, module: ModuleType) -> list[str]:
    """What a reference may mean there: whatever can be called, and is not merely imported."""
    public = {name: value for name, value in vars(found).items() if not name.startswith("_") and callable(value)}
    return [name for name, value in public.items() if getattr(value, "__module__", None) == module.__name__]


def _import_file(path: Path) -> ModuleType:
    path = Path(os.path.realpath(path))
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    name = path.stem
    if name in sys.modules:
        return _same_file(sys.modules[name], path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _same_file(module: ModuleType, path: Path) -> ModuleType:
    other = getattr(module, "__file__", None)
    if other is None or os.path.realpath(other) != str(path):
        raise UsageError(f"{path}: a module called {path.stem!r} is there already ({other}); rename the file")
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"no module named {error.name!r}") from error
        raise


def _construct(section: Section, role: str, folder: Path) -> Any:
    """The reader or writer a mapping describes, for `input` or `output`: its type, called with the other keys."""
    find: Callable[[str], type] = plugins.reader if role == "input" else plugins.writer
    name = section["type"]
    cls = _placed(section, "type", lambda: load_reference(name, folder) if ":" in name else find(name))
    if not isinstance(cls, type):
        raise section.error(f"{name} is not a class", "type")
    _placed(section, "type", lambda: require_dataclass(cls, name))
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    section.require_known({"type", *fields}, f"{role} {name}")
    for field in fields.values():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in section:
            raise section.error(f"{field.name} is missing: {name} needs it")
    values = {key: plain(value) for key, value in section.items() if key != "type"}
    if "path" in values:
        values["path"] = _local(values["path"], folder)
    try:
        return cls(**values)
    except (TypeError, ValueError, SkybatchError) as error:
        raise section.error(f"{name}: {error}") from error


def _local(path: Any, folder: Path) -> Any:
    """A local path, or each of a list, as seen from the job file's folder; others, and what is no path, as they are."""
    if isinstance(path, list):
        return [_local(each, folder) for each in path]
    if not isinstance(path, str) or not path or "://" in path:
        return path
    joined = os.path.normpath(os.path.join(folder, os.path.expanduser(path)))
    return joined + "/" if path.endswith("/") else joined


def _placed(section: Section, key: str, act: Callable[[], T]) -> T:
    """Call `act`, and put file and line of `key` before the message of an expected error."""
    try:
        return act()
    except UsageError as error:
        raise section.error(f"{key}: {error}", key) from error


def _checked(section: Section, key: str, check: Callable[[], object]) -> None:
    """Call `check`, whose errors name the key, and put file and line before them."""
    try:
        check()
    except UsageError as error:
        raise section.error(str(error), key) from error
