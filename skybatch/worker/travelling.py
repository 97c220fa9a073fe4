"""Results from another machine, unpickled without trusting it: plain data of known kinds, and nothing that acts."""

from __future__ import annotations

import io
import pickle
from typing import Any

from skybatch.worker.frames import Bytes

KNOWN = {
    "builtins": {"bytearray", "complex", "frozenset", "range", "set", "slice"},
    "collections": {"OrderedDict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "uuid": {"UUID", "SafeUUID"},
    "zoneinfo": {"ZoneInfo._unpickle", "ZoneInfo"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "PIL.Image": {"Image"},
}
"""What may be made, by module: constructors of data."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A constructor of data; pickle.UnpicklingError for anything else."""
        if name in KNOWN.get(module, ()) or (module.startswith("PIL.") and name.endswith("ImageFile")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"a result holds a {module}.{name}, which does not travel between machines; return plain values:"
            " numbers, text, bytes, dates, lists, dicts, numpy arrays, PIL images"
        )


def loads(data: Bytes) -> Any:
    """What `data` holds. Raises pickle.UnpicklingError for anything but plain data."""
    return _Unpickler(io.BytesIO(data)).load()
