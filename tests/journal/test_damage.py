"""What is not a whole journal of a known version is refused by name, and left as it is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from skybatch.errors import JournalDamaged
from skybatch.journal import Journal, Reader
from tests.journal.support import new_journal, won


def _random_bytes(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _random_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(os.urandom(4096))


def _random_leaf(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
        file.write(os.urandom(4096))


def _newer(path: Path) -> None:
    sql = sqlite3.connect(path)
    sql.execute("PRAGMA user_version = 99")
    sql.close()


def _foreign(path: Path) -> None:
    path.unlink()
    sql = sqlite3.connect(path)
    sql.execute("CREATE TABLE job (id)")
    sql.close()


def _no_job(path: Path) -> None:
    sql = sqlite3.connect(path)
    sql.execute("DELETE FROM job")
    sql.commit()
    sql.close()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "deleted": (Path.unlink, "missing"),
    "emptied": (lambda path: os.truncate(path, 0), "empty"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "damaged"),
    "a page short": (lambda path: os.truncate(path, path.stat().st_size - 4096), "damaged"),
    "headless": (lambda path: os.truncate(path, 60), "not a skybatch journal"),
    "random bytes": (_random_bytes, "damaged"),
    "a random page": (_random_page, "damaged"),
    "a random leaf": (_random_leaf, "damaged"),
    "newer": (_newer, "newer skybatch"),
    "another database": (_foreign, "not a skybatch journal"),
    "without a job": (_no_job, "no job"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_refused_by_name_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.db"
    with new_journal(path, length=10_000) as journal:
        for start in range(0, 10_000, 20):
            journal.commit(won(start, start + 9))
    inflict, reason = DAMAGES[damage]
    inflict(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(JournalDamaged, match=rf"journal\.db: .*{reason}") as caught:
        Journal.open(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 74
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize(
    "damage", ["deleted", "emptied", "headless", "random bytes", "newer", "another database"]
)
def test_a_reader_refuses_what_it_cannot_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.db"
    new_journal(path).close()
    inflict, reason = DAMAGES[damage]
    inflict(path)
    with pytest.raises(JournalDamaged, match=rf"journal\.db: .*{reason}"):
        Reader(path)
