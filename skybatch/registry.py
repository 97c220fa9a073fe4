"""Names for readers and writers: decorate a class, and job files can say its name.

Standard library only: user code imports this in workers too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from skybatch.errors import UnknownName

T = TypeVar("T", bound=type)


class Registry:
    """Classes of one kind by name. Registering a name again replaces it; running jobs keep their class."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._classes: dict[str, type] = {}

    def type_register(self, name: str) -> Callable[[T], T]:
        """A class decorator: register the class as `name`, kept in its attribute `registered_name`."""

        def register(cls: T) -> T:
            cls.registered_name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return register

    def get(self, name: str) -> type:
        """The class registered as `name` in this process; raises UnknownName."""
        try:
            return self._classes[name]
        except KeyError:
            raise UnknownName(self._kind, name, self._classes) from None

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted(self._classes)

    def name_of(self, cls: type) -> str | None:
        """The name `cls` itself was registered as; None for an unregistered subclass of a registered one."""
        name = vars(cls).get("registered_name")
        return name if isinstance(name, str) else None


INPUT_READER_REGISTRY = Registry("input reader")
OUTPUT_WRITER_REGISTRY = Registry("output writer")
