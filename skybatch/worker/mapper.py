"""The forms a mapper may have, and how each is driven over the batches of a session."""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skybatch.errors import MapperError
from skybatch.worker import runtime

if TYPE_CHECKING:
    import asyncio

    from skybatch.worker.session import Batch, Session

REMOTE, FUNCTION, CLASS, INSTANCE = "remote_function", "function", "class", "instance"


class RemoteFunction:
    """A function that takes batches from `load()` and hands results to `save_results()`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def remote_function(function: Callable[..., Any]) -> RemoteFunction:
    """Mark a function as a mapper that uses `skybatch.load()` and `skybatch.save_results()`.

    It is entered once per worker, and again for the batches that are left when it returns or raises early.
    """
    return RemoteFunction(function)


def form_of(mapper: object) -> str:
    """Which form `mapper` has. Raises MapperError when it has none."""
    if isinstance(mapper, RemoteFunction):
        return REMOTE
    if isinstance(mapper, type):
        if not any("__call__" in vars(base) for base in mapper.__mro__):
            raise MapperError(f"mapper class {mapper.__name__} has no __call__(batch)")
        return CLASS
    if not callable(mapper):
        raise MapperError(f"a mapper is a function, a class or a callable instance, not {type(mapper).__name__}")
    if inspect.isroutine(mapper) or isinstance(mapper, functools.partial):
        return FUNCTION
    return INSTANCE


def check_call(mapper: object, form: str, arguments: dict[str, Any]) -> None:
    """Raise MapperError when `mapper` cannot be called as its form is, with these mapper_args."""
    target: Any = mapper
    if form == INSTANCE and arguments:
        raise MapperError("mapper_args are for functions and classes; an instance has its state already")
    if form == REMOTE:
        target = mapper.function  # type: ignore[attr-defined]
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    name = getattr(target, "__name__", type(target).__name__)
    try:
        signature.bind(*([None] if form in (FUNCTION, INSTANCE) else []), **arguments)
    except TypeError as error:
        hint = "" if form != FUNCTION or signature.parameters else "; did you forget @skybatch.remote_function?"
        raise MapperError(
            f"mapper {name}{signature} cannot be called with a batch and its mapper_args: {error}{hint}"
        ) from None


def is_async(mapper: object, form: str) -> bool:
    """Whether calls of the mapper are awaited."""
    target: Any = mapper
    if form == CLASS:
        target = next((vars(base)["__call__"] for base in mapper.__mro__ if "__call__" in vars(base)), None)  # type: ignore[attr-defined]
    elif form == INSTANCE:
        target = type(mapper).__call__
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target)


def drive(session: Session, mapper: Any, arguments: dict[str, Any], concurrency: int) -> None:
    """Map every batch the session has. Returns when it has no more.

    Raises what the mapper raises before it has taken a batch: that is nobody's fault but its own.
    """
    form = form_of(mapper)
    if form == REMOTE:
        _drive_remote(session, mapper.function, arguments)
        return
    asynchronous = is_async(mapper, form)
    call = mapper(**arguments) if form == CLASS else functools.partial(mapper, **arguments) if arguments else mapper
    if asynchronous:
        import asyncio  # 13 ms that most mappers need not wait for

        asyncio.run(_drive_async(session, call, concurrency))
    else:
        _drive_calls(session, call)


def _drive_calls(session: Session, call: Callable[[Any], Any]) -> None:
    for batch in session:
        try:
            results = call(batch.items)
        except BaseException as error:
            session.fail(batch, error)
        else:
            session.hand_over(batch, results)


def _drive_remote(session: Session, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    entry = runtime.Entry(session)
    with runtime.entered(entry):
        while not session.ended:
            taken = entry.taken
            try:
                outcome = function(**arguments)
                if inspect.iscoroutine(outcome):
                    import asyncio

                    asyncio.run(outcome)
            except BaseException as error:
                entry.abandon(error)
                if entry.taken == taken:
                    raise
            else:
                entry.abandon(None)
                if entry.taken == taken and not session.ended:
                    raise MapperError(f"mapper {function.__name__} returned without taking a batch from load()")


async def _drive_async(session: Session, call: Callable[[Any], Any], concurrency: int) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    flying: deque[tuple[Batch, asyncio.Task[Any]]] = deque()
    free = list(range(concurrency))
    while True:
        while flying and (flying[0][1].done() or not free):
            batch, task = flying.popleft()
            await asyncio.wait([task])
            _land(session, batch, task)
            free.append(batch.slot)
        taking = asyncio.ensure_future(loop.run_in_executor(None, session.take, free.pop()))
        while not taking.done():
            waited = {taking, flying[0][1]} if flying else {taking}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            while flying and flying[0][1].done():
                batch, task = flying.popleft()
                _land(session, batch, task)
                free.append(batch.slot)
        taken = taking.result()
        if taken is None:
            break
        flying.append((taken, asyncio.ensure_future(_call(call, taken))))
    while flying:
        batch, task = flying.popleft()
        await asyncio.wait([task])
        _land(session, batch, task)


async def _call(call: Callable[[Any], Any], batch: Batch) -> Any:
    runtime.set_batch(batch)
    return await call(batch.items)


def _land(session: Session, batch: Batch, task: asyncio.Task[Any]) -> None:
    from asyncio import CancelledError

    error = CancelledError() if task.cancelled() else task.exception()
    if error is not None:
        session.fail(batch, error)
    else:
        session.hand_over(batch, task.result())
