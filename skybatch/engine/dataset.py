"""`Dataset.map`: check all that can be checked, freeze the job, and have it run."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skybatch import plugins
from skybatch.engine import code as shipping
from skybatch.engine import credentials, folder_claims, unfinished
from skybatch.engine import folder as folders
from skybatch.engine import spec as specs
from skybatch.engine.environment import resolve
from skybatch.engine.folder import JobFolder
from skybatch.engine.job import Job, announce, run_engine
from skybatch.engine.output_checks import check_places, check_stores
from skybatch.engine.placing import standing
from skybatch.engine.run import Formats
from skybatch.engine.run_options import RunOptions
from skybatch.engine.settings import JobSettings, check_least
from skybatch.engine.spec import JobSpec
from skybatch.errors import UsageError
from skybatch.formats import storage
from skybatch.formats.base import InputReader, OutputWriter
from skybatch.journal.journal import Journal
from skybatch.journal.lock import JobLock
from skybatch.journal.rows import JobRow
from skybatch.worker import mapper as mappers
from skybatch.worker import runtime

if TYPE_CHECKING:
    from skybatch.engine.pools import Pool
    from skybatch.engine.preview import Previewed


class Dataset:
    """An indexed dataset: whatever a reader reads, or its first `limit` items (a whole number, at least 1).

    Raises UsageError for anything else.
    """

    def __init__(self, reader: InputReader, *, limit: int | None = None) -> None:
        if not isinstance(reader, InputReader):
            raise UsageError(f"a Dataset is made from an InputReader, not {type(reader).__name__}")
        if limit is not None:
            check_least("limit", limit, 1)
        self.reader, self.limit = reader, limit

    @classmethod
    def from_items(cls, items: Iterable[dict[str, Any]], *, limit: int | None = None) -> Dataset:
        """A dataset of dicts that lie in memory, or come from a generator; their values must be those of JSON.

        They are written once to `$SKYBATCH_HOME/items/`, readable by you alone, in a file named by its content, so
        that workers read it and the job can be resumed; `skybatch clean` removes it with the last job that uses it.

        Raises UsageError naming the item that is no dict, or the key whose value JSON would not give back.
        """
        from skybatch.formats import items as kept
        from skybatch.formats.json_reader import JsonReader

        return cls(JsonReader(str(kept.keep(items, folders.items_folder()))), limit=limit)

    def __len__(self) -> int:
        return len(self.reader) if self.limit is None else min(len(self.reader), self.limit)

    def map(
        self,
        mapper: Any,
        pool_name: str | Pool | None = None,
        batch_size: int = 32,
        output: OutputWriter | Sequence[OutputWriter] | None = None,
        activate_env: str | None = None,
        stream: bool = True,
        *,
        executor: str | None = None,
        workers: int | None = None,
        mapper_args: Mapping[str, Any] | None = None,
        concurrency: int = 1,
        name: str | None = None,
        max_retries: int | Mapping[str, int] = 3,
        batch_timeout_s: float | None = None,
        on_error: str = "fail",
        max_failed_items: int | None = None,
        max_failed_fraction: float | None = None,
        speculate: bool = False,
        one_to_one: bool = True,
        overwrite: bool = False,
        resume: bool = False,
    ) -> Job:
        """Map every item once and publish the results; return when that is done.

        `mapper` is a function of a batch (a list of dicts) that returns a list of dicts, a class whose
        instances are such functions (made once per worker), an instance, one of those with async calls, or a
        `remote_function`. `mapper_args` (JSON) go to the function as keywords, or to the class.

        `batch_size` items make a range, the unit of retries. `output` is one writer or several. `pool_name`
        names a pool, or is one; `executor` and `workers` choose without one. `activate_env` is a shell line that the
        workers' Python is found after. `concurrency` is how many batches an async mapper has in flight.

        A range that fails is tried `max_retries` times more, with back-off; a mapping gives that number by class of
        failure: "mapper", "timeout", "memory" (which a plain number sets), "lost" (its worker died), "storage".
        `batch_timeout_s` seconds on one batch count as a failure. `on_error`: "fail" publishes nothing when items fail
        for good, after mapping the others; "skip" publishes without them. More than `max_failed_items` of those, or
        than `max_failed_fraction` (0 to 1) of all, stop the job at once. `speculate=True` has idle workers map slow
        ranges too, towards the end; the first result counts.

        `one_to_one=False` allows any number of results per item. `overwrite` allows the outputs to exist. With
        `stream=False` a detached engine runs the job, and this returns as soon as that holds the job's lock.

        A job with the same input, mapper and outputs that stands unfinished is an UnfinishedJob error, or is
        resumed, with the code it was started with, when `resume` is true.

        Raises UsageError and its kinds for what cannot work, OutputExists, JobFailed, Paused; each names the
        command that goes on. Nothing is asked on the terminal.
        """
        _refuse_in_worker()
        options = run_options(pool_name, executor, workers, activate_env)
        plan = _Plan(
            reader=self.reader,
            mapper=mapper,
            outputs=_outputs(output),
            arguments=dict(mapper_args or {}),
            one_to_one=one_to_one,
            concurrency=concurrency,
        )
        settings = JobSettings(
            batch_size=batch_size,
            concurrency=concurrency,
            max_retries=max_retries,
            batch_timeout_s=batch_timeout_s,
            on_error=on_error,
            max_failed_items=max_failed_items,
            max_failed_fraction=max_failed_fraction,
            speculate=speculate,
            overwrite=overwrite,
            limit=self.limit,
        )
        plan.check()
        check_stores(plan.outputs, inline=stream and plugins.executor(options.executor).in_this_process)
        called = name or str(getattr(mapper, "__name__", type(mapper).__name__))
        spec, captured = plan.freeze(name=called, settings=settings, run=options)
        home = folders.home()
        with folders.told_when_disk_fails(home):
            earlier = unfinished.find(home, spec, resume=resume)
        if earlier is not None:
            announce(earlier.id, "resumed")
            _tell_what_stays(earlier.spec, spec)
            return run_engine(earlier.folder, options if pool_name or executor or workers else None, stream)
        check_places(plan.outputs, overwrite=overwrite)
        formats = plan.formats()
        return _start(home, spec, captured, formats, options, stream)

    def preview(
        self,
        mapper: Any,
        *,
        limit: int | None = None,
        batch_size: int = 32,
        output: OutputWriter | Sequence[OutputWriter] | None = None,
        mapper_args: Mapping[str, Any] | None = None,
        concurrency: int = 1,
        one_to_one: bool = True,
    ) -> list[Previewed]:
        """Map the first `limit` items, one batch by default, in this process: no job, and nothing is written.

        The batches with their items, results and errors, also of what `output` could not write. The arguments are
        those of `map`. Raises UsageError as `map` does, and what the mapper raises before it has taken a batch.
        """
        if runtime.in_worker():
            raise UsageError("Dataset.preview() was called while a job's code was loaded or mapped")
        JobSettings(batch_size=batch_size, concurrency=concurrency)
        if limit is not None:
            check_least("limit", limit, 1)
        plan = _Plan(
            reader=self.reader,
            mapper=mapper,
            outputs=_outputs(output) if output else [],
            arguments=dict(mapper_args or {}),
            one_to_one=one_to_one,
            concurrency=concurrency,
        )
        plan.check()
        from skybatch.engine.preview import preview

        return preview(
            self.reader,
            mapper,
            plan.outputs,
            length=min(len(self), limit or batch_size),
            batch_size=batch_size,
            mapper_args=plan.arguments,
            concurrency=concurrency,
            one_to_one=one_to_one,
        )


def _refuse_in_worker() -> None:
    """Raise UsageError where this process maps, or loads what maps."""
    if runtime.in_worker():
        raise UsageError(
            "Dataset.map() was called while a job's code was loaded or mapped; a mapper cannot start jobs, and a "
            "call at the top level that stands in a block with definitions belongs under "
            "`if __name__ == '__main__':`"
        )


def run_options(
    pool_name: str | Pool | None, executor: str | None, workers: int | None, activate_env: str | None
) -> RunOptions:
    """The run's options from a pool and what overrides it.

    Raises UnknownName for a pool that is not there, UsageError when a variable it refers to is not set.
    """
    options = RunOptions()
    if pool_name is not None and pool_name != "local":
        from skybatch.engine import pools

        pool = pools.get(pool_name) if isinstance(pool_name, str) else pool_name
        resolve(pool.env)
        options = RunOptions.of(pool)
    if workers is not None:
        check_least("workers", workers, 1)
    given: dict[str, Any] = {"executor": executor, "workers": workers, "activate_env": activate_env}
    options = dataclasses.replace(options, **{key: value for key, value in given.items() if value is not None})
    options.check()
    return options


class _Plan:
    """What one `map()` call asks for, before it is a job."""

    def __init__(
        self,
        *,
        reader: InputReader,
        mapper: Any,
        outputs: list[OutputWriter],
        arguments: dict[str, Any],
        one_to_one: bool,
        concurrency: int,
    ) -> None:
        self.reader, self.mapper, self.outputs, self.arguments = reader, mapper, outputs, arguments
        self.one_to_one, self.concurrency = one_to_one, concurrency

    def check(self) -> None:
        """Raise UsageError or MapperError for what cannot work."""
        # First of all: later messages may repeat them.
        storage.check_path([self.reader.path, *(writer.path for writer in self.outputs)])
        credentials.refuse_in_urls(self.arguments)
        form = mappers.form_of(self.mapper)
        mappers.check_call(self.mapper, form, self.arguments)
        if self.concurrency > 1 and not mappers.is_async(self.mapper, form):
            raise UsageError("concurrency is for async mappers; for others, ask for more workers")
        self.reader.check()
        for writer in self.outputs:
            writer.check()
            if not self.one_to_one and not writer.accepts_any_count:
                raise UsageError(
                    f"{type(writer).__name__} needs one result per item (it does not set accepts_any_count); "
                    "one_to_one=False cannot be used with it"
                )
        paths = [specs.absolute_output(writer.path).rstrip("/") for writer in self.outputs]
        for path in paths:
            if paths.count(path) > 1:
                raise UsageError(f"two outputs have the same path: {path}")

    def freeze(self, *, name: str, settings: JobSettings, run: RunOptions) -> tuple[JobSpec, shipping.Captured]:
        """The job's spec, and its code."""
        objects: dict[str, object] = {"mapper": self.mapper, "reader": type(self.reader)}
        objects |= {f"output{k}": type(writer) for k, writer in enumerate(self.outputs)}
        captured = shipping.capture(objects)
        reader = specs.fields_of(self.reader, "reader")
        if type(self.reader).__module__.startswith("skybatch."):
            reader["path"] = specs.absolute_input(reader["path"])
        outputs = []
        for writer in self.outputs:
            fields = specs.fields_of(writer, "writer")
            outputs.append({**fields, "path": specs.absolute_output(writer.path)})
        replaces = [standing(writer) if settings.overwrite else None for writer in self.outputs]
        spec = JobSpec(
            id=folders.new_id(),
            name=name,
            created_at=time.time(),
            cwd=os.getcwd(),
            code=captured.hash,
            refs=captured.refs,
            reader=reader,
            outputs=outputs,
            mapper_args=self.arguments,
            one_to_one=self.one_to_one,
            replaces=replaces,
            run=dataclasses.asdict(run),
            **settings.to_spec(),
        )
        return spec, captured

    def formats(self) -> Formats:
        """Reader and writers for the engine, with the paths made absolute."""
        for writer in self.outputs:
            writer.path = specs.absolute_output(writer.path)
        return Formats(reader=self.reader, writers=self.outputs, mapper=self.mapper)


def _outputs(output: OutputWriter | Sequence[OutputWriter] | None) -> list[OutputWriter]:
    outputs = [output] if isinstance(output, OutputWriter) else list(output or ())
    if not outputs:
        raise UsageError("map() needs an output: a writer, or a list of writers")
    for writer in outputs:
        if not isinstance(writer, OutputWriter):
            raise UsageError(f"an output is an OutputWriter, not {type(writer).__name__}")
    return outputs


STAYING = (
    *("on_error", "max_failed_items", "max_failed_fraction", "max_retries", "speculate"),
    *("batch_timeout_s", "concurrency", "name"),
)
"""Settings that a call may give anew; the resumed job keeps its own."""


def _tell_what_stays(earlier: JobSpec, asked: JobSpec) -> None:
    """Say which settings of this call are not those that the resumed job goes on with."""
    for key in STAYING:
        stays, other = getattr(earlier, key), getattr(asked, key)
        if stays != other:
            way = f" (to change it: skybatch resume {earlier.id} --on-error {other})" if key == "on_error" else ""
            print(f"skybatch: the job goes on with its own {key}, {stays!r}, not with {other!r}{way}", file=sys.stderr)


def _start(
    home: Path,
    spec: JobSpec,
    captured: shipping.Captured,
    formats: Formats,
    options: RunOptions,
    stream: bool,
) -> Job:
    """Bring the job into being, and have it run here or by a detached engine."""
    with folders.told_when_disk_fails(home):
        folder = JobFolder.create(home, spec.id)
        lock = JobLock(folder.path)
        try:
            lock.acquire()
            folder.check_filesystem()
            with folder_claims.taken(formats.writers, spec.id):
                journal = _bring_into_being(folder, spec, captured, stream)
        except BaseException:
            lock.release()
            folder.discard_unborn()
            raise
    with lock:
        announce(spec.id, "started")
        for note in captured.notes:
            print(f"skybatch: {note}", file=sys.stderr)
        if stream:
            return run_engine(folder, options, stream, fresh=(spec, journal, formats, lock))
        journal.close()
    return run_engine(folder, options, stream)


def _bring_into_being(folder: JobFolder, spec: JobSpec, captured: shipping.Captured, stream: bool) -> Journal:
    """Write all that a resume needs; the spec, which says that the job exists, last."""
    captured.store(folder.code)
    row = JobRow(
        id=spec.id,
        name=spec.name,
        created_at=spec.created_at,
        batch_size=spec.batch_size,
        epoch=1 if stream else 0,  # the detached engine takes it over
        code_hash=spec.code,
        spec_hash=spec.identity(),
    )
    journal = Journal.create(folder.journal, row, [fields["path"] for fields in spec.outputs])
    spec.save(folder.spec)
    return journal
