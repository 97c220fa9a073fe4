"""Code captured in one process does the same in another: each test runs both for real."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch.engine.code import MAIN, Captured, capture, changed_since, recapture
from skybatch.errors import MapperError, UntrustedFolder
from skybatch.worker.code import load

PACKAGE = str(Path(skybatch.__file__).parents[1])

SHIP = """
import json, sys
from pathlib import Path
sys.path.append({package!r})
from skybatch.engine.code import capture
from skybatch.errors import MapperError

def ship(**objects):
    try:
        captured = capture(objects)
    except MapperError as error:
        print(json.dumps({{"error": str(error)}}))
        return
    stored = captured.store(Path({code!r}))
    told = {{"refs": captured.refs, "notes": captured.notes, "fingerprint": captured.fingerprint}}
    print(json.dumps({{"stored": str(stored), **told}}))
"""

CALL = """
import json, sys
sys.path.append({package!r})
from skybatch.worker.code import load
objects = load({stored!r}, json.loads({refs!r}))
results = {{}}
for key, value in objects.items():
    if isinstance(value, type):
        value = value()
    result = value([1, 2])
    if hasattr(result, "send"):
        try:
            result.send(None)
        except StopIteration as stop:
            result = stop.value
    results[key] = result
print(json.dumps(results))
"""


class Shipper:
    """A user's folder, and a worker elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.user, self.code, self.elsewhere = (folder / name for name in ("user", "code", "elsewhere"))
        self.user.mkdir()
        self.elsewhere.mkdir()
        self.write("shipping.py", SHIP.format(package=PACKAGE, code=str(self.code)))

    def write(self, name: str, text: str) -> Path:
        path = self.user / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def run(self, script: str, *, name: str = "script.py") -> dict[str, Any]:
        """Run a script that ends in `ship(...)`; what it printed last."""
        path = self.write(name, script)
        return self._ended([sys.executable, str(path)], cwd=self.user)

    def session(self, lines: str) -> dict[str, Any]:
        return self._ended([sys.executable, "-i", "-q"], cwd=self.user, stdin=textwrap.dedent(lines))

    def call(self, shipped: dict[str, Any]) -> dict[str, Any]:
        """Load in a fresh process in another folder, call each object with [1, 2]; the results."""
        program = CALL.format(package=PACKAGE, stored=shipped["stored"], refs=json.dumps(shipped["refs"]))
        return self._ended([sys.executable, "-I", "-c", program], cwd=self.elsewhere)

    @staticmethod
    def _ended(command: list[str], *, cwd: Path, stdin: str = "") -> dict[str, Any]:
        ended = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        *noise, last = ended.stdout.splitlines()
        result: dict[str, Any] = json.loads(last)
        assert not noise or "stored" in result, f"what must not run in a worker printed {noise}"
        return result


@pytest.fixture
def shipper(tmp_path: Path) -> Shipper:
    return Shipper(tmp_path)


def test_every_form_of_mapper_travels_from_a_script_as_source(shipper: Shipper) -> None:
    shipped = shipper.run("""\
        import functools
        from dataclasses import dataclass, field
        from shipping import ship

        print("side effect")
        OFFSET = 10

        def bare_decorator(function):
            def wrapper(batch):
                return function(batch)
            return wrapper

        def wrapping(function):
            @functools.wraps(function)
            def wrapper(batch):
                return function(batch)
            return wrapper

        def plain(batch):
            return [x + OFFSET for x in batch]

        @bare_decorator
        @wrapping
        def stacked(batch):
            return plain(batch)

        async def asynchronous(batch):
            return plain(batch)

        if OFFSET:
            def indented(batch):
                return [y for x in batch if (y := x + OFFSET)]

        class Meta(type):
            def __new__(cls, name, bases, namespace):
                return super().__new__(cls, name, bases, {**namespace, "extra": OFFSET})

        class Made(metaclass=Meta):
            def __call__(self, batch):
                return [x + self.extra for x in batch]

        @dataclass
        class Data:
            parts: list = field(default_factory=lambda: [OFFSET])
            def __call__(self, batch):
                return [x + self.parts[0] for x in batch]

        class Holder:
            class Inner:
                def __call__(self, batch):
                    return plain(batch)

        ship(plain=plain, stacked=stacked, asynchronous=asynchronous, indented=indented, made=Made,
             data=Data, inner=Holder.Inner)
        """)
    assert {(ref["via"], ref["module"]) for ref in shipped["refs"].values()} == {("source", MAIN)}
    results = shipper.call(shipped)
    assert len(results) == 7
    assert all(result == [11, 12] for result in results.values()), results


def test_what_source_cannot_express_travels_by_cloudpickle(shipper: Shipper) -> None:
    shipper.write(
        "beside.py",
        """\
        def add(x, n): return x + n
        class Callable:
            def __init__(self, n): self.n = n
            def __call__(self, batch): return [add(x, self.n) for x in batch]
        def make(n): return lambda batch: [add(x, n) for x in batch]
        """,
    )
    shipper.write("lazy.py", "TEN = 10\n")
    shipped = shipper.run("""\
        import functools
        import beside
        from shipping import ship

        def make(n):
            def closure(batch):
                import lazy
                return [beside.add(x, n) for x in batch if lazy.TEN]
            return closure

        def two(n, batch):
            return [x + n for x in batch]

        class Mapper:
            def __init__(self, n): self.n = n
            def __call__(self, batch): return two(self.n, batch)

        instance = Mapper(10)
        if __name__ == "__main__":
            N = 10
            def guarded(batch): return two(N, batch)
            ship(closure=make(10), anonymous=lambda batch: two(10, batch),
                 partial=functools.partial(two, 10), instance=instance, method=Mapper(10).__call__,
                 imported=beside.Callable(10), made=beside.make(10), guarded=guarded)
        """)
    assert {ref["via"] for ref in shipped["refs"].values()} == {"pickle"}
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert shipped["notes"][0].startswith(f"closure travels by cloudpickle: Python {version} only")
    assert shipper.call(shipped) == {key: [11, 12] for key in shipped["refs"]}


def test_a_mapper_of_an_interactive_session_travels(shipper: Shipper) -> None:
    shipped = shipper.session("""\
        from shipping import ship
        N = 10
        def mapper(batch):
            return [x + N for x in batch]

        ship(mapper=mapper)
        """)
    assert shipped["refs"]["mapper"]["via"] == "pickle"
    assert shipper.call(shipped) == {"mapper": [11, 12]}


def test_modules_beside_the_script_travel_with_all_they_import(shipper: Shipper) -> None:
    shipper.write("helpers.py", "from pkg.deep import near\ndef scale(x): return near.TEN * x\n")
    shipper.write("pkg/__init__.py", "")
    shipper.write("pkg/deep/__init__.py", "")
    shipper.write("pkg/deep/near.py", "from ..base import TEN\n")
    shipper.write("pkg/base.py", "import third\nTEN = third.TEN\n")
    shipper.write("pkg/template.py", "{{ not python }}\n")
    shipper.write("third.py", "TEN = 10\n")
    shipper.write("loose/part.py", "ONE = 1\n")
    shipper.write("lazy.py", "ZERO = 0\n")
    (shipper.elsewhere / "helpers.py").write_text("raise SystemExit('the wrong one')")
    shipped = shipper.run("""\
        from shipping import ship
        from helpers import scale
        from loose import part

        def mapper(batch):
            import lazy
            return [scale(x) + part.ONE + lazy.ZERO for x in batch]

        ship(mapper=mapper)
        """)
    assert shipper.call(shipped) == {"mapper": [11, 21]}


def test_a_mapper_of_an_imported_module_travels_with_its_module(shipper: Shipper) -> None:
    shipper.write("work.py", "import beside\ndef mapper(batch): return [x + beside.TEN for x in batch]\n")
    shipper.write("beside.py", "TEN = 10\n")
    shipped = shipper.run("from shipping import ship\nimport work\nship(mapper=work.mapper)\n")
    assert shipped["refs"]["mapper"] == {"via": "source", "module": "work", "name": "mapper"}
    assert shipper.call(shipped) == {"mapper": [11, 12]}


def test_a_file_loaded_by_its_path_finds_its_neighbours_in_workers(shipper: Shipper) -> None:
    jobs = shipper.write("jobs/enrich.py", """\
        raise_again = print("side effect")
        def mapper(batch):
            import neighbour
            return [x + neighbour.TEN for x in batch]
        """)  # fmt: skip
    shipper.write("jobs/neighbour.py", "TEN = 10\n")
    shipped = shipper.run(f"""\
        import sys
        from importlib.util import module_from_spec, spec_from_file_location
        from shipping import ship
        spec = spec_from_file_location("_job_file_1", {str(jobs)!r})
        module = sys.modules["_job_file_1"] = module_from_spec(spec)
        spec.loader.exec_module(module)
        ship(mapper=module.mapper)
        """)
    assert shipped["refs"]["mapper"]["module"] == "skybatch_file_enrich"
    assert shipper.call(shipped) == {"mapper": [11, 12]}


def test_a_script_run_as_a_module_keeps_its_relative_imports(shipper: Shipper) -> None:
    shipper.write("pkg/__init__.py", "")
    shipper.write("pkg/near.py", "TEN = 10\n")
    shipper.write("pkg/job.py", "from shipping import ship\nfrom .near import TEN\n"
                  "def mapper(batch): return [x + TEN for x in batch]\nship(mapper=mapper)\n")  # fmt: skip
    shipped = shipper._ended([sys.executable, "-m", "pkg.job"], cwd=shipper.user)
    assert shipper.call(shipped) == {"mapper": [11, 12]}


def test_data_files_beside_the_script_are_found(shipper: Shipper) -> None:
    shipper.write("labels.txt", "10")
    shipped = shipper.run("""\
        from pathlib import Path
        from shipping import ship
        TEN = int((Path(__file__).parent / "labels.txt").read_text())
        def mapper(batch): return [x + TEN for x in batch]
        ship(mapper=mapper)
        """)
    assert shipper.call(shipped) == {"mapper": [11, 12]}


def test_installed_objects_travel_as_a_name(shipper: Shipper) -> None:
    shipped = shipper.run("from shipping import ship\nimport json\nship(mapper=json.dumps, reader=dict)\n")
    assert shipped["refs"] == {
        "mapper": {"via": "import", "module": "json", "name": "dumps"},
        "reader": {"via": "import", "module": "builtins", "name": "dict"},
    }
    assert sorted(os.listdir(shipped["stored"])) == ["manifest.json"]


def test_a_traceback_shows_the_line_of_the_users_file(shipper: Shipper) -> None:
    shipped = shipper.run("""\
        from shipping import ship

        def mapper(batch):
            import traceback
            try:
                raise KeyError("gone")  # line 6
            except KeyError:
                return traceback.format_exc()
        ship(mapper=mapper)
        """)
    script = shipper.user / "script.py"
    for _ in range(2):  # compiled, and then from what was kept of that
        shown = shipper.call(shipped)["mapper"]
        assert f'"{script}", line 6' in shown and 'raise KeyError("gone")' in shown
    script.write_text("# edited since\n" + script.read_text())
    shown = shipper.call(shipped)["mapper"]
    assert f'"{shipped["stored"]}' in shown and 'line 6' in shown and 'raise KeyError("gone")' in shown


EDITABLE = """\
from shipping import ship
OFFSET = {offset}
def mapper(batch):
    return [x + OFFSET for x in batch]
ship(mapper=mapper)
{more}
"""


def test_an_edited_mapper_runs_as_it_was_and_is_named(shipper: Shipper) -> None:
    shipped = shipper.run(EDITABLE.format(offset=10, more=""))
    stored = Path(shipped["stored"])
    script = shipper.write("script.py", "# moved\n\n" + EDITABLE.format(offset="10  # ten", more="print(1)"))
    assert changed_since(stored) == [], "comments, layout and unused parts do not matter"
    shipper.write("script.py", EDITABLE.format(offset=20, more=""))
    assert changed_since(stored) == [str(script)]
    assert shipper.call(shipped) == {"mapper": [11, 12]}
    script.unlink()
    assert changed_since(stored) == [str(script)]


def test_changed_code_can_be_taken_without_running_the_script(shipper: Shipper) -> None:
    shipper.write("beside.py", "OFFSET = 10\n")
    script = EDITABLE.format(offset="beside.OFFSET", more="").replace("OFFSET =", "import beside\nOFFSET =")
    shipped = shipper.run(script)
    shipper.write("beside.py", "OFFSET = 20\n")
    shipper.write("script.py", script + "raise SystemExit('run again')\n")
    again = recapture(Path(shipped["stored"]))
    stored = again.store(shipper.code)
    assert str(stored) != shipped["stored"]
    assert shipper.call({"stored": str(stored), "refs": again.refs}) == {"mapper": [21, 22]}
    shipper.write("script.py", "pass\n")
    with pytest.raises(MapperError, match="does not define 'mapper'"):
        recapture(stored)


def test_the_hash_is_the_same_in_another_process(shipper: Shipper) -> None:
    shipper.write("beside.py", "TEN = {1, 2, 3}\n")
    script = EDITABLE.format(offset=10, more="import beside")
    first, second = shipper.run(script), shipper.run(script)
    assert first["stored"] == second["stored"]
    assert first["stored"] != shipper.run(EDITABLE.format(offset=11, more=""))["stored"]


def test_the_fingerprint_is_the_same_where_pickles_differ(shipper: Shipper) -> None:
    script = """\
        from shipping import ship
        def make(names):
            return lambda batch: [x for x in batch if x in {"a", "b", "c", "d"} or x in names]
        class Mapper:
            def __call__(self, batch): return NAME
        NAME = "this"
        ship(mapper=make({"e", "f", "g"}), other=Mapper())
        """
    first, second = shipper.run(script), shipper.run(script)
    assert first["fingerprint"] == second["fingerprint"]
    assert first["fingerprint"] != shipper.run(script.replace("this", "that"))["fingerprint"]


def test_a_typo_is_told_before_any_work_starts(shipper: Shipper) -> None:
    shipped = shipper.run(
        "from shipping import ship\ndef mapper(batch):\n    return btach\nship(mapper=mapper)\n"
    )
    assert shipped["error"].startswith(str(shipper.user / "script.py") + ":3: name 'btach' is not defined")


def test_a_huge_package_is_refused_by_name(shipper: Shipper) -> None:
    shipper.write("huge/__init__.py", "")
    (shipper.user / "huge" / "data.py").write_bytes(b"#" * (51 << 20))
    shipped = shipper.run("import huge\nfrom shipping import ship\n"
                          "def mapper(batch): return huge\nship(mapper=mapper)\n")  # fmt: skip
    assert "package 'huge'" in shipped["error"]


def test_what_cannot_be_pickled_is_an_error_with_its_cause(shipper: Shipper) -> None:
    shipped = shipper.run("""\
        import threading
        from shipping import ship
        def make():
            lock = threading.Lock()
            return lambda batch: lock
        ship(mapper=make())
        """)
    assert "cannot be sent to workers" in shipped["error"] and "lock" in shipped["error"]


def _stored(folder: Path, value: bytes, python: str) -> tuple[Path, dict[str, dict[str, str]]]:
    refs = {"mapper": {"via": "pickle", "file": "pickles/mapper.pkl", "python": python}}
    captured = Captured(
        refs=refs, files={"pickles/mapper.pkl": value}, origins={}, slices={}, pickle_imports=[], notes=[]
    )
    return captured.store(folder), refs


@pytest.fixture
def unchanged_imports(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, object]]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr("skybatch.worker.code._StoredModules.current", None)
    return load


def test_a_pickle_of_another_python_is_refused(tmp_path: Path, unchanged_imports: Any) -> None:
    stored, refs = _stored(tmp_path, pickle.dumps(1), "3.9")
    with pytest.raises(MapperError, match=r"from Python 3\.9, and this worker runs Python 3\.1"):
        unchanged_imports(stored, refs)


def test_a_worker_without_cloudpickle_is_told_what_to_install(
    tmp_path: Path, unchanged_imports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = capture({"mapper": lambda batch: batch})
    for name in [name for name in sys.modules if name.startswith("cloudpickle")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(MapperError, match="pip install cloudpickle"):
        unchanged_imports(shipped.store(tmp_path), shipped.refs)


def test_code_that_others_could_have_written_is_not_run(tmp_path: Path, unchanged_imports: Any) -> None:
    stored, refs = _stored(tmp_path, pickle.dumps(1), f"3.{sys.version_info[1]}")
    (tmp_path / "link").symlink_to(stored)
    with pytest.raises(UntrustedFolder):
        unchanged_imports(tmp_path / "link", refs)
    stored.chmod(0o777)
    with pytest.raises(UntrustedFolder):
        unchanged_imports(stored, refs)


def test_stored_code_is_private_and_storing_twice_changes_nothing(tmp_path: Path) -> None:
    stored, _ = _stored(tmp_path / "code", b"x", "3.11")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "code").rglob("*") if path.is_file()}
    assert modes == {0o600} and stat.S_IMODE(stored.stat().st_mode) == 0o700
    before = (stored / "pickles" / "mapper.pkl").stat().st_ino
    assert _stored(tmp_path / "code", b"x", "3.11")[0] == stored
    assert (stored / "pickles" / "mapper.pkl").stat().st_ino == before
    assert [path.name for path in (tmp_path / "code").iterdir()] == [stored.name]


def module_level_mapper(batch: list[int]) -> list[int]:
    return [len(MAIN) + x for x in batch]


def test_an_object_of_a_test_module_travels(shipper: Shipper) -> None:
    # pytest's importlib mode gives modules names that no import would find.
    captured = capture({"mapper": module_level_mapper})
    assert captured.refs["mapper"]["via"] == "source"
    shipped = {"stored": str(captured.store(shipper.code)), "refs": captured.refs}
    assert shipper.call(shipped) == {"mapper": [len(MAIN) + 1, len(MAIN) + 2]}
