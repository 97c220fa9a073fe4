"""An IntervalSet behaves as a plain set of numbers does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skybatch.engine.intervals import IntervalSet

LIMIT = 40
intervals = st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT)).map(lambda pair: (min(pair), max(pair)))


def numbers(interval: tuple[int, int]) -> set[int]:
    return set(range(interval[0], interval[1] + 1))


def assert_same(subject: IntervalSet, model: set[int]) -> None:
    found = list(subject)
    assert {number for interval in found for number in numbers(interval)} == model
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
    assert subject.total == len(model)
    assert len(subject) == len(found)


@given(st.lists(intervals), st.lists(st.tuples(st.sampled_from(["add", "remove", "take"]), intervals)))
def test_adding_removing_and_taking_equal_those_of_a_set(
    initial: list[tuple[int, int]], steps: list[tuple[str, tuple[int, int]]]
) -> None:
    subject = IntervalSet(initial)
    model = {number for interval in initial for number in numbers(interval)}
    assert_same(subject, model)
    for step, interval in steps:
        if step == "add":
            subject.add(*interval)
            model |= numbers(interval)
        elif step == "remove":
            subject.remove(*interval)
            model -= numbers(interval)
        elif model:
            limit = interval[1] - interval[0] + 1
            taken = subject.take_lowest(limit)
            assert taken[0] == min(model)
            assert len(numbers(taken)) <= limit
            assert numbers(taken) <= model
            model -= numbers(taken)
        assert_same(subject, model)


@given(st.lists(intervals), intervals)
def test_questions_are_answered_as_by_a_set(initial: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    subject = IntervalSet(initial)
    model = {number for interval in initial for number in numbers(interval)}
    wanted = numbers(asked)
    assert subject.overlaps(*asked) == bool(wanted & model)
    assert subject.covers(*asked) == (wanted <= model)
    assert_same(IntervalSet(subject.inside(*asked)), wanted & model)
    assert_same(IntervalSet(subject.gaps(*asked)), wanted - model)


def test_nothing_can_be_taken_from_an_empty_set() -> None:
    with pytest.raises(IndexError):
        IntervalSet().take_lowest(1)
