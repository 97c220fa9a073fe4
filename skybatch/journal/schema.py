"""The journal's schema: what `docs/journal.md` shows is this text, letter for letter."""

from __future__ import annotations

APPLICATION_ID = 0x534B5942  # "SKYB"
VERSION = 5  # `user_version`; one more for every migration in migrations.py

SCHEMA = """\
-- The job; this table has exactly one row.
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,      -- all times are seconds since 1970
    state TEXT NOT NULL CHECK (state IN ('planning', 'running', 'reducing', 'publishing', 'published',
        'cleaned', 'paused', 'cancelled', 'failed', 'conflict')),
    cause TEXT,                    -- why it is paused, cancelled, failed or in conflict
    epoch INTEGER NOT NULL,        -- raised at every takeover, checked by every transaction
    length INTEGER,                -- items of the dataset; NULL until planned
    batch_size INTEGER NOT NULL CHECK (batch_size > 0),
    code_hash TEXT,                -- the code that new ranges run with
    input_fingerprint TEXT,        -- JSON: what the input looked like when it was planned
    spec_hash TEXT,
    finished_at REAL,              -- when it last came to a state that no engine works in
    updated_at REAL NOT NULL,
    fits INTEGER CHECK (fits > 0)  -- so many items at once fit into a worker's memory; NULL: it never ran out
);
CREATE TRIGGER job_has_one_row BEFORE INSERT ON job WHEN EXISTS (SELECT 1 FROM job)
BEGIN SELECT RAISE(ABORT, 'a journal holds one job'); END;

-- One stored file of results: the consecutive ranges of one answer.
CREATE TABLE segments (
    nonce TEXT PRIMARY KEY,        -- drawn in the worker; names the files
    start INTEGER NOT NULL,
    end INTEGER NOT NULL CHECK (end >= start),
    epoch INTEGER NOT NULL,
    worker TEXT NOT NULL,
    info TEXT NOT NULL             -- JSON from the worker: per output the file's name and size
);

-- Runs of consecutive ranges that share everything but their place. What no run covers is pending.
CREATE TABLE runs (
    start INTEGER PRIMARY KEY CHECK (start >= 0),
    end INTEGER NOT NULL CHECK (end >= start),       -- inclusive
    size INTEGER NOT NULL CHECK (size > 0),          -- items per range; the last range may be shorter
    state TEXT NOT NULL CHECK (state IN ('won', 'retrying', 'dead')),
    attempt INTEGER NOT NULL,                        -- tries charged to each of these ranges
    nonce TEXT REFERENCES segments (nonce),          -- where the winner's results are
    not_before REAL,                                 -- retrying: not granted before this time
    isolated INTEGER NOT NULL DEFAULT 0,             -- retrying: for a worker that has nothing else
    tries_left INTEGER,                              -- retrying: instead of the job's budget
    code TEXT,                                       -- hash of the code that ran
    charges TEXT,                                    -- retrying: JSON, what was charged by class of failure
    CHECK ((state = 'won') = (nonce IS NOT NULL))
);
CREATE INDEX runs_by_nonce ON runs (nonce) WHERE nonce IS NOT NULL;
CREATE TRIGGER runs_are_disjoint BEFORE INSERT ON runs
WHEN (SELECT end FROM runs WHERE start <= NEW.end ORDER BY start DESC LIMIT 1) >= NEW.start
BEGIN SELECT RAISE(ABORT, 'runs overlap'); END;

-- Ranges that their parts took over; a result for the whole is refused from then on.
CREATE TABLE splits (
    start INTEGER NOT NULL,
    end INTEGER NOT NULL CHECK (end > start),
    at REAL NOT NULL,
    parts INTEGER NOT NULL DEFAULT 2,                -- how many
    PRIMARY KEY (start, end)
) WITHOUT ROWID;
CREATE TRIGGER winners_are_unsplit BEFORE INSERT ON runs
WHEN NEW.state = 'won' AND EXISTS (
    SELECT 1 FROM splits WHERE start BETWEEN NEW.start AND NEW.end AND end - start < NEW.size)
BEGIN SELECT RAISE(ABORT, 'range was split'); END;

-- Ranges now in the hands of workers; what another epoch granted is gone with its engine.
CREATE TABLE grants (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    worker TEXT NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL CHECK (end >= start),
    size INTEGER NOT NULL CHECK (size > 0),
    attempt INTEGER NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX grants_by_start ON grants (start);

-- The newest 10,000 failed tries.
CREATE TABLE failures (
    id INTEGER PRIMARY KEY,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,            -- mapper, memory, timeout, lost, read, write, ...
    message TEXT NOT NULL,
    traceback TEXT,
    item INTEGER,                  -- the item at fault, once known
    worker TEXT,
    at REAL NOT NULL
);
CREATE INDEX failures_by_start ON failures (start);

-- The job's outputs and how far each one's publishing is.
CREATE TABLE outputs (
    idx INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'publishing', 'published', 'cleaned')),
    token TEXT,                    -- JSON: how the published output is recognised as ours
    progress TEXT,                 -- JSON: what of it is put together already, and where to go on
    replaces TEXT                  -- JSON: the token of this job's earlier publication, which may be replaced
);

-- Which migrations have been applied (kept by sqlite-utils).
CREATE TABLE _sqlite_migrations (
    id INTEGER PRIMARY KEY,
    migration_set TEXT,
    name TEXT,
    applied_at TEXT
);
CREATE UNIQUE INDEX idx__sqlite_migrations_migration_set_name ON _sqlite_migrations (migration_set, name);

-- Every range of the job exactly once, in order, pending and granted ones included.
CREATE VIEW ranges (start, end, state, attempt, nonce) AS
WITH RECURSIVE
    known AS (  -- all runs, and a sentinel behind the last item
        SELECT start, end, size, state, attempt, nonce FROM runs
        UNION ALL SELECT length, length, 1, NULL, 0, NULL FROM job WHERE length IS NOT NULL
    ),
    gaps AS (
        SELECT after AS start, start - 1 AS end
        FROM (SELECT start, lag(end, 1, -1) OVER (ORDER BY start) + 1 AS after FROM known)
        WHERE start > after
    ),
    pieces (start, end, stop, size, state, attempt, nonce) AS (
        SELECT start, min(start + size - 1, end), end, size, state, attempt, nonce FROM runs
        UNION ALL  -- pending ranges lie on the grid of the batch size
        SELECT gaps.start, min((gaps.start / batch_size + 1) * batch_size - 1, gaps.end), gaps.end,
            batch_size, 'pending', 0, NULL
        FROM gaps, job
        UNION ALL
        SELECT end + 1, min(end + size, stop), stop, size, state, attempt, nonce FROM pieces WHERE end < stop
        ORDER BY 1 LIMIT -1  -- without a limit SQLite drops the order
    )
SELECT pieces.start, pieces.end,
    CASE WHEN grants.id IS NULL THEN state ELSE 'granted' END,
    coalesce(grants.attempt, pieces.attempt),
    nonce
FROM pieces LEFT JOIN grants ON state IN ('pending', 'retrying') AND grants.end >= pieces.start
    AND grants.id = (SELECT id FROM grants WHERE start <= pieces.start ORDER BY start DESC LIMIT 1);
"""
