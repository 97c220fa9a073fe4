"""`SqliteReader`: the rows of a table as items."""

import os
import sqlite3
from array import array
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from skybatch.errors import InputMissing, UsageError
from skybatch.io_formats import WindowReader

WINDOW_ROWS = 1000


@dataclass
class SqliteReader(WindowReader):
    """Each row of `table` is an item, in the order of the rowid; `columns` are those wanted, else all.

    The index is the rowids, eight bytes each, so that a range costs its own rows wherever it lies.
    """

    path: str
    table: str = ""
    columns: list[str] | None = None

    def check(self):
        """Called once, before there is a job: what is wrong is told now, in words of the user's."""
        if not os.path.isfile(self.path):
            raise InputMissing(f"input {self.path}: no such file")
        try:
            self._select(f"SELECT rowid, {self._wanted()} FROM {name(self.table)} LIMIT 1")
        except sqlite3.Error as error:
            raise UsageError(f"input {self.path}, table {self.table!r}: {error}") from None

    def fingerprint(self):
        """Another one when the file has changed, or the log that its latest changes lie in."""
        files = [path for path in (self.path, f"{self.path}-wal") if os.path.exists(path)]
        return {"files": [[os.stat(path).st_size, os.stat(path).st_mtime_ns] for path in files]}

    def build_index(self, folder):
        """Called once, in the engine."""
        rows = self._select(f"SELECT rowid FROM {name(self.table)} ORDER BY rowid")
        self._rowids = array("q", (rowid for (rowid,) in rows))
        with open(f"{folder}/rowids", "wb") as file:
            self._rowids.tofile(file)
        return len(self._rowids)

    def open_index(self, folder):
        """Called in each worker."""
        self._rowids = array("q", Path(folder, "rowids").read_bytes())

    def window_end(self, start, end):
        return min(end, start + WINDOW_ROWS - 1)

    def read_window(self, start, end):
        """On the reading thread: the rows of many batches at once."""
        between = (self._rowids[start], self._rowids[end])
        query = f"SELECT {self._wanted()} FROM {name(self.table)} WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
        return self._select(query, between, with_names=True)

    def decode(self, window, first, start, end):
        """On the mapper's thread: one batch of them, as dicts."""
        names, *rows = window
        return [dict(zip(names, row, strict=True)) for row in rows[start - first : end - first + 1]]

    def _wanted(self):
        # with the table's name, as SQLite takes a quoted name that is no column for a text
        return ", ".join(f"{name(self.table)}.{name(column)}" for column in self.columns) if self.columns else "*"

    def _select(self, query, parameters=(), *, with_names=False):
        """The rows, after the columns' names if wanted. A connection belongs to one thread: a new one each time."""
        with closing(sqlite3.connect(f"file:{quote(self.path)}?mode=ro", uri=True)) as connection:
            cursor = connection.execute(query, parameters)
            names = [tuple(column[0] for column in cursor.description)] if with_names else []
            return names + cursor.fetchall()


def name(identifier):
    """An identifier, quoted for SQL."""
    doubled = identifier.replace('"', '""')
    return f'"{doubled}"'
