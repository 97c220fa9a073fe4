"""User code as it travels: captured once when a job is made, stored beside its spec, loaded by workers.

Code travels as source where source can express it: a script's needed part (`code_slice`) and the user's
own modules whole (`code_modules`). Installed packages travel as a name. What source cannot express
(closures, lambdas, instances, notebook cells, definitions inside the `__main__` block) travels by
cloudpickle and runs under the same Python version only. `skybatch.worker.code` is the other side.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

from skybatch import disk
from skybatch.engine.code_modules import UserModules, is_installed
from skybatch.engine.code_slice import Slice, SourceFile
from skybatch.errors import MapperError

MANIFEST = "manifest.json"
MAIN = "skybatch_main"  # what a script's `__main__` is called in workers

Ref = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Captured:
    """The code of a job's mapper and custom classes, ready to be stored."""

    refs: dict[str, Ref]  # key asked for -> how to get the object; JSON
    files: dict[str, bytes]  # relative name -> content
    origins: dict[str, str]  # relative name -> the file it came from
    slices: dict[str, dict[str, Any]]  # relative name of a script's part -> names, package
    pickle_imports: list[str]  # top-level user modules that pickled objects import
    notes: list[str]  # for the user to know

    @cached_property
    def hash(self) -> str:
        """Names this code by content; the same for the same code in another process.

        Objects that travel by cloudpickle are the exception: their bytes may differ from run to run.
        """
        return _digest(self.refs, self.files)

    @cached_property
    def fingerprint(self) -> str:
        """The same for code that does the same, to tell whether an earlier job was made with it.

        Unlike `hash`, it overlooks comments and layout of a script, and the order in which a pickle
        happens to hold its sets.
        """
        return _digest(
            self.refs, {name: self._essence(name, content) for name, content in self.files.items()}
        )

    def _essence(self, name: str, content: bytes) -> bytes:
        if name in self.slices:
            return ast.dump(ast.parse(content)).encode()
        if name.endswith(".pkl"):
            from skybatch.engine.code_pickle import essence

            return essence(content)
        return content

    def store(self, code_folder: Path) -> Path:
        """Write all of it to `code_folder`/<hash>, whole or not at all, and return that folder.

        Storing the same code again changes nothing. Folders are private to the user.
        """
        target = code_folder / self.hash
        if target.exists():
            return target
        code_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = code_folder / f".new-{os.urandom(8).hex()}"
        fresh.mkdir(mode=0o700)
        try:
            _write_durably(fresh, {**self.files, MANIFEST: self._manifest()})
            disk.rename("code", fresh, target)
        except OSError:
            import shutil  # seldom needed, and slow to import

            shutil.rmtree(fresh, ignore_errors=True)
            if not target.exists():  # else another process stored the same code first
                raise
        _sync_folder(code_folder)
        return target

    def _manifest(self) -> bytes:
        keys = ("refs", "origins", "slices", "pickle_imports")
        return json.dumps({key: getattr(self, key) for key in keys}, indent=1).encode()


def capture(objects: Mapping[str, object]) -> Captured:
    """Find how each object can travel. Keys are the caller's: `{"mapper": f, "reader": MyReader}`.

    Raises MapperError when one cannot, when its source cannot be read, or when the object itself uses a
    name that is certainly defined nowhere. Reads files and imports nothing; runs no user code but the
    pickling of what must be pickled.
    """
    capturing = _Capture(UserModules())
    for key, value in objects.items():
        capturing.add(key, value)
    return capturing.finish()


def recapture(stored: Path) -> Captured:
    """The same objects from the source files as they are now, without running the user's script.

    For going on with changed code. What travelled by cloudpickle stays as it was stored, with a note.
    Raises MapperError when a source file is gone or no longer defines a name.
    """
    manifest = _read_manifest(stored)
    capturing = _Capture(UserModules(_import_folders(manifest["origins"])))
    capturing.refs.update(manifest["refs"])
    for name, asked in manifest["slices"].items():
        module = Path(name).stem
        capturing.slices[module] = _Asked(
            path=Path(manifest["origins"][name]), names=list(asked["names"]), package=asked["package"]
        )
    for key, ref in capturing.refs.items():
        if ref["via"] == "pickle":
            capturing.files[ref["file"]] = (stored / ref["file"]).read_bytes()
            capturing.notes.append(f"{key} travels by cloudpickle and stays as it was stored")
    capturing.pickle_imports |= set(manifest["pickle_imports"])
    return capturing.finish()


def changed_since(stored: Path) -> list[str]:
    """The original files that now say something else than what was stored, or are gone.

    Comments, layout and parts of a script that the job does not use may differ.
    """
    manifest = _read_manifest(stored)
    return sorted(
        origin
        for name, origin in manifest["origins"].items()
        if not _same_code(stored / name, Path(origin), manifest["slices"].get(name))
    )


@dataclass(kw_only=True)
class _Asked:
    """Names wanted from one script."""

    path: Path
    names: list[str]
    package: str  # what its relative imports are relative to


@dataclass(frozen=True, kw_only=True)
class _Definition:
    """Where an object can be looked up again."""

    module: ModuleType
    name: str  # qualified

    @property
    def file(self) -> str | None:
        """Its source file, where there is one."""
        file = getattr(self.module, "__file__", None)
        return file if isinstance(file, str) and os.path.isfile(file) else None


@dataclass
class _Capture:
    """What was gathered so far."""

    modules: UserModules
    refs: dict[str, Ref] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    slices: dict[str, _Asked] = field(default_factory=dict)
    sources: dict[Path, SourceFile] = field(default_factory=dict)
    pickle_imports: set[str] = field(default_factory=set)

    def add(self, key: str, value: object) -> None:
        found = _definition(value)
        if found is None:
            self._pickle(key, value, "it is not a plain top-level definition")
        elif found.file is None or is_installed(found.file):
            self._import(key, value, found)
        elif _travels_whole(found.module):
            self.modules.last_resort.append(os.path.dirname(found.file))
            self.refs[key] = {"via": "source", "module": found.module.__name__, "name": found.name}
        else:
            self._slice(key, value, found, Path(found.file))

    def _import(self, key: str, value: object, found: _Definition) -> None:
        if found.module.__name__ == "__main__":
            self._pickle(key, value, "the source of an interactive session cannot be had")
        else:
            self.refs[key] = {"via": "import", "module": found.module.__name__, "name": found.name}

    def _slice(self, key: str, value: object, found: _Definition, path: Path) -> None:
        source = self._source(path)
        name = found.name.partition(".")[0]
        package = getattr(found.module, "__package__", None) or ""
        if not package:
            self.modules.last_resort.append(str(path.parent))
        missing = source.slice([name], package=package).missing
        if missing:
            listed = ", ".join(sorted(missing))
            self._pickle(key, value, f"{listed} is set in the script's __main__ block")
        elif not source.binds(name):
            self._pickle(key, value, f"{path} does not define {name!r} at its top level")
        else:
            source.check_names(name, vars(found.module))
            module = self._slice_module(found.module, path)
            asked = self.slices.setdefault(module, _Asked(path=path, names=[], package=package))
            asked.names = sorted({*asked.names, name})
            self.refs[key] = {"via": "source", "module": module, "name": found.name}

    def _source(self, path: Path) -> SourceFile:
        if path not in self.sources:
            self.sources[path] = SourceFile(path)
        return self.sources[path]

    def _slice_module(self, module: ModuleType, path: Path) -> str:
        if module.__name__ == "__main__":
            return MAIN
        stem = "skybatch_file_" + re.sub(r"\W", "_", path.stem)
        while stem in self.slices and self.slices[stem].path != path:
            stem += "_"
        return stem

    def _pickle(self, key: str, value: object, why: str) -> None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        file = f"pickles/{key}.pkl"
        self.files[file], imports = _pickled(key, value)
        self.pickle_imports |= imports
        self.refs[key] = {"via": "pickle", "file": file, "python": version}
        self.notes.append(f"{key} travels by cloudpickle: Python {version} only ({why})")

    def finish(self) -> Captured:
        origins: dict[str, str] = {}
        slices = {}
        for module, asked in self.slices.items():
            name = f"modules/{module}.py"
            part = _slice_of(self._source(asked.path), asked.names, asked.package)
            self.files[name], origins[name] = part.text.encode(), str(asked.path)
            slices[name] = {"names": asked.names, "package": asked.package}
            self.notes += part.notes
            self.modules.add(part.imports)
        whole = {r["module"].partition(".")[0] for r in self.refs.values() if r["via"] == "source"}
        self.modules.add((whole - self.slices.keys()) | self.pickle_imports)
        for place, path in self.modules.files.items():
            self.files[f"modules/{place}"], origins[f"modules/{place}"] = path.read_bytes(), str(path)
        return Captured(
            refs=self.refs,
            files=self.files,
            origins=origins,
            slices=slices,
            pickle_imports=sorted(self.pickle_imports),
            notes=self.notes,
        )


def _definition(value: object) -> _Definition | None:
    """The module and name under which the very object is found, or None."""
    names = [(getattr(value, "__module__", None), getattr(value, "__qualname__", None))]
    main = sys.modules.get("__main__")
    # A decorator without functools.wraps hides the name; the script still binds it by a `def`.
    names += (
        [("__main__", name) for name, bound in list(vars(main).items()) if bound is value] if main else []
    )
    for module_name, name in names:
        module = sys.modules.get(module_name) if isinstance(module_name, str) else None
        if module is not None and isinstance(name, str) and _is_at(module, name, value):
            return _Definition(module=module, name=name)
    return None


def _is_at(module: ModuleType, name: str, value: object) -> bool:
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value and not (isinstance(value, MethodType) and found == value):
        return False
    file = getattr(module, "__file__", None)
    if module.__name__ != "__main__" or not file or not os.path.isfile(file):
        return True
    by_definition = getattr(value, "__qualname__", None) == name
    return (by_definition or SourceFile(Path(file)).defines(name)) and _was_read_from(file, value)


def _was_read_from(file: str, value: object) -> bool:
    """False for what `exec` defined in the script's namespace."""
    code = getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None
    return code is None or not code.co_filename.startswith("<") or code.co_filename == file


def _travels_whole(module: ModuleType) -> bool:
    """Whether the module is what `import` finds by its name; a script or a file loaded by path is not."""
    file = Path(module.__file__ or "")
    root, dot, _ = module.__name__.partition(".")
    if dot:
        return os.path.basename(getattr(sys.modules.get(root), "__file__", None) or "") == "__init__.py"
    return root == (file.parent.name if file.name == "__init__.py" else file.name.partition(".")[0])


def _slice_of(source: SourceFile, names: list[str], package: str) -> Slice:
    for name in names:
        if not source.binds(name):
            raise MapperError(f"{source.path}: does not define {name!r} at its top level")
    return source.slice(names, package=package)


def _pickled(key: str, value: object) -> tuple[bytes, set[str]]:
    """The object by value, and the top-level names of the modules it needs when it runs."""
    from skybatch.engine.code_pickle import pickle_by_value

    try:
        return pickle_by_value(value)
    except Exception as error:
        raise MapperError(
            f"{key} {value!r} cannot be sent to workers: {error}\n"
            "  define it at the top level of a script or module, and build there what cannot be pickled"
        ) from error


def _same_code(stored: Path, origin: Path, asked: dict[str, Any] | None) -> bool:
    try:
        if asked is not None:
            now = _slice_of(SourceFile(origin), asked["names"], asked["package"]).text.encode()
        else:
            now = origin.read_bytes()
    except (OSError, MapperError):
        return False
    before = stored.read_bytes()
    if before == now or stored.suffix != ".py":
        return before == now
    try:
        return ast.dump(ast.parse(before)) == ast.dump(ast.parse(now))
    except (SyntaxError, ValueError):
        return False


def _import_folders(origins: Mapping[str, str]) -> list[str]:
    """The folders that stored modules were imported from."""
    folders = set()
    for name, origin in origins.items():
        depth = len(Path(name).parts) - 1  # below modules/
        folders.add(str(Path(origin).parents[depth - 1]))
    return sorted(folders)


def _digest(refs: Mapping[str, Ref], files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(json.dumps(refs, sort_keys=True).encode())
    for name, content in sorted(files.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


def _read_manifest(stored: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((stored / MANIFEST).read_bytes())
    return manifest


def _write_durably(folder: Path, files: Mapping[str, bytes]) -> None:
    folders: set[Path] = set()
    for name, content in files.items():
        path = folder / name
        for parent in reversed([parent for parent in path.parents if parent.is_relative_to(folder)]):
            parent.mkdir(mode=0o700, exist_ok=True)
            folders.add(parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            disk.fsync("code", descriptor)
    for each in folders:
        _sync_folder(each)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        disk.fsync("code.folder", descriptor)
    finally:
        os.close(descriptor)
