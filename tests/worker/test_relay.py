"""What a relay makes of results that a worker sent."""

from __future__ import annotations

import zlib

import pytest

from skybatch.worker.frames import FrameError
from skybatch.worker.outbox import Result
from skybatch.worker.relay import Relay, Row


def result(payload: bytes, sent: bytes) -> object:
    """A relay's result of a range whose payload was `sent` and arrived as `payload`."""
    relay = Relay.__new__(Relay)
    relay._encoded = True
    crcs = [zlib.crc32(sent), zlib.crc32(b"")]
    row = Row(1, 0, 3, 1, 4, True, 0.1, lengths=[len(payload)], pickled=0, crcs=crcs)
    return relay._result(row, [payload], b"", 0.0)


def test_results_that_were_altered_on_their_way_are_not_stored() -> None:
    with pytest.raises(FrameError, match="altered"):
        result(b"tampered", b"original")


def test_checksums_that_were_compared_go_on_to_the_segment() -> None:
    kept = result(b"original", b"original")
    assert isinstance(kept, Result)
    assert list(kept.crcs or ()) == [zlib.crc32(b"original")]
