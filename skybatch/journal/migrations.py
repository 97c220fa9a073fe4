"""From older schemas to the present one: in order, each in a transaction of its own.

A new journal is made from schema.py at once and lists all migrations as applied; `NAMES` says which.
"""

from __future__ import annotations

import sqlite3

SET = "skybatch"
NAMES = ("version_2", "version_3", "version_4", "version_5")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an older journal to the present schema. The caller holds the job's lock."""
    from sqlite_utils import Database, Migrations  # imports are slow; few journals are old

    migrations = Migrations(SET)

    @migrations()
    def version_2(database: Database) -> None:
        """Failures and grants are found by their place."""
        database.execute("CREATE INDEX failures_by_start ON failures (start)")
        database.execute("CREATE INDEX grants_by_start ON grants (start)")
        database.execute("PRAGMA user_version = 2")

    @migrations()
    def version_3(database: Database) -> None:
        """A merge that was begun is gone on with."""
        database.execute("ALTER TABLE outputs ADD COLUMN progress TEXT")
        database.execute("PRAGMA user_version = 3")

    @migrations()
    def version_4(database: Database) -> None:
        """The winners that a segment holds are found by it."""
        database.execute("CREATE INDEX runs_by_nonce ON runs (nonce) WHERE nonce IS NOT NULL")
        database.execute("PRAGMA user_version = 4")

    @migrations()
    def version_5(database: Database) -> None:
        """Failures are charged by class, the size that fits is remembered, outputs are published
        again, ranges are cut in more parts than two."""
        database.execute("ALTER TABLE job ADD COLUMN fits INTEGER CHECK (fits > 0)")
        database.execute("ALTER TABLE runs ADD COLUMN charges TEXT")
        database.execute("ALTER TABLE outputs ADD COLUMN replaces TEXT")
        database.execute("ALTER TABLE splits ADD COLUMN parts INTEGER NOT NULL DEFAULT 2")
        database.execute("PRAGMA user_version = 5")

    migrations.apply(Database(connection, execute_plugins=False))
