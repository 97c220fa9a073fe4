import dataclasses

import pytest

from skybatch import plugins
from skybatch.errors import UnknownName
from skybatch.registry import OUTPUT_WRITER_REGISTRY, Registry


def test_a_decorated_class_is_found_under_its_name() -> None:
    registry = Registry("input reader")

    @registry.type_register(name="numbers")
    @dataclasses.dataclass
    class Numbers:
        count: int

    assert registry.get("numbers") is Numbers
    assert registry.name_of(Numbers) == "numbers"
    assert registry.names() == ["numbers"]
    assert [field.name for field in dataclasses.fields(Numbers)] == ["count"]


def test_registering_a_name_again_replaces_it_silently() -> None:
    registry = Registry("input reader")
    first = registry.type_register("numbers")(type("First", (), {}))
    second = registry.type_register("numbers")(type("Second", (), {}))
    assert registry.get("numbers") is second
    assert registry.name_of(first) == "numbers"


def test_a_subclass_does_not_inherit_the_name() -> None:
    registry = Registry("input reader")
    base = registry.type_register("numbers")(type("Base", (), {}))
    assert registry.name_of(type("Sub", (base,), {})) is None


def test_an_unknown_name_lists_the_candidates_and_the_nearest() -> None:
    registry = Registry("input reader")
    registry.type_register("numbers")(type("Numbers", (), {}))
    with pytest.raises(UnknownName, match=r"'numbres'; did you mean 'numbers'\?; known: numbers"):
        registry.get("numbres")


def test_the_name_of_a_built_in_may_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OUTPUT_WRITER_REGISTRY, "_classes", {})
    built_in = plugins.writer("text")

    @OUTPUT_WRITER_REGISTRY.type_register(name="text")
    class Own:
        pass

    assert plugins.writer("text") is Own is not built_in
