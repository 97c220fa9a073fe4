"""A mapper that takes its time, and notes when it did."""

from __future__ import annotations

import os
import time
from typing import Any


class Paced:
    """Takes `seconds` for each batch; a line of worker, start and end in a file for each."""

    def __init__(self, seconds: float, note: str) -> None:
        self._seconds, self._note = seconds, note

    def __call__(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        start = time.monotonic()
        time.sleep(self._seconds)
        with open(self._note, "a") as file:
            file.write(f"{os.getpid()} {start} {time.monotonic()}\n")
        return batch
