"""How items come to the mapper and results go from it: from and to storage, or through the engine's machine."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, List, NamedTuple, Optional, Protocol, Tuple

from skybatch.formats.base import InputReader, OutputWriter, SegmentWriter, WindowReader
from skybatch.worker import loading
from skybatch.worker.frames import Frame
from skybatch.worker.mark import Mark, NoMark
from skybatch.worker.outbox import Outbox
from skybatch.worker.reading import Loaded, Reading
from skybatch.worker.serve import Channel

FORMATS_NEED = (3, 11)
"""The Python that skybatch's own formats are written for; the rest of a worker does with less."""


class Feed(Protocol):
    """Where loads come from, in the order of the grants; one with grant -1 ends the work."""

    def start(self) -> None:
        """Called once, first."""

    def get_now(self) -> Optional[Loaded]:
        """The next load if it is there."""

    def get(self) -> Loaded:
        """The next load, waiting for it."""


class Way(NamedTuple):
    """What a worker's session goes by."""

    mapper: Any
    encoders: List[SegmentWriter]  # of the results, on the mapper's thread
    wants_results: bool  # as they are, beside or instead of their encodings
    feed: Feed
    outbox: Outbox


def choose(channel: Channel, mark: Mark | NoMark, config: Frame, on_drain: Callable[[], None]) -> Way:
    """The way that this worker can go. Raises what loading the user's code raises."""
    if not config.get("elsewhere"):
        _refuse_old_python()
        mapper, reader, writers = loading.load_code(config)
        loading.require_all(reader, writers)
        return _direct(channel, mark, config, on_drain, mapper, reader, writers)
    mapper = loading.load_mapper(config)
    formats, lacking = _formats(config)
    unseen = _unseen(config)
    decode = formats is not None and isinstance(formats[0], WindowReader) and formats[0].decodes_anywhere
    mode = {"op": "mode", "decode": decode, "encode": formats is not None, "why": unseen or lacking}
    direct = formats is not None and not unseen
    channel.send({**mode, "direct": direct})
    if channel.receive() is None:
        raise BrokenPipeError
    if direct and formats is not None:
        return _direct(channel, mark, config, on_drain, mapper, *formats)
    return _relayed(channel, on_drain, mapper, formats, decode)


def _direct(
    channel: Channel,
    mark: Mark | NoMark,
    config: Frame,
    on_drain: Callable[[], None],
    mapper: Any,
    reader: InputReader,
    writers: List[OutputWriter],
) -> Way:
    from skybatch.worker.storing import Storing

    encoders = [writer for writer in writers if isinstance(writer, SegmentWriter)]
    storing = Storing(channel, mark, config, writers)
    feed = Reading(channel, mark, config, reader, on_drain, storing.heed)
    return Way(mapper, encoders, len(encoders) < len(writers), feed, Outbox(storing))


def _relayed(
    channel: Channel,
    on_drain: Callable[[], None],
    mapper: Any,
    formats: Optional[Tuple[InputReader, List[OutputWriter]]],
    decode: bool,
) -> Way:
    from skybatch.worker.relayed import RelayedFeed, Sending

    reader, writers = formats or (None, [])
    encoders = [writer for writer in writers if isinstance(writer, SegmentWriter)]
    wants_results = formats is None or len(encoders) < len(writers)
    feed = RelayedFeed(channel, reader if decode and isinstance(reader, WindowReader) else None, on_drain)
    return Way(mapper, encoders, wants_results, feed, Outbox(Sending(channel)))


def _formats(config: Frame) -> Tuple[Optional[Tuple[InputReader, List[OutputWriter]]], str]:
    """Reader and writers, or why they cannot be had here."""
    if sys.version_info < FORMATS_NEED:
        return None, "its Python is %d.%d, and formats need %d.%d" % (*sys.version_info[:2], *FORMATS_NEED)
    try:
        return loading.load_formats(config), ""
    except Exception as error:
        return None, str(error)


def _unseen(config: Frame) -> str:
    """What of the job's files is not to be seen from here, as the engine sees it; "" when all is."""
    if config.get("sights") is None:
        return "as the pool says (shared: false)"
    for path, size, mtime_ns in config["sights"]:
        try:
            found = os.stat(path)
        except OSError:
            return f"it does not see {path}"
        if (found.st_size, found.st_mtime_ns) != (size, mtime_ns):
            return f"it sees another {path}"
    return ""


def _refuse_old_python() -> None:
    if sys.version_info < FORMATS_NEED:
        from skybatch.errors import MapperError

        version, least = "%d.%d" % sys.version_info[:2], "%d.%d" % FORMATS_NEED
        raise MapperError(f"the workers' Python, {sys.executable}, is {version}; skybatch needs {least} or newer there")
