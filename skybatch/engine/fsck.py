"""Whether a job is what its journal says: the journal in itself, and against what lies in storage. Changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache

from skybatch.engine.folder import JobFolder
from skybatch.engine.spec import JobSpec
from skybatch.errors import SegmentDamaged, UntrustedFolder
from skybatch.formats import batchfiles, segment, storage, stores
from skybatch.formats.masking import masked
from skybatch.journal.lock import is_held
from skybatch.journal.reading import Reader
from skybatch.journal.rows import OutputRow, Run, Segment

TOLD_MAX = 20
"""So many problems of one kind are told one by one."""
STATES = {"published": {"published", "cleaned"}, "cleaned": {"cleaned"}}
"""What a job's outputs may be, when it is in one of these states."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is not as it should be, and the command that mends it."""

    what: str
    remedy: str


@dataclass(kw_only=True)
class Report:
    """What was looked at, and what was found."""

    job_id: str
    engine_running: bool  # then this is a moment's view: what it writes meanwhile may look like a problem
    deep: bool  # whether every stored byte was read
    items: int | None  # of the dataset; None until it is planned
    winners: int = 0  # items
    files: int = 0  # segments and batch files of winners
    bytes: int = 0  # of them
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is worth knowing, and no problem


def fsck(folder: JobFolder, *, deep: bool = False) -> Report:
    """Check a job; `deep` reads every stored byte too. Works while an engine runs it.

    Raises JournalDamaged when the journal cannot be read, and when its spec cannot.
    """
    spec = JobSpec.load(folder.spec)
    with Reader(folder.journal) as journal:
        row = journal.job()
        report = Report(job_id=spec.id, engine_running=is_held(folder.path), deep=deep, items=row.length)
        _Check(folder, spec, journal, report).run()
    return report


class _Check:
    """One check of one job."""

    def __init__(self, folder: JobFolder, spec: JobSpec, journal: Reader, report: Report) -> None:
        self._folder, self._spec, self._journal, self._report = folder, spec, journal, report
        self._job, self._outputs = journal.job(), journal.outputs()
        self._told: dict[str, int] = {}
        self._stat = lru_cache(maxsize=8)(_stat)
        self._index_of = segment.remembering()

    def run(self) -> None:
        """Look at everything."""
        self._look_at_folder()
        self._look_at_file()
        self._look_at_runs()
        self._look_at_outputs()
        self._look_at_winners()
        self._count_strays()
        for kind, count in self._told.items():
            if count > TOLD_MAX:
                self._report.notes.append(f"{count - TOLD_MAX} more like: {kind}")

    def _problem(self, kind: str, what: str, remedy: str) -> None:
        self._told[kind] = self._told.get(kind, 0) + 1
        if self._told[kind] <= TOLD_MAX:
            self._report.problems.append(Problem(what=what, remedy=remedy))

    @property
    def _rebuild(self) -> str:
        return f"skybatch rebuild {self._spec.id}"

    @property
    def _resume(self) -> str:
        return f"skybatch resume {self._spec.id}"

    # The journal in itself

    def _look_at_folder(self) -> None:
        try:
            self._folder.check_trusted()
        except UntrustedFolder as error:
            self._problem("folder", str(error), f"chmod -R go-w {self._folder.path}")
        stored = self._folder.code / (self._job.code_hash or self._spec.code)
        if not stored.is_dir():
            self._problem("code", f"{stored}: the job's code is not there", f"{self._resume} --code current")
        if self._job.spec_hash is not None and self._spec.identity() != self._job.spec_hash:
            self._problem("spec", f"{self._folder.spec}: not the spec that the journal was made for", self._rebuild)

    def _look_at_file(self) -> None:
        for verdict in self._journal.faults():
            self._problem("file", f"{self._folder.journal}: {verdict}", self._rebuild)

    def _look_at_runs(self) -> None:
        length, covered, last = self._job.length, 0, -1
        for run in self._journal.runs():
            what = f"items {run.start}-{run.end}, {run.state}"
            if run.start <= last:
                self._problem("overlap", f"{what}: others are journalled for some of them too", self._rebuild)
            if length is not None and run.end >= length:
                self._problem("beyond", f"{what}: the dataset has {length} items", self._rebuild)
            if run.state == "won":
                self._report.winners += run.end - run.start + 1
            last = max(last, run.end)
            covered += run.end - run.start + 1
        for start, end in self._journal.won_though_split():
            self._problem("split", f"items {start}-{end} are won as a whole, and were split before", self._rebuild)
        if self._job.state in STATES and covered != length:
            what = f"{self._job.state}, and {(length or 0) - covered} items are neither done nor set aside"
            self._problem("gap", what, self._rebuild)

    def _look_at_outputs(self) -> None:
        allowed = STATES.get(self._job.state, {"open", "publishing", "published"})
        for row in self._outputs:
            if row.state not in allowed:
                what = f"output {masked(row.path)} is {row.state}; the job is {self._job.state}"
                self._problem("output", what, self._resume)
            if row.state in ("published", "cleaned") and row.token is not None and not _stands(row):
                self._report.notes.append(f"output {masked(row.path)} is not there as this job published it")

    # The journal against storage

    def _look_at_winners(self) -> None:
        stored = [row for row in self._outputs if row.state != "cleaned"]
        before = ""
        for run, found in self._journal.winners():
            if run.start < found.start or run.end > found.end:
                what = f"items {run.start}-{run.end}: segment {found.nonce} has {found.start}-{found.end} only"
                self._problem("segment", what, self._rebuild)
            for row in stored:
                if found.info["files"][row.idx] is not None:
                    self._look_at_results(row, run, found, first=found.nonce != before)
            before = found.nonce

    def _look_at_results(self, row: OutputRow, run: Run, found: Segment, *, first: bool) -> None:
        file = found.info["files"][row.idx]
        path = f"{batchfiles.folder(row.path, self._spec.id)}/{file['name']}"
        try:
            size, version = self._stat(path)
            if size != file["size"]:
                raise SegmentDamaged(f"{masked(path)}: {size} bytes, and had {file['size']}")
            if None not in (version, file.get("version")) and version != file["version"]:
                raise SegmentDamaged(f"{masked(path)}: not the version that was stored")
            self._index_of(path).extent(run.start, run.end)
            if self._report.deep:
                for _ in segment.payloads(self._index_of(path), run.start, run.end, file.get("version")):
                    pass
        except SegmentDamaged as error:
            what = f"the results of items {run.start}-{run.end} are lost: {error}"
            self._problem("results", what, f"{self._resume} (they are mapped again)")
        if first:
            self._report.files += 1
            self._report.bytes += file["size"]

    def _count_strays(self) -> None:
        nonces = self._journal.nonces()
        for row in self._outputs:
            names = batchfiles.nonces(row.path, self._spec.id)
            strays = sum(1 for nonce in names if nonce not in nonces)
            if strays:
                where = masked(batchfiles.folder(row.path, self._spec.id))
                self._report.notes.append(f"{strays} files of lost attempts in {where}; they go when the job is done")


def _stat(path: str) -> tuple[int, str | None]:
    """Size and version. Raises SegmentDamaged."""
    try:
        if storage.is_local(path):
            return os.stat(path).st_size, None
        found = stores.of(path).info(path)
        return found.size, found.version
    except FileNotFoundError:
        raise SegmentDamaged(f"{masked(path)}: not there") from None


def _stands(row: OutputRow) -> bool:
    """Whether what was published is there still, as far as the token tells where that was."""
    from skybatch.formats.tokens import token_of

    token = row.token or {}
    if not storage.is_local(row.path) or "inode" not in token:
        return True
    places = [storage.local_path(row.path), f"{storage.local_path(row.path).rstrip('/')}/manifest.json"]
    return any(token_of(place) == token for place in places)
