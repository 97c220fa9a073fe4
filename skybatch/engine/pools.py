"""Pools: named executor configurations, applied from a `pool.yaml` and kept under `$SKYBATCH_HOME/pools/`.

    executor: local            # default
    workers: 2                 # per host; default: one per slot the executor finds
    env: {HF_HOME: /data/hf}   # for the workers; ${ENV:NAME} is looked up when they start, never stored
    activate_env: source .venv/bin/activate
    setup: uv pip install vllm
    hosts: [box1, box2]        # and other keys of the executor's own; they may also stand under `options`

The form of Sky Batch, `pool: {workers: N}` with `resources:` and `setup:` beside it, is read too.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skybatch import plugins
from skybatch.engine.credentials import looks_secret
from skybatch.engine.environment import REFERENCE
from skybatch.engine.strict_yaml import Section, load, parse, plain
from skybatch.errors import UnknownName, UsageError
from skybatch.executors.base import ExecutorOptions

LOCAL, GPU = "local", "gpu"
KEYS = {"executor", "workers", "env", "activate_env", "setup", "options", "pool", "resources"}
# What Sky Batch's `resources` may say about renting a machine; here the executor's machines are given.
PLACEMENT = {
    "accelerators", "any_of", "cloud", "cpus", "disk_size", "disk_tier", "image_id", "infra", "instance_type",
    "memory", "ordered", "ports", "region", "use_spot", "zone",
}  # fmt: skip
PATHS = frozenset({"ssh_config"})
"""Own keys of executors that name a file: relative to the pool's."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One executor configuration."""

    name: str  # "" for one written inline in a job file
    executor: str = LOCAL  # a name that `skybatch plugins` lists
    workers: int | None = None  # per host; None: one per slot the executor finds
    env: Mapping[str, str] = field(default_factory=dict)  # for workers; secrets only as ${ENV:NAME}
    activate_env: str | None = None  # a shell line run before each worker
    setup: str | None = None  # a shell line that prepares a host; never run unasked
    options: Mapping[str, Any] = field(default_factory=dict)  # the executor's own
    ignored: tuple[str, ...] = ()  # keys of the reference's form that mean nothing here

    def to_mapping(self) -> dict[str, Any]:
        """As JSON and YAML hold it, what is unset left out; `parse_pool` reads it back."""
        values = {
            "executor": self.executor,
            "workers": self.workers,
            "env": dict(self.env),
            "activate_env": self.activate_env,
            "setup": self.setup,
            "options": dict(self.options),
        }
        return {key: value for key, value in values.items() if value not in (None, {})}

    def to_yaml(self) -> str:
        """As a pool file has it."""
        import yaml

        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


def parse_pool(section: Section, name: str) -> Pool:
    """The pool that a mapping of a file describes; raises UsageError naming file, line and nearest key."""
    executor = section.text("executor") or _meant(section)
    own = _own_keys(executor)
    section.require_known(KEYS | own, f"a pool of the executor {executor}")
    nested = section.section("pool")
    nested.require_known({"workers"}, "pool")
    if nested.get("workers") is not None and section.get("workers") is not None:
        raise section.error("workers is given twice: here and under pool", "workers")
    accelerators, ignored = _resources(section.section("resources"), executor)
    return Pool(
        name=name,
        executor=executor,
        workers=section.count("workers") or nested.count("workers"),
        env=_env(section.section("env")),
        activate_env=section.text("activate_env"),
        setup=section.text("setup"),
        options={**_own(section, own), **accelerators},
        ignored=ignored,
    )


def _meant(section: Section) -> str:
    """The executor of a pool that names none: whoever asks for accelerators means those of this machine."""
    resources = section.get("resources")
    return GPU if isinstance(resources, Section) and resources.get("accelerators") is not None else LOCAL


def _own_keys(executor: str) -> frozenset[str]:
    """The keys of an executor's own; none of one that is not installed here: its pool can be looked at all the same."""
    try:
        keys: frozenset[str] = getattr(plugins.executor(executor), "keys", frozenset())
    except UnknownName:
        return frozenset()
    return keys


def _own(section: Section, keys: frozenset[str]) -> dict[str, Any]:
    """The executor's own, at the top or under `options`; what names files is made absolute."""
    nested = section.section("options")
    found = {key: value for key, value in plain(section).items() if key in keys}
    for key in found:
        if key in nested:
            raise section.error(f"{key} is given twice: here and under options", key)
    found |= plain(nested)
    if "files" in keys and found.get("files") and "files_root" not in found:
        found["files_root"] = section.folder
    for key in keys & PATHS & found.keys():
        found[key] = os.path.join(section.folder, os.path.expanduser(str(found[key])))
    return found


def check(pool: Pool, section: Section | None = None) -> None:
    """Raise UsageError for what the pool's executor cannot do; `section` is where the pool is from."""
    found = getattr(plugins.executor(pool.executor), "check", None)
    try:
        if found is not None:
            found(options_of(pool))
    except UsageError as error:
        if section is None:
            raise
        key = str(error).partition(":")[0]
        places = [section, section.section("options"), section.section("resources")]
        raise next((place for place in places if key in place), section).error(str(error), key) from None


def options_of(pool: Pool, log_folder: str = "") -> ExecutorOptions:
    """What an executor is told of a pool; secrets are not looked up yet."""
    return ExecutorOptions(
        workers=pool.workers,
        env=pool.env,
        activate_env=pool.activate_env,
        log_folder=log_folder,
        options=pool.options,
    )


def _resources(resources: Section, executor: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the executor gets of the reference's `resources`, and what means nothing here."""
    resources.require_known(PLACEMENT, "resources")
    ignored = tuple(f"resources.{key}" for key in resources if key != "accelerators")
    if resources.get("accelerators") is None:
        return {}, ignored
    if executor in (LOCAL, "inline"):
        problem = (
            f"resources.accelerators: the {executor} executor hands out cores, not devices;"
            " name an executor that does, or leave the line out and pick the device in the mapper"
        )
        raise resources.error(problem, "accelerators")
    return {"accelerators": resources["accelerators"]}, ignored


def _env(section: Section) -> dict[str, str]:
    return {key: _env_value(section, key, value) for key, value in section.items()}


def _env_value(section: Section, key: str, value: object) -> str:
    if not ENV_NAME.fullmatch(key):
        raise section.error(f"env: {key!r} is not a name for an environment variable", key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise section.error(f"env: write the value of {key} as a string, in quotes", key)
    if looks_secret(key) and value and not REFERENCE.search(value):
        raise section.error(
            f"env: {key} looks like a credential, and pools are kept in a file;"
            f" write ${{ENV:{key}}} and set the variable where jobs are started",
            key,
        )
    return value


def apply(file: Path, name: str) -> Pool:
    """Check the pool file and keep it as `name`, replacing an earlier one whole; raises UsageError."""
    pool = read(file, name)
    keep(pool)
    return pool


def read(file: Path, name: str) -> Pool:
    """The pool that a file describes, to be called `name`; raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(f"a pool's name is letters, digits, '_', '.', '-', not {name!r}")
    if name == LOCAL:
        raise UsageError("the pool 'local' is built in: choose another name")
    section = load(file)
    pool = parse_pool(section, name)
    check(pool, section)
    return pool


def keep(pool: Pool) -> None:
    """Keep the pool under its name. Atomically: a job that starts meanwhile sees the old one or the new."""
    path = _file(pool.name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        try:
            file.write(pool.to_yaml())
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)  # made 0600 by tempfile
        except BaseException:
            os.unlink(file.name)
            raise


def get(name: str) -> Pool:
    """The pool kept as `name`; raises UnknownName. `local` is always there."""
    if name == LOCAL:
        return Pool(name=LOCAL)
    if not NAME.fullmatch(name) or not _file(name).is_file():
        raise UnknownName("pool", name, names())
    return parse_pool(load(_file(name)), name)


def names() -> list[str]:
    """Every pool's name, sorted; `local` is always there."""
    return sorted({LOCAL, *(path.stem for path in _folder().glob("*.yaml"))})


def delete(name: str) -> None:
    """Forget the pool kept as `name`; jobs running on it go on. UnknownName, or UsageError for `local`."""
    if name == LOCAL:
        raise UsageError("the pool 'local' is built in and cannot be deleted")
    if not NAME.fullmatch(name) or not _file(name).is_file():
        raise UnknownName("pool", name, names())
    _file(name).unlink()


def from_mapping(values: Mapping[str, Any], name: str = "") -> Pool:
    """The pool that `Pool.to_mapping` described, or a mapping given in code."""
    import json

    return parse_pool(parse(json.dumps(dict(values)), f"pool {name}".strip()), name)


def _folder() -> Path:
    from skybatch.engine.folder import home

    return home() / "pools"


def _file(name: str) -> Path:
    return _folder() / f"{name}.yaml"
