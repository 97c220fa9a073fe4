"""Plugins within this process; a real distribution is installed and used in tests/plugins/."""

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from skybatch import plugins
from skybatch.errors import UnknownName
from skybatch.hookspecs import hookimpl
from skybatch.registry import INPUT_READER_REGISTRY


class Tide:
    """A reader's stand-in."""


class TidePlugin:
    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    def skybatch_input_readers(self) -> Mapping[str, type]:
        return {"tide": Tide, "json": Tide}

    @hookimpl
    def skybatch_ranges_finished(self, job_id: str, ranges: object) -> None:
        self.heard.append((job_id, ranges))


class RudePlugin:
    @hookimpl
    def skybatch_ranges_finished(self) -> None:
        raise RuntimeError("rude")

    @hookimpl
    def skybatch_input_readers(self) -> Mapping[str, type]:
        raise RuntimeError("rude")


@pytest.fixture
def added() -> Iterator[TidePlugin]:
    """The plugins above, one that fails before and one after the good one."""
    tide = TidePlugin()
    made: list[object] = [RudePlugin(), tide, RudePlugin()]
    for plugin in made:
        plugins.manager().register(plugin)
    yield tide
    for plugin in made:
        plugins.manager().unregister(plugin)


def test_a_plugins_reader_is_found_by_name_and_another_plugins_exception_does_not_matter(
    added: TidePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    assert plugins.reader("tide") is Tide
    assert "rude" in caplog.text


def test_built_ins_cannot_be_taken_by_a_plugin(added: TidePlugin) -> None:
    from skybatch.formats.json_reader import JsonReader

    assert plugins.reader("json") is JsonReader


def test_what_the_process_registered_comes_before_built_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(INPUT_READER_REGISTRY, "_classes", {})
    own = INPUT_READER_REGISTRY.type_register("json")(type("Own", (), {}))
    assert plugins.reader("json") is own


@pytest.mark.parametrize("look_up", [plugins.reader, plugins.writer, plugins.executor])
def test_an_unknown_name_lists_what_is_known(look_up: object) -> None:
    with pytest.raises(UnknownName, match=r"known: .*(json|local)"):
        look_up("jsn")  # type: ignore[operator]


def test_every_built_in_name_is_found() -> None:
    assert plugins.reader("json") and plugins.writer("json") and plugins.writer("image")
    assert plugins.executor("local") and plugins.executor("inline")


def test_events_reach_every_plugin_though_one_raises(
    added: TidePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "skybatch"):
        plugins.notify("skybatch_ranges_finished", job_id="j", ranges=[(0, 9)])
    assert added.heard == [("j", [(0, 9)])]
    assert caplog.text.count("RuntimeError: rude") == 2


def test_what_is_loaded_names_its_place_and_what_it_provides(added: TidePlugin) -> None:
    shown = {plugin.name: plugin for plugin in plugins.loaded()}
    formats = shown["skybatch.formats.plugin"]
    assert {"reader json", "writer image", "writer json"} <= set(formats.provides)
    assert formats.location.endswith("skybatch/formats/plugin.py")
    assert any("reader tide" in plugin.provides for plugin in shown.values())


def test_an_event_without_plugins_installed_imports_no_pluggy() -> None:
    code = (
        "import sys; from skybatch import plugins; plugins.entry_points_exist = lambda: False;"
        "plugins.notify('skybatch_job_finished', job_id='j', state='cleaned');"
        "assert 'pluggy' not in sys.modules and 'importlib.metadata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("place", ["x-1.dist-info", "x.egg-info", "x-1.egg/EGG-INFO"])
def test_the_probe_sees_entry_points_wherever_an_installer_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / "other-1.dist-info").mkdir()
    (tmp_path / "old.egg-info").write_text("Name: old\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing")])
    finders = [each for each in sys.meta_path if not hasattr(each, "find_distributions")]
    monkeypatch.setattr(sys, "meta_path", [*finders, PathFinder])  # a library that is loaded may have brought another
    listing = tmp_path / place / "entry_points.txt"
    listing.write_text("[console_scripts]\nx = x:main\n")
    assert not plugins.entry_points_exist()
    listing.write_text("[console_scripts]\nx = x:main\n\n[skybatch]\nx = x\n")
    plugins._probe.cache_clear()
    assert plugins.entry_points_exist()


@pytest.fixture
def broken_entry_point(tmp_path: Path) -> Path:
    """A folder with three distributions' plugins: misspelt hook, failing import, and one that works."""
    for name, body in {
        "misspelt": "from skybatch.hookspecs import hookimpl\n@hookimpl\ndef skybatch_input_reader(): pass\n",
        "failing": "raise ImportError('no such driver')\n",
        "working": "from skybatch import registry\n"
        "registry.INPUT_READER_REGISTRY.type_register('working')(type('Working', (), {}))\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(body)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[skybatch]\n{name} = {name}\n")
    return tmp_path


def test_a_plugin_that_cannot_be_loaded_is_shown_and_stops_nothing(broken_entry_point: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(broken_entry_point)!r}); from skybatch import plugins\n"
        "assert plugins.reader('working').__name__ == 'Working'\n"
        "shown = {p.name: p for p in plugins.loaded()}\n"
        "assert 'no such driver' in shown['failing'].error, shown\n"
        "assert \"did you mean 'skybatch_input_readers'?\" in shown['misspelt'].error, shown\n"
        "assert shown['working'].error is None and shown['working'].version == '1.5'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
