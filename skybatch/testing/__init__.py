"""Contracts as tests to inherit: `ReaderSuite`, `WriterSuite` and `ExecutorSuite`. Needs pytest."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("skybatch.testing.executors", "skybatch.testing.readers", "skybatch.testing.writers")

from skybatch.testing.executors import ExecutorSuite  # noqa: E402
from skybatch.testing.readers import ReaderSuite  # noqa: E402  # after the line that makes its failures readable
from skybatch.testing.writers import WriterSuite  # noqa: E402

__all__ = ["ExecutorSuite", "ReaderSuite", "WriterSuite"]
