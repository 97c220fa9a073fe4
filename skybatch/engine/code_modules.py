"""The user's own modules that shipped code imports: found, and taken whole, with what they import in turn.

The user's own is what lies neither in the standard library nor in a `site-packages` folder, nor in
skybatch. A package travels as all of its Python and extension files; its data files do not.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from skybatch.engine.code_slice import SourceFile
from skybatch.errors import MapperError

MAX_FILES = 2_000
MAX_BYTES = 50 << 20
_MAX_ENTRIES = 100_000  # looked at before giving up on a tree
_SUFFIXES = (".py", ".so")
_SKYBATCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STDLIB = os.path.dirname(os.path.realpath(os.__file__))


def is_installed(path: str | Path) -> bool:
    """Whether the file belongs to the standard library, to an installed package or to skybatch."""
    real = Path(os.path.realpath(path))
    if {"site-packages", "dist-packages"} & {*real.parts, *Path(path).parts}:
        return True
    return any(real.is_relative_to(folder) for folder in (_STDLIB, _SKYBATCH))


class UserModules:
    """Collects modules: `files` maps their places under `modules/` to their originals."""

    def __init__(self, search: Sequence[str] = ()) -> None:
        self._search = list(search)  # folders to look in before sys.path
        self.last_resort: list[str] = []  # and after it
        self._seen: set[str] = set()
        self.files: dict[str, Path] = {}

    def add(self, roots: Iterable[str]) -> None:
        """Take the modules of these top-level names that are the user's own, and what they import."""
        waiting = sorted(roots)
        while waiting:
            root = waiting.pop()
            if root in self._seen or root == "__main__":
                continue
            self._seen.add(root)
            for place in self._places(root):
                waiting += sorted(self._take(root, place))

    def _places(self, root: str) -> list[Path]:
        """Its file, or its folder (several for a namespace package); none when it is not the user's own."""
        found = _of_loaded(root) or _of_spec(root, self._search, self.last_resort)
        return [Path(place) for place in found if not is_installed(place)]

    def _take(self, root: str, place: Path) -> Iterator[str]:
        if place.is_dir():
            taken = {f"{root}/{path.relative_to(place).as_posix()}": path for path in _tree(root, place)}
        else:
            name = f"{root}.py" if place.suffix == ".py" else place.name
            taken = {name: place}
        self.files.update(taken)
        for name, path in taken.items():
            if path.suffix != ".py":
                continue
            try:
                yield from SourceFile(path).imports
            except MapperError:
                # Packages hold templates and the like that nobody imports; the module itself must parse.
                if name in (f"{root}.py", f"{root}/__init__.py"):
                    raise


def _of_loaded(root: str) -> list[str]:
    module = sys.modules.get(root)
    file = getattr(module, "__file__", None)
    if file:
        return [_package_folder(file)]
    return list(getattr(module, "__path__", []))


def _of_spec(root: str, search: list[str], last_resort: list[str]) -> list[str]:
    spec = PathFinder.find_spec(root, search) or _found_by_import(root)
    spec = spec or PathFinder.find_spec(root, last_resort)
    if spec is None:
        return []
    if spec.origin and spec.has_location:
        return [_package_folder(spec.origin)]
    return list(spec.submodule_search_locations or [])


def _found_by_import(root: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(root)
    except (ImportError, ValueError):  # a module made by hand has no spec
        return None


def _package_folder(file: str) -> str:
    return os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file


def _tree(root: str, folder: Path) -> Iterator[Path]:
    files = size = entries = 0
    for parent, folders, names in os.walk(folder):
        entries += len(folders) + len(names)
        folders[:] = sorted(name for name in folders if _may_hold_modules(Path(parent, name)))
        for path in (Path(parent, name) for name in sorted(names) if name.endswith(_SUFFIXES)):
            files += 1
            size += path.stat().st_size
            yield path
        if files > MAX_FILES or size > MAX_BYTES or entries > _MAX_ENTRIES:
            raise MapperError(
                f"package {root!r} ({folder}) is too large to travel with the mapper"
                f" (more than {MAX_FILES} files or {MAX_BYTES >> 20} MB);"
                " install it where workers run, or import a smaller one"
            )


def _may_hold_modules(folder: Path) -> bool:
    importable = folder.name.isidentifier() and folder.name != "__pycache__"
    return importable and not (folder / "pyvenv.cfg").exists()
