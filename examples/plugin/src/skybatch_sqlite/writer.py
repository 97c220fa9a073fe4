"""`SqliteWriter`: results as a table."""

import json
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from typing import ClassVar

from skybatch.errors import ResultError, UsageError
from skybatch.io_formats import Assembler, SegmentWriter
from skybatch_sqlite.reader import name

AS_IT_IS = (type(None), bool, int, float, str)


@dataclass
class SqliteWriter(SegmentWriter):
    """One database with one `table`: a row per result, in the items' order, with these `columns`."""

    path: str
    columns: list[str]
    table: str = "results"

    accepts_any_count: ClassVar[bool] = True  # a batch may have no results, or many

    def check(self):
        """Called once, before there is a job."""
        if not isinstance(self.columns, list) or not self.columns:
            raise UsageError(f"SqliteWriter({self.path!r}): columns must be a list of names, not {self.columns!r}")

    def encode(self, results, start_idx):
        """In a worker: one batch as bytes, a line of JSON per row."""
        rows = (self._row(result, item) for item, result in enumerate(results, start_idx))
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    def _row(self, result, item):
        return [self._value(result, column, item) for column in self.columns]

    def _value(self, result, column, item):
        if column not in result:
            raise ResultError(f"item {item}: the result has no {column!r}; it has {', '.join(result)}", item=item)
        value = result[column]
        try:
            text = json.dumps(value, allow_nan=False)
            return value if isinstance(value, AS_IT_IS) else text
        except (TypeError, ValueError) as error:
            raise ResultError(f"item {item}, key {column!r}: {error}", item=item) from None

    def assembler(self, sink, survey):
        """In the engine: a database is no concatenation of batches, so it is put together from them."""
        return Database(sink, self.table, self.columns)


class Database(Assembler):
    """Inserts the batches, in order, in one transaction; then the file is copied to where the engine wants it."""

    def __init__(self, sink, table, columns):
        self._sink, self._table, self._columns = sink, name(table), ", ".join(map(name, columns))
        self._marks = ", ".join("?" * len(columns))
        self._folder = self._connection = None  # made when the first batch comes: many an assembler gets none

    def add(self, payload):
        if self._connection is None:
            self._create()
        rows = (json.loads(line) for line in payload.splitlines())
        self._connection.executemany(f"INSERT INTO {self._table} VALUES ({self._marks})", rows)

    def finish(self):
        if self._connection is None:
            self._create()
        self._connection.commit()
        self._connection.close()
        with open(f"{self._folder}/results.db", "rb") as file:
            shutil.copyfileobj(file, self._sink, 1 << 20)
        shutil.rmtree(self._folder)

    def _create(self):
        self._folder = tempfile.mkdtemp(prefix="skybatch-sqlite-")
        self._connection = sqlite3.connect(f"{self._folder}/results.db", check_same_thread=False, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")
        self._connection.execute(f"CREATE TABLE {self._table} ({self._columns})")

    def __del__(self):
        if self._folder is not None and os.path.exists(self._folder):  # given up before the end
            self._connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)
