"""How an output is cut into parts: everything once and in order, and no part that S3 would refuse."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skybatch.formats.stores import Piece
from skybatch.formats.stores.parts import Part, PartPlan

LEAST, GATHER, MOST = 5, 8, 25

spans = st.one_of(
    st.binary(max_size=30),
    st.builds(Piece, st.sampled_from(["a", "b"]), st.integers(0, 9), st.integers(0, 60), st.sampled_from([None, "v"])),
)


def planned(asked: list[Piece | bytes]) -> list[Part]:
    plan = PartPlan(least=LEAST, gather=GATHER, most=MOST)
    parts: list[Part] = []
    for span in asked:
        parts += plan.add(span) if isinstance(span, Piece) else plan.add_bytes(span)
    return [*parts, *plan.rest()]


def letters(asked: list[Piece | bytes]) -> list[object]:
    """Every byte of a list of spans."""
    told: list[object] = []
    for span in asked:
        told += (
            list(span)
            if isinstance(span, bytes)
            else [(span.path, span.version, span.offset + n) for n in range(span.length)]
        )
    return told


@given(st.lists(spans, max_size=30))
def test_every_byte_is_in_the_parts_once_and_in_order(asked: list[Piece | bytes]) -> None:
    parts = planned(asked)
    assert letters([span for part in parts for span in part.spans]) == letters(asked)
    assert all(part.size == len(letters([*part.spans])) > 0 for part in parts)


@given(st.lists(spans, max_size=30))
def test_parts_have_sizes_that_a_store_takes(asked: list[Piece | bytes]) -> None:
    parts = planned(asked)
    assert all(part.size >= LEAST for part in parts[:-1])
    assert all(part.size <= (MOST if part.copied else GATHER + 2 * LEAST) for part in parts)
    assert all(len(part.spans) == 1 and isinstance(part.spans[0], Piece) for part in parts if part.copied)


@given(st.lists(spans, max_size=30))
def test_large_pieces_are_copied_but_for_a_head(asked: list[Piece | bytes]) -> None:
    large = [span for span in asked if isinstance(span, Piece) and span.length >= 2 * LEAST]
    small = len(letters([span for span in asked if span not in large]))
    sent = sum(part.size for part in planned(asked) if not part.copied)
    assert sent <= small + (LEAST - 1) * len(large)


def test_pieces_that_follow_one_another_are_copied_as_one() -> None:
    parts = planned([Piece("a", 0, 2, "v"), Piece("a", 2, 1, "v"), Piece("a", 3, 9, "v"), Piece("a", 12, 1, "w")])
    assert [(part.size, part.copied) for part in parts] == [(12, True), (1, False)]
