"""SQLite tables as input and output of skybatch jobs."""

from skybatch_sqlite.reader import SqliteReader
from skybatch_sqlite.writer import SqliteWriter

__all__ = ["SqliteReader", "SqliteWriter"]
