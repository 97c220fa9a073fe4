"""For what source cannot express: cloudpickle, with the user's own modules beside it as source."""

from __future__ import annotations

import dis
import io
import pickletools
import re
from types import CodeType, ModuleType
from typing import Any

import cloudpickle

_CLASS_TRACKER = re.compile("[0-9a-f]{32}")  # cloudpickle draws one per class and process


def pickle_by_value(value: object) -> tuple[bytes, set[str]]:
    """The pickle, and the top-level names of the modules that unpickling or running it imports.

    Objects of importable modules stay references: the caller ships those modules as source.
    """
    buffer = io.BytesIO()
    pickler = _WatchingPickler(buffer, protocol=5)
    pickler.dump(value)
    return buffer.getvalue(), {name.partition(".")[0] for name in pickler.modules}


def essence(pickled: bytes) -> bytes:
    """What a pickle holds, without the order and the numbering that vary from process to process."""
    held = sorted(
        f"{opcode.name} {argument!r}"
        for opcode, argument, _ in pickletools.genops(pickled)
        if opcode.name != "FRAME" and not opcode.name.endswith(("GET", "PUT"))
        if not (isinstance(argument, str) and _CLASS_TRACKER.fullmatch(argument))
    )
    return "\n".join(held).encode()


class _WatchingPickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    """Notes the modules of all that passes through it."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol=protocol)
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Called for each object before it is reduced."""
        if isinstance(obj, ModuleType):
            self.modules.add(obj.__name__)
        elif isinstance(obj, CodeType):
            self.modules |= {i.argval for i in dis.get_instructions(obj) if i.opname == "IMPORT_NAME"}
        else:
            kind = obj if isinstance(obj, type) or hasattr(obj, "__qualname__") else type(obj)
            self.modules.add(str(getattr(kind, "__module__", None) or ""))
        return super().reducer_override(obj)
