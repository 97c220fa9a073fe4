"""The contracts of readers and writers as tests to inherit: `ReaderSuite` and `WriterSuite`. Needs pytest."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("skybatch.testing.readers", "skybatch.testing.writers")

from skybatch.testing.readers import ReaderSuite  # noqa: E402  # after the line that makes its failures readable
from skybatch.testing.writers import WriterSuite  # noqa: E402

__all__ = ["ReaderSuite", "WriterSuite"]
