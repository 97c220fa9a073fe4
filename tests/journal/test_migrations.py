"""An older journal becomes what a new one is, with what it remembered."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from skybatch.journal import Changes, Journal, Reader, migrations
from tests.journal.support import failure, new_journal

VERSION_1 = Path(__file__).with_name("version_1.sql")
STRUCTURE = """
    SELECT m.type, m.name, m.tbl_name, x.cid, x.name, x.type, x."notnull", x.dflt_value, x.pk, x.hidden,
        CASE WHEN m.type IN ('view', 'trigger') THEN m.sql END
    FROM sqlite_master m LEFT JOIN pragma_table_xinfo(m.name) x ORDER BY 1, 2, 4
"""
INDEXES = """
    SELECT m.name, l.name, l."unique", l.origin, l.partial, x.seqno, x.name, x."desc"
    FROM sqlite_master m JOIN pragma_index_list(m.name) l JOIN pragma_index_xinfo(l.name) x
    WHERE m.type = 'table' ORDER BY 1, 2, 6
"""


def _old_journal(path: Path) -> None:
    sql = sqlite3.connect(path)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.executescript(VERSION_1.read_text())
    sql.execute("INSERT INTO job (id, name, created_at, state, epoch, length, batch_size, updated_at)"
                " VALUES ('old', 'n', 1, 'paused', 3, 100, 10, 1)")  # fmt: skip
    sql.execute("INSERT INTO runs (start, end, size, state, attempt) VALUES (0, 9, 10, 'dead', 4)")
    sql.commit()
    sql.close()


def _shape(path: Path) -> list[object]:
    sql = sqlite3.connect(path)
    try:
        queries = (STRUCTURE, INDEXES, "PRAGMA user_version", "PRAGMA application_id", "PRAGMA journal_mode",
                   "SELECT migration_set, name FROM _sqlite_migrations")  # fmt: skip
        return [sql.execute(query).fetchall() for query in queries]
    finally:
        sql.close()


def test_a_migrated_journal_equals_a_fresh_one(tmp_path: Path) -> None:
    _old_journal(tmp_path / "old.db")
    Journal.open(tmp_path / "old.db").close()
    new_journal(tmp_path / "new.db").close()
    assert _shape(tmp_path / "old.db") == _shape(tmp_path / "new.db")


def test_what_was_remembered_stays_and_work_goes_on(tmp_path: Path) -> None:
    _old_journal(tmp_path / "old.db")
    with Journal.open(tmp_path / "old.db") as journal:
        assert (journal.job().id, journal.epoch) == ("old", 3)
        assert [run.state for run in journal.runs()] == ["dead"]
        journal.commit(Changes(failures=[failure(0, 9)]))
    with Journal.open(tmp_path / "old.db") as journal:
        assert journal.failures() == [failure(0, 9)]


def test_an_older_journal_can_be_read_without_migrating_it(tmp_path: Path) -> None:
    _old_journal(tmp_path / "old.db")
    before = (tmp_path / "old.db").read_bytes()
    with Reader(tmp_path / "old.db") as reader:
        assert reader.job().state == "paused"
        assert reader.counts().dead_items == 10
        assert len(list(reader.dead_failures())) == 1
    assert (tmp_path / "old.db").read_bytes() == before


def test_a_migration_that_fails_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.db"
    _old_journal(path)
    sql = sqlite3.connect(path)
    sql.execute("CREATE INDEX grants_by_start ON grants (id)")  # in the way of the second statement
    sql.close()
    with pytest.raises(Exception, match="already exists"):
        Journal.open(path)
    sql = sqlite3.connect(path)
    assert sql.execute("PRAGMA user_version").fetchone() == (1,)
    assert sql.execute("SELECT count(*) FROM sqlite_master WHERE name = 'failures_by_start'").fetchone() == (
        0,
    )
    sql.close()


def test_a_new_journal_lists_every_migration_as_applied(tmp_path: Path) -> None:
    from sqlite_utils import Database

    new_journal(tmp_path / "new.db").close()
    database = Database(tmp_path / "new.db")
    assert tuple(row["name"] for row in database["_sqlite_migrations"].rows) == migrations.NAMES
    database.close()
