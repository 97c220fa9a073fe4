"""What a job remembers: one SQLite file, one writer, many readers, and the lock that says who writes."""

from skybatch.journal.journal import Journal
from skybatch.journal.lock import JobLock, holder, is_held
from skybatch.journal.reading import Reader
from skybatch.journal.rows import Changes, Counts, FailureRow, GrantRow, JobRow, OutputRow, Run, Segment

__all__ = [
    "Changes",
    "Counts",
    "FailureRow",
    "GrantRow",
    "JobLock",
    "JobRow",
    "Journal",
    "OutputRow",
    "Reader",
    "Run",
    "Segment",
    "holder",
    "is_held",
]
