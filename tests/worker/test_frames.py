"""Frames survive any cutting of the byte stream."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skybatch.worker.frames import LARGE, MAX_BLOB_FRAME, Decoder, FrameError, encode, split, write_pieces

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


def test_what_is_called_blob_in_a_frame_without_one_is_left_alone() -> None:
    assert Decoder().feed(encode({"blob": 1 << 40})) == [{"blob": 1 << 40}]


def test_an_impossible_length_is_an_error() -> None:
    with pytest.raises(FrameError):
        Decoder().feed(b"\xff\xff\xff\xff{")


@given(st.lists(st.tuples(st.dictionaries(st.text(max_size=8), st.integers()), st.none() | st.binary(max_size=40))))
def test_bytes_travel_with_frames(sent: list[tuple[dict[str, object], bytes | None]]) -> None:
    stream = b"".join(encode(frame, blob) for frame, blob in sent)
    decoder = Decoder()
    got = [frame for at in range(0, len(stream), 7) for frame in decoder.feed(stream[at : at + 7])]
    assert got == [frame if blob is None else {**frame, "blob": blob} for frame, blob in sent]


SIZES = st.sampled_from([0, 9, LARGE - 60, LARGE, 3 * LARGE + 1])


@given(st.lists(st.none() | SIZES, max_size=5), st.sampled_from([999, 70_000, 300_000]))
def test_large_frames_come_whole_in_places_of_their_own(sizes: list[int | None], cut: int) -> None:
    blobs = [None if size is None else bytes([n]) * size for n, size in enumerate(sizes)]
    sent = [{"n": n} if blob is None else {"n": n, "blob": blob} for n, blob in enumerate(blobs)]
    stream = b"".join(encode({"n": n}, blob) for n, blob in enumerate(blobs))
    decoder = Decoder()
    assert [frame for at in range(0, len(stream), cut) for frame in decoder.feed(stream[at : at + cut])] == sent
    assert list(read_through_a_pipe(stream)) == sent


def read_through_a_pipe(stream: bytes) -> Iterator[dict[str, object]]:
    """Frames as they are read while they are written."""
    reads, writes = os.pipe()
    decoder = Decoder()

    def write() -> None:
        write_pieces(writes, [stream[:7], stream[7:], b""])
        os.close(writes)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        while (frames := decoder.read(reads)) is not None:
            yield from frames
    finally:
        os.close(reads)
        writing.join()


def test_a_frame_said_to_be_huge_takes_no_memory_before_it_comes() -> None:
    decoder = Decoder()
    assert decoder.feed((MAX_BLOB_FRAME - 1).to_bytes(4, "little") + b"\0") == []
    assert decoder._large is None


def test_other_bytes_than_frames_are_noticed() -> None:
    with pytest.raises(FrameError):
        Decoder().feed(b"\x10\0\0\0warning: no such thing")


@given(st.lists(st.binary(max_size=30), max_size=4), st.sampled_from([b"", b"{", b"\0"]))
def test_bytes_of_any_kind_are_frames_or_an_error(bodies: list[bytes], first: bytes) -> None:
    stream = b"".join(len(first + body).to_bytes(4, "little") + first + body for body in bodies)
    try:
        frames = Decoder().feed(stream)
    except FrameError:
        return
    assert all(type(frame) is dict for frame in frames)


@pytest.mark.parametrize("text", [b"{" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\xff"}'])
def test_text_that_cannot_be_read_is_an_error(text: bytes) -> None:
    with pytest.raises(FrameError, match="cannot be read"):
        Decoder().feed(len(text).to_bytes(4, "little") + text)


def test_parts_of_a_blob_must_make_it_up() -> None:
    assert split(b"abcd", [1, 0, 3]) == [b"a", b"", b"bcd"]
    with pytest.raises(FrameError):
        split(b"abcd", [1, 2])
