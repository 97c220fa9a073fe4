"""Frames survive any cutting of the byte stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skybatch.worker.frames import Decoder, FrameError, encode

frames = st.lists(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20)), max_size=6)


@given(frames, st.lists(st.integers(1, 9), min_size=1))
def test_frames_come_back_whole_however_the_stream_is_cut(
    sent: list[dict[str, object]], cuts: list[int]
) -> None:
    stream, decoder, got, turn = b"".join(map(encode, sent)), Decoder(), [], 0
    while stream:
        size = cuts[turn % len(cuts)]
        got += decoder.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert got == sent


def test_an_impossible_length_is_an_error() -> None:
    with pytest.raises(FrameError):
        Decoder().feed(b"\xff\xff\xff\xff")
