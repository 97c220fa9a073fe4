"""Short ways to say things about journals in tests."""

from __future__ import annotations

from pathlib import Path

from skybatch.journal import Changes, FailureRow, GrantRow, JobRow, Journal, Run, Segment


def new_journal(path: Path, *, length: int | None = 100, batch_size: int = 10) -> Journal:
    job = JobRow(id="job", name="test", created_at=1.0, batch_size=batch_size, length=length)
    return Journal.create(path, job, ["out.jsonl"])


def won(start: int, end: int, size: int = 10, *, nonce: str | None = None) -> Changes:
    nonce = nonce or f"{start}-{end}"
    segment = Segment(nonce=nonce, start=start, end=end, epoch=1, worker="w", info={"size": end})
    run = Run(start=start, end=end, size=size, state="won", attempt=1, nonce=nonce)
    return Changes(won=[run], segments=[segment])


def retrying(start: int, end: int, size: int = 10, attempt: int = 1) -> Run:
    return Run(start=start, end=end, size=size, state="retrying", attempt=attempt)


def dead(start: int, end: int, size: int = 10) -> Run:
    return Run(start=start, end=end, size=size, state="dead", attempt=4)


def grant(id: int, start: int, end: int, size: int = 10, attempt: int = 1) -> GrantRow:
    return GrantRow(id=id, epoch=1, worker="w", start=start, end=end, size=size, attempt=attempt, at=1.0)


def failure(start: int, end: int) -> FailureRow:
    return FailureRow(start=start, end=end, attempt=1, kind="mapper", message="boom", at=1.0)


def ranges(journal: Journal) -> list[tuple[int, int, str]]:
    with journal._transaction() as sql:
        return sql.execute("SELECT start, end, state FROM ranges").fetchall()
