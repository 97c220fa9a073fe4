"""Loads the user's code in a worker from the job's stored copy. The other side of `skybatch.engine.code`."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import stat
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Mapping, Optional, Sequence

from skybatch.errors import MapperError, UntrustedFolder


def load(folder: Path, refs: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    """The objects that `refs` name, from the stored code in `folder`, by their keys.

    Runs the stored modules' top level once per process. What that raises passes through. Raises
    MapperError when a pickle needs another Python version or cloudpickle is missing, UntrustedFolder
    when others could have written the code.
    """
    folder = Path(folder)
    if any(ref["via"] != "import" for ref in refs.values()):
        _check_private(folder)
        _StoredModules.install(folder)
    return {key: _object(folder, key, ref) for key, ref in refs.items()}


def _object(folder: Path, key: str, ref: Mapping[str, str]) -> object:
    if ref["via"] == "pickle":
        return _unpickle(folder / ref["file"], key, ref["python"])
    found: object = importlib.import_module(ref["module"])
    for part in ref["name"].split("."):
        found = getattr(found, part)
    return found


def _unpickle(file: Path, key: str, version: str) -> object:
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if mine != version:
        raise MapperError(
            f"the {key} travels by cloudpickle from Python {version}, and this worker runs Python {mine};"
            " define it at the top level of a script or module, or use the same Python in both"
        )
    try:
        value: object = pickle.loads(file.read_bytes())
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cloudpickle":
            raise
        raise MapperError(
            f"the {key} travels by cloudpickle, which {sys.executable} does not have;"
            f" install it with: {sys.executable} -m pip install cloudpickle"
        ) from error
    return value


def _check_private(folder: Path) -> None:
    state = os.lstat(folder)
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise UntrustedFolder(f"{folder}: others could have written the code in it; it will not be run")


class _StoredModules:
    """Finds the stored modules before any others of their names, whatever the current folder holds."""

    current: Optional["_StoredModules"] = None

    def __init__(self, folder: Path) -> None:
        self.modules = str(folder / "modules")
        manifest = folder / "manifest.json"
        origins = json.loads(manifest.read_bytes())["origins"] if manifest.exists() else {}
        self._origins = {str(folder / name): origin for name, origin in origins.items()}

    @classmethod
    def install(cls, folder: Path) -> None:
        """Put this folder's modules first; another job's that were loaded before are forgotten."""
        fresh = cls(folder)
        if cls.current is not None:
            if cls.current.modules == fresh.modules:
                return
            cls.current._remove()
        sys.meta_path.insert(0, fresh)
        sys.path.insert(0, fresh.modules)  # for processes that the mapper starts
        cls.current = fresh
        importlib.invalidate_caches()

    def _remove(self) -> None:
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        sys.path[:] = [entry for entry in sys.path if entry != self.modules]
        for name, module in list(sys.modules.items()):
            origin = getattr(getattr(module, "__spec__", None), "origin", None) or ""
            if origin.startswith(self.modules + os.sep):
                del sys.modules[name]

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        """Of the import system: the spec of a stored Python file, else None."""
        spec = PathFinder.find_spec(name, [self.modules] if path is None else list(path))
        origin = spec.origin if spec is not None else None
        if spec is None or origin is None or not origin.startswith(self.modules + os.sep):
            return None
        if isinstance(spec.loader, SourceFileLoader):
            spec.loader = _StoredLoader(name, origin, self._origins.get(origin, origin))
        return spec


class _StoredLoader(SourceFileLoader):
    """Runs the stored copy; `__file__` is the original where that exists, for data files beside it.

    Tracebacks name the original as long as it was not written since: lines of the copy are where they are in it.
    """

    def __init__(self, name: str, path: str, original: str) -> None:
        super().__init__(name, path)
        self._original = original

    def get_code(self, fullname: str) -> Optional[CodeType]:
        """Of the import system: the module's compiled code."""
        code = super().get_code(fullname)
        try:
            is_as_stored = os.stat(self._original).st_mtime_ns <= os.stat(self.path).st_mtime_ns
        except OSError:
            return code
        return _said_to_be_of(code, self._original) if code is not None and is_as_stored else code

    def exec_module(self, module: ModuleType) -> Any:
        """Of the import system: run the module's code in its namespace."""
        if os.path.exists(self._original):
            module.__file__ = self._original
        return super().exec_module(module)


def _said_to_be_of(code: CodeType, file: str) -> CodeType:
    constants = tuple(_said_to_be_of(each, file) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_filename=file, co_consts=constants)
