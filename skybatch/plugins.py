"""Plugins: found, loaded, asked for names, told of events.

What this process registered comes first, then the built-ins, then what installed distributions name in the
entry-point group `skybatch`. The last are looked for only when needed, as the look costs 30 ms.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skybatch.errors import UnknownName
from skybatch.executors import built_in
from skybatch.registry import INPUT_READER_REGISTRY, OUTPUT_WRITER_REGISTRY, Registry

if TYPE_CHECKING:
    import importlib.metadata
    import logging

    import pluggy

GROUP = "skybatch"
READERS, WRITERS, EXECUTORS = "skybatch_input_readers", "skybatch_output_writers", "skybatch_executors"
BUILT_IN = ("skybatch.formats.plugin", "skybatch.executors.plugin")
METADATA = (".dist-info", ".egg-info", ".egg")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One plugin, as `skybatch plugins` shows it."""

    name: str  # of the entry point, or of the built-in's module
    version: str  # of its distribution
    location: str  # the file of its module
    provides: tuple[str, ...]  # "reader json", "writer image", "hook skybatch_job_started", ...
    error: str | None = None  # why it could not be loaded


@dataclass(frozen=True, kw_only=True)
class _EntryPoint:
    """What became of one entry point."""

    name: str
    version: str
    location: str
    error: str | None


@functools.cache
def manager() -> pluggy.PluginManager:
    """The plugin manager of this process, with the built-ins; `register` on it adds a plugin by hand."""
    import importlib

    import pluggy

    from skybatch import hookspecs

    made = pluggy.PluginManager(hookspecs.PROJECT)
    made.add_hookspecs(hookspecs)
    for name in BUILT_IN:
        made.register(importlib.import_module(name), name)
    return made


def reader(name: str) -> type:
    """The input reader called `name`; raises UnknownName."""
    found: type = _lookup("input reader", name, READERS, INPUT_READER_REGISTRY)
    return found


def writer(name: str) -> type:
    """The output writer called `name`; raises UnknownName."""
    found: type = _lookup("output writer", name, WRITERS, OUTPUT_WRITER_REGISTRY)
    return found


def executor(name: str) -> Any:
    """The executor called `name`, a class or factory; raises UnknownName."""
    if name in built_in.PLACES:  # they are registered first, and that one wins; no need to import all, nor pluggy
        return built_in.load(name)
    return _lookup("executor", name, EXECUTORS, None)


def notify(hook_name: str, **arguments: Any) -> None:
    """Tell every plugin of an event; an exception in one is logged, and the others are told all the same."""
    if not manager.cache_info().currsize and not entry_points_exist():
        return  # nobody could be listening: not worth importing pluggy
    _load_entry_points()
    for _ in _answers(hook_name, **arguments):
        pass


def loaded() -> list[Loaded]:
    """Every plugin, built-ins first, then entry points in name order, those that failed to load included."""
    entries = {entry.name: entry for entry in _load_entry_points()}
    found = []
    for name, plugin in manager().list_name_plugin():
        if plugin is not None and name not in entries:
            location = getattr(plugin, "__file__", None) or type(plugin).__module__
            found.append(_describe(name, _own_version(), location, plugin))
    for name, entry in sorted(entries.items()):
        plugin = manager().get_plugin(name)
        if plugin is not None and entry.error is None:
            found.append(_describe(name, entry.version, entry.location, plugin))
        else:
            found.append(
                Loaded(name=name, version=entry.version, location=entry.location, provides=(), error=entry.error)
            )
    return found


def entry_points_exist() -> bool:
    """Whether an installed distribution may name plugins: a few file reads, no import of metadata.

    May say yes in vain, where a path entry cannot be looked into as a folder; never no in vain.
    """
    return _probe(tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _probe(path: tuple[str, ...]) -> bool:
    if any(_finds_distributions(finder) for finder in sys.meta_path):
        return True
    return any(_folder_may_name_plugins(folder or ".") for folder in path)


def _finds_distributions(finder: object) -> bool:
    """Whether a finder other than the standard one for folders knows distributions of its own."""
    name = getattr(finder, "__name__", type(finder).__name__)
    return name != "PathFinder" and hasattr(finder, "find_distributions")


def _folder_may_name_plugins(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(METADATA)]
    except NotADirectoryError:
        return True  # a zip file
    except OSError:
        return False
    return any(_metadata_names_plugins(f"{folder}/{name}") for name in names)


def _metadata_names_plugins(path: str) -> bool:
    if path.endswith(".egg"):
        path += "/EGG-INFO"
    try:
        with open(f"{path}/entry_points.txt", "rb") as file:
            return f"[{GROUP}]".encode() in file.read()
    except NotADirectoryError:
        return path.endswith("/EGG-INFO")  # a zipped egg; a file ending in .egg-info names no entry points
    except OSError:
        return False


@functools.cache
def _load_entry_points() -> list[_EntryPoint]:
    """Load and register every entry point of the group, once; a plugin that cannot be loaded is logged."""
    if not entry_points_exist():
        return []
    import importlib.metadata

    return [_load(point) for point in importlib.metadata.entry_points(group=GROUP)]


def _load(point: importlib.metadata.EntryPoint) -> _EntryPoint:
    version = point.dist.version if point.dist else "unknown"
    location, error = point.value, None
    try:
        plugin = point.load()
        location = getattr(plugin, "__file__", None) or point.value
        manager().register(plugin, point.name)
        _refuse_unknown_hooks(plugin)
    except Exception as cause:
        error = f"{type(cause).__name__}: {cause}"
        _log().warning("plugin %s (%s) could not be loaded: %s", point.name, point.value, error)
        if manager().has_plugin(point.name):
            manager().unregister(name=point.name)
    return _EntryPoint(name=point.name, version=version, location=location, error=error)


def _refuse_unknown_hooks(plugin: object) -> None:
    """Raise UnknownName for a marked function that is no hook: a misspelt one would never be called."""
    known = [name for name in vars(manager().hook) if name.startswith("skybatch_") and _hook(name).has_spec()]
    for caller in manager().get_hookcallers(plugin) or ():
        if not caller.has_spec():
            raise UnknownName("hook", caller.name, known)


def _lookup(kind: str, name: str, hook_name: str, registry: Registry | None) -> Any:
    registered = registry.names() if registry else []
    if registry and name in registered:
        return registry.get(name)
    known = _provided(hook_name)
    if name not in known:
        _load_entry_points()  # may also register classes by decorator
        registered = registry.names() if registry else []
        if registry and name in registered:
            return registry.get(name)
        known = _provided(hook_name)
    try:
        return known[name]
    except KeyError:
        raise UnknownName(kind, name, {*known, *registered}) from None


def _provided(hook_name: str) -> dict[str, Any]:
    """All names that plugins give to one hook; of two plugins the one registered first wins."""
    known: dict[str, Any] = {}
    for answer in _answers(hook_name):
        known = {**answer, **known}
    return known


def _answers(hook_name: str, **arguments: Any) -> Iterator[Any]:
    """Call a hook plugin by plugin, so that an exception in one is logged and the others go on."""
    for implementation in _hook(hook_name).get_hookimpls():
        others = [plugin for plugin in manager().get_plugins() if plugin is not implementation.plugin]
        try:
            yield from manager().subset_hook_caller(hook_name, others)(**arguments)
        except Exception:
            _log().exception("plugin %s failed in %s", implementation.plugin_name, hook_name)


def _log() -> logging.Logger:
    import logging  # only when there is something to say: every job imports this module

    return logging.getLogger("skybatch")


def _hook(name: str) -> pluggy.HookCaller:
    caller: pluggy.HookCaller = getattr(manager().hook, name)
    return caller


def _describe(name: str, version: str, location: str, plugin: object) -> Loaded:
    provides: list[str] = []
    for caller in manager().get_hookcallers(plugin) or ():
        label = {READERS: "reader", WRITERS: "writer", EXECUTORS: "executor"}.get(caller.name)
        if label:
            provides += [f"{label} {given}" for given in _given(caller.name, plugin)]
        else:
            provides.append(f"hook {caller.name}")
    return Loaded(name=name, version=version, location=location, provides=tuple(sorted(provides)))


def _given(hook_name: str, plugin: object) -> list[str]:
    others = [other for other in manager().get_plugins() if other is not plugin]
    try:
        return [name for answer in manager().subset_hook_caller(hook_name, others)() for name in answer]
    except Exception:
        _log().exception("a plugin failed in %s", hook_name)
        return []


def _own_version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("skybatch")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
