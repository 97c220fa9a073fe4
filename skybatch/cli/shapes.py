"""What `--json` writes; docs/cli.md is made from these. Fields may be added, and are never changed or removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from skybatch.engine.job import Job

DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """One job of `skybatch list`."""

    id: Annotated[str, "the job's id"]
    name: Annotated[str, "the name given to it, or its mapper's"]
    state: Annotated[str, "as journalled; `damaged` when the journal cannot be read"]
    engine_running: Annotated[bool, "whether an engine runs it now"]
    created_at: Annotated[float, "seconds since 1970"]
    items: Annotated[int | None, "items of the dataset; null until known"]
    items_done: Annotated[int, "items whose result is accepted"]
    items_dead: Annotated[int, "items set aside after all their retries"]


@dataclass(frozen=True, kw_only=True)
class OutputStatus:
    """One output of `skybatch status`."""

    path: Annotated[str, "where the output is, or will be"]
    state: Annotated[str, "`open`, `publishing`, `published` or `cleaned`"]


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker of a running job, in `skybatch status`."""

    name: Annotated[str, "its slot's name, by which its log is called"]
    place: Annotated[str, "the host or device it is on; empty for this machine"]
    mode: Annotated[str, "`direct`: it reads and writes storage itself; `relayed`: this machine does for it"]
    state: Annotated[str, "`starting`, `ready` or `draining` (its slot is wanted no more)"]
    ranges: Annotated[int, "ranges in its hands"]


@dataclass(frozen=True, kw_only=True)
class PlaceStatus:
    """One host or device of a running job, in `skybatch status`."""

    name: Annotated[str, "the host or device"]
    aside: Annotated[str | None, "why it is not used for now; null when it is"]
    facts: Annotated[dict[str, Any], "what it told of itself; of devices, memory and utilisation now"]


@dataclass(frozen=True, kw_only=True)
class JobStatus(JobSummary):
    """`skybatch status`."""

    cause: Annotated[str | None, "why it is paused, cancelled, failed, in conflict or damaged; else null"]
    ranges: Annotated[int, "ranges it consists of"]
    ranges_done: Annotated[int, "ranges whose result is accepted"]
    epoch: Annotated[int, "how many engines have run it"]
    items_per_s: Annotated[float | None, "items per second since the job was made; null before the first result"]
    finished_at: Annotated[float | None, "seconds since 1970; null while unfinished"]
    folder: Annotated[str, "where its journal, code and logs are"]
    outputs: Annotated[list[OutputStatus], "its outputs, in the order given"]
    next_command: Annotated[str | None, "the command that goes on; null when nothing is left to do"]
    workers: Annotated[list[WorkerStatus], "its workers, while an engine runs it"]
    places: Annotated[list[PlaceStatus], "hosts and devices, while an engine runs it on such"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failed try of `skybatch errors`."""

    start: Annotated[int, "first item of the range"]
    end: Annotated[int, "last item of the range, inclusive"]
    item: Annotated[int | None, "the item at fault, once known"]
    attempt: Annotated[int, "which try it was, from 1"]
    kind: Annotated[str, "`mapper`, `memory`, `timeout`, `lost`, `read`, `write`, ..."]
    message: Annotated[str, "the error in one line"]
    traceback: Annotated[str | None, "the mapper's own traceback"]
    worker: Annotated[str | None, "the worker, as its log is named"]
    at: Annotated[float, "seconds since 1970"]
    dead: Annotated[bool, "whether its items are set aside for good"]


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One log of `skybatch logs`."""

    name: Annotated[str, "`engine`, or `worker-N`"]
    path: Annotated[str, "the file"]
    bytes: Annotated[int, "its size"]


@dataclass(frozen=True, kw_only=True)
class PoolShape:
    """One pool of `skybatch pool list` and `pool show`."""

    name: Annotated[str, "the pool's name"]
    executor: Annotated[str, "the executor's name"]
    workers: Annotated[int | None, "workers per host; null: the executor's default"]
    env: Annotated[dict[str, str], "environment variables of the workers; secrets as `${ENV:NAME}`"]
    activate_env: Annotated[str | None, "shell line run before each worker"]
    setup: Annotated[str | None, "shell line that prepares a host"]
    options: Annotated[dict[str, Any], "the executor's own options"]


@dataclass(frozen=True, kw_only=True)
class SlotShape:
    """One slot of `skybatch pool check`."""

    slot: Annotated[str, "its name; empty for a place where no worker can be started"]
    place: Annotated[str, "the host or device; empty for this machine"]
    error: Annotated[str | None, "why no worker runs there; null when one does"]
    start_s: Annotated[float | None, "seconds from its start to a worker's first word"]
    round_trip_s: Annotated[float | None, "seconds to a worker there and back, the shortest of five"]
    facts: Annotated[
        dict[str, Any],
        "`host`, `python`, `executable`, `cpus`, `memory` and `disk_free` (bytes), `versions`, `gpus`",
    ]


@dataclass(frozen=True, kw_only=True)
class PluginShape:
    """One plugin of `skybatch plugins`."""

    name: Annotated[str, "the built-in's module, or the entry point's name"]
    version: Annotated[str, "its distribution's version"]
    location: Annotated[str, "the file it was loaded from"]
    provides: Annotated[tuple[str, ...], "such as `reader json`, `executor local`, `hook skybatch_job_started`"]
    error: Annotated[str | None, "why it could not be loaded; else null"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `skybatch doctor`."""

    name: Annotated[str, "what was looked at"]
    ok: Annotated[bool, "false: jobs will fail until it is mended"]
    found: Annotated[str, "what was found"]
    remedy: Annotated[str | None, "what to do; null when nothing is to be done"]


@dataclass(frozen=True, kw_only=True)
class TriedBatch:
    """One batch of `skybatch run --dry-run`. What JSON does not have is given by its Python repr."""

    start: Annotated[int, "its first item"]
    end: Annotated[int, "its last item, inclusive"]
    items: Annotated[list[dict[str, Any]] | None, "the items; null when they could not be read"]
    results: Annotated[list[dict[str, Any]] | None, "the results; null when it failed before there were any"]
    stage: Annotated[str | None, "what failed: `read`, `mapper` or `write`; null when nothing did"]
    item: Annotated[int | None, "the item at fault, where that is known"]
    error: Annotated[str | None, "the error in one line"]
    traceback: Annotated[str | None, "the traceback"]


@dataclass(frozen=True, kw_only=True)
class ProblemShape:
    """One problem that `skybatch fsck` found."""

    what: Annotated[str, "what is not as it should be"]
    remedy: Annotated[str, "the command that mends it"]


@dataclass(frozen=True, kw_only=True)
class ReportShape:
    """What `skybatch fsck` looked at, and what it found."""

    job_id: Annotated[str, "the job's id"]
    engine_running: Annotated[bool, "whether an engine ran it meanwhile: what that writes may look like a problem"]
    deep: Annotated[bool, "whether every stored byte was read"]
    items: Annotated[int | None, "items of the dataset; null until known"]
    winners: Annotated[int, "items whose result is accepted"]
    files: Annotated[int, "stored files with their results"]
    bytes: Annotated[int, "the size of these"]
    problems: Annotated[list[ProblemShape], "problems, each with what mends it"]
    notes: Annotated[list[str], "what is worth knowing, and no problem"]


@dataclass(frozen=True, kw_only=True)
class ExportedOutput:
    """One output of an exported job."""

    path: Annotated[str, "where it is, or will be"]
    state: Annotated[str, "`open`, `publishing`, `published` or `cleaned`"]
    token: Annotated[dict[str, Any] | None, "how the published output is recognised as this job's"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """`skybatch export`: a job as JSON, for records and other programs. Secrets are masked."""

    skybatch: Annotated[str, "the version that wrote this"]
    python: Annotated[str, "the Python that wrote this"]
    sqlite: Annotated[str, "its SQLite"]
    job: Annotated[JobStatus, "as `status` shows it"]
    input: Annotated[dict[str, Any], "the reader's class and fields"]
    mapper: Annotated[str, "where the mapper was found, and its name"]
    settings: Annotated[dict[str, Any], "batch size, retries, policies and the like"]
    fingerprint: Annotated[Any, "what the input looked like when it was planned; null until then"]
    codes: Annotated[dict[str, int], "items done, by the hash of the code that mapped them"]
    attempts: Annotated[dict[str, int], "items done, by how many tries their range took"]
    failures: Annotated[dict[str, int], "failed tries that are kept, by class"]
    outputs: Annotated[list[ExportedOutput], "its outputs, in the order given"]


SHAPES: dict[str, tuple[type, bool]] = {
    "run": (TriedBatch, True),
    "list": (JobSummary, True),
    "status": (JobStatus, False),
    "logs": (LogFile, True),
    "errors": (Failure, True),
    "fsck": (ReportShape, False),
    "export": (Exported, False),
    "pool list": (PoolShape, True),
    "pool show": (PoolShape, False),
    "pool check": (SlotShape, True),
    "plugins": (PluginShape, True),
    "doctor": (Check, True),
}
"""Each command's record, and whether it writes a list of them."""


def summary(job: Job) -> JobSummary:
    """The job as `list` shows it, also when its journal is damaged."""
    whole = status(job)
    return JobSummary(**{name: getattr(whole, name) for name in JobSummary.__dataclass_fields__})


def status(job: Job) -> JobStatus:
    """The job as `status` shows it, also when its journal is damaged."""
    from skybatch.engine import remedies
    from skybatch.errors import SkybatchError
    from skybatch.journal.reading import Reader

    name, created = _of_spec(job)
    crew = _crew(job)
    try:
        progress = job.progress()
        with Reader(job.folder.journal) as reader:
            row, outputs = reader.job(), reader.outputs()
            go_on = remedies.command(reader, job.spec)
    except SkybatchError as error:
        return _damaged(job, name, created, str(error))
    return JobStatus(
        id=job.id,
        name=name,
        state=row.state,
        engine_running=progress.engine_running,
        created_at=row.created_at,
        items=row.length,
        items_done=progress.items_done,
        items_dead=progress.items_dead,
        cause=row.cause,
        ranges=progress.ranges,
        ranges_done=progress.ranges_done,
        epoch=progress.epoch,
        items_per_s=progress.items_per_s,
        finished_at=row.finished_at,
        folder=str(job.folder.path),
        outputs=[OutputStatus(path=output.path, state=output.state) for output in outputs],
        next_command=next_command(job.id, row.state, progress.engine_running, go_on),
        workers=[WorkerStatus(**worker) for worker in crew.get("workers", [])],
        places=[PlaceStatus(**place) for place in crew.get("places", [])],
    )


def _crew(job: Job) -> dict[str, Any]:
    """Workers and places as the running engine tells of them; nothing where it has no time, or none runs."""
    from skybatch.engine import control

    return control.ask(job.folder, "workers") or {}


def _of_spec(job: Job) -> tuple[str, float]:
    from skybatch.errors import SkybatchError

    try:
        return job.name, job.spec.created_at
    except SkybatchError:
        return "", 0.0


def _damaged(job: Job, name: str, created: float, cause: str) -> JobStatus:
    return JobStatus(
        id=job.id,
        name=name,
        state=DAMAGED,
        engine_running=job.engine_running,
        created_at=created,
        items=None,
        items_done=0,
        items_dead=0,
        cause=cause,
        ranges=0,
        ranges_done=0,
        epoch=0,
        items_per_s=None,
        finished_at=None,
        folder=str(job.folder.path),
        outputs=[],
        next_command=f"skybatch clean --unfinished {job.id}",
        workers=[],
        places=[],
    )


def next_command(id: str, state: str, engine_running: bool, go_on: str) -> str | None:
    """What to type next for a job in this state; `go_on` for one that stands still."""
    if engine_running:
        return f"skybatch status {id} --watch"
    return None if state in ("published", "cleaned") else go_on
