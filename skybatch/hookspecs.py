"""What a plugin can add to skybatch, and what it can be told.

A plugin is a module (or object) with functions of these names, marked `@hookimpl`, named by an entry point in
the group `skybatch`. All hooks run in the process that calls `Dataset.map` or the command, or, for a job run
with `stream=False`, in its detached engine; never in a worker. A plugin may leave out arguments it does not
need. An exception in a hook is logged and stops neither the job nor other plugins. For example:

    from skybatch import hookimpl

    @hookimpl
    def skybatch_job_finished(job_id, state):
        print(job_id, state)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROJECT = "skybatch"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def skybatch_input_readers() -> Mapping[str, type]:  # type: ignore[empty-body]
    """Input readers by the name that job files use.

    Called when a name is looked up that is not registered in this process, and when plugins are listed; may
    be called again. Names of built-ins are taken: a plugin's reader of such a name is never found.
    """


@hookspec
def skybatch_output_writers() -> Mapping[str, type]:  # type: ignore[empty-body]
    """Output writers by the name that job files use; called like `skybatch_input_readers`."""


@hookspec
def skybatch_executors() -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Executors by the name that pools use: a class or factory; called like `skybatch_input_readers`."""


@hookspec
def skybatch_job_started(job_id: str, spec: Any) -> None:
    """An engine has taken the job over and is about to grant ranges; `spec` is its JobSpec.

    Once per engine: a resumed job tells it again, with the same id.
    """


@hookspec
def skybatch_job_finished(job_id: str, state: str) -> None:
    """This engine is done with the job; `state` is what the journal says, `paused` and `failed` included.

    Once per engine that comes to an orderly end; never for one that was killed.
    """


@hookspec
def skybatch_ranges_finished(job_id: str, ranges: Sequence[tuple[int, int]]) -> None:
    """These ranges `(start, end)`, inclusive and in no set order, have a winner.

    Once per commit, after it, in the engine's loop: a slow hook slows the job. An engine killed between
    commit and hook never tells those ranges; a range whose stored result proves damaged is told twice.
    """


@hookspec
def skybatch_range_failed(job_id: str, start: int, end: int, kind: str, message: str) -> None:
    """One try at a range failed; it may be tried again.

    `kind` is the class of the failure (`mapper`, `memory`, `timeout`, `lost`, ...). After the commit that
    records it, once per failure, so several times for one range.
    """
