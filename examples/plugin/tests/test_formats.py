"""The reader and the writer keep the contracts; and what is theirs alone."""

import sqlite3
from contextlib import closing

import pytest

from skybatch.errors import ResultError, UsageError
from skybatch.testing import ReaderSuite, WriterSuite
from skybatch_sqlite import SqliteReader, SqliteWriter

BOOKS = [{"id": 10 * n, "title": f"Über {n}", "price": n / 4} for n in range(8)]


def write(path, rows):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, price REAL)")
        connection.executemany("INSERT INTO books VALUES (:id, :title, :price)", rows)
    return str(path)


def read(path, table="books"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


class TestReader(ReaderSuite):
    """What every reader keeps, and columns of its own."""

    expected = BOOKS

    def make(self, tmp_path):
        return SqliteReader(write(tmp_path / "library.db", BOOKS), table="books")

    def change(self, tmp_path):
        with closing(sqlite3.connect(tmp_path / "library.db")) as connection, connection:
            connection.execute("UPDATE books SET price = 9 WHERE id = 30")

    def test_columns_are_chosen(self, tmp_path):
        reader = SqliteReader(write(tmp_path / "library.db", BOOKS), table="books", columns=["price", "id"])
        assert reader.download_batch(1, 1, "") == [{"price": 0.25, "id": 10}]

    @pytest.mark.parametrize("wrong", [{"table": "none"}, {"table": "books", "columns": ["none"]}])
    def test_a_table_or_column_that_is_not_there_is_refused(self, tmp_path, wrong):
        path = write(tmp_path / "library.db", BOOKS)
        with pytest.raises(UsageError, match="no such"):
            SqliteReader(path, **wrong).check()


class TestWriter(WriterSuite):
    """What every writer keeps, and what SQLite cannot hold."""

    results = BOOKS
    expected = [(book["id"], book["title"], book["price"]) for book in BOOKS]
    unwritable = {"id": 1, "title": object(), "price": 0}

    def make(self, tmp_path):
        return SqliteWriter(str(tmp_path / "out.db"), columns=["id", "title", "price"], table="books")

    def read(self, path):
        return read(path)

    def test_a_missing_column_is_named_with_those_that_are_there(self, writer):
        with pytest.raises(ResultError, match="item 4: the result has no 'price'; it has id, title"):
            writer.encode([{"id": 1, "title": ""}], 4)
