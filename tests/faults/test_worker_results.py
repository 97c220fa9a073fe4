"""Results that cannot be taken: each is a clear error that names the item and the key, and nothing is lost."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch
from tests.tools.mapping import map_and_fail, map_items

Batch = list[dict[str, Any]]


@dataclass
class Measured:
    """A value that JSON takes, with one in it that it does not."""

    size: float


def bad_value(kind: str) -> Any:
    values: dict[str, Any] = {
        "set": {1},
        "open file": None,
        "NaN": math.nan,
        "infinity": -math.inf,
        "nested NaN": {"deep": [1.5, {"deeper": math.nan}]},
        "NaN in a dataclass": Measured(math.nan),
        "large int": 1 << 64,
        "number as key": {1: "one"},
        "lone surrogate": "\udc80",
        "complex": 1j,
    }
    return open(os.devnull) if kind == "open file" else values[kind]


def spoils_item_9(batch: Batch, kind: str) -> Batch:
    return [{**item, "score": bad_value(kind) if item["id"] == 9 else None} for item in batch]


def key_that_is_no_text(batch: Batch) -> Batch:
    return [{**item, 3: "x"} if item["id"] == 9 else item for item in batch]  # type: ignore[dict-item]


def wrong_answers(batch: Batch, kind: str, flag: str) -> Any:
    if batch[0]["id"] != 8 or os.path.exists(flag):
        return batch
    open(flag, "x").close()
    answers: dict[str, Any] = {
        "too few": batch[:3],
        "too many": [*batch, batch[0]],
        "none": None,
        "a dict": {"id": 8},
        "a tuple": tuple(batch),
        "no dicts": [batch[0], "nine", batch[2], batch[3]],
        "a generator": (item for item in batch),
    }
    return answers[kind]


@skybatch.remote_function
def breaks_after_each_save() -> None:
    for batch in skybatch.load():
        skybatch.save_results(batch)
        break


@skybatch.remote_function
def breaks_before_it_saves(flag: str) -> None:
    for batch in skybatch.load():
        if batch[0]["id"] == 8 and not os.path.exists(flag):
            open(flag, "x").close()
            break
        skybatch.save_results(batch)


@skybatch.remote_function
def never_saves_one(flag: str) -> None:
    for batch in skybatch.load():
        if batch[0]["id"] == 8 and not os.path.exists(flag):
            open(flag, "x").close()
            continue
        skybatch.save_results(batch)


@skybatch.remote_function
def saves_twice(note: str) -> None:
    for batch in skybatch.load():
        skybatch.save_results(batch)
        try:
            skybatch.save_results(batch)
        except RuntimeError as error:
            if batch[0]["id"] == 8:
                with open(note, "w") as file:
                    file.write(str(error))


@skybatch.remote_function
def saves_twice_and_minds_not() -> None:
    for batch in skybatch.load():
        skybatch.save_results(batch)
        skybatch.save_results(batch)


@skybatch.remote_function
def mends_what_is_refused(note: str) -> None:
    for batch in skybatch.load():
        for attempt in (batch[:-1], None, [*batch[:-1], {"id": {1}}]):
            try:
                skybatch.save_results(attempt)  # type: ignore[arg-type]
            except (ValueError, TypeError, skybatch.SkybatchError) as error:
                with open(note, "a") as file:
                    file.write(f"{type(error).__name__}: {error}\n")
        skybatch.save_results(batch)


@skybatch.remote_function
def saves_before_it_loads() -> None:
    skybatch.save_results([])


REASONS = {
    "set": "a set cannot be written as JSON",
    "open file": "TextIOWrapper cannot be written as JSON",
    "NaN": "nan cannot be written as JSON",
    "infinity": "-inf cannot be written as JSON",
    "nested NaN": "nan cannot be written as JSON",
    "NaN in a dataclass": "nan cannot be written as JSON",
    "large int": "64-bit",
    "number as key": "Dict key must be str",
    "lone surrogate": "surrogates not allowed",
    "complex": "a complex cannot be written as JSON",
}


@pytest.mark.parametrize("kind", REASONS)
def test_value_that_cannot_be_written_is_the_failure_of_its_item(tmp_path: Path, kind: str) -> None:
    outcome = map_items(
        tmp_path, spoils_item_9, mapper_args={"kind": kind}, on_error="skip", max_retries=0
    )
    assert outcome.ids == [index for index in range(40) if index != 9]
    assert outcome.job.progress().items_dead == 1
    for failure in outcome.failures:
        assert failure.item == 9
        assert "item 9, key 'score" in failure.message and REASONS[kind] in failure.message


def test_key_that_is_no_text_is_named(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, key_that_is_no_text, on_error="skip", max_retries=0)
    assert outcome.ids == [index for index in range(40) if index != 9]
    assert "item 9, key 3" in outcome.failures[-1].message


def test_missing_column_names_the_nearest_key(tmp_path: Path) -> None:
    writer = skybatch.JsonWriter(str(tmp_path / "out.jsonl"), column=["id", "scor"])
    outcome = map_and_fail(
        tmp_path, spoils_item_9, mapper_args={"kind": "complex"}, output=writer, max_retries=0
    )
    assert "the result has no 'scor'; did you mean 'score'?" in str(outcome.error)


@pytest.mark.parametrize(
    ("kind", "told"),
    {
        "too few": "ValueError: items 8-11: 3 results for 4 items",
        "too many": "ValueError: items 8-11: 5 results for 4 items",
        "none": "TypeError: items 8-11: results must be a list of dicts, not NoneType",
        "a dict": "TypeError: items 8-11: results must be a list of dicts, not dict",
        "a tuple": "TypeError: items 8-11: results must be a list of dicts, not tuple",
        "no dicts": "item 9: a result must be a dict, not str",
        "a generator": "TypeError: items 8-11: results must be a list of dicts, not generator",
    }.items(),
)
def test_wrong_results_are_told_and_the_range_is_tried_again(tmp_path: Path, kind: str, told: str) -> None:
    arguments = {"kind": kind, "flag": str(tmp_path / "flag")}
    outcome = map_items(tmp_path, wrong_answers, mapper_args=arguments)
    assert outcome.ids == list(range(40)) and outcome.attempts == {8: 2}
    assert told in outcome.failures[0].message


def test_break_after_saving_costs_nothing(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, breaks_after_each_save, 400, workers=2)
    assert outcome.ids == list(range(400)) and outcome.failures == [] and outcome.attempts == {}


@pytest.mark.parametrize("mapper", [breaks_before_it_saves, never_saves_one])
def test_batch_that_is_never_saved_is_charged_and_tried_again(tmp_path: Path, mapper: Any) -> None:
    outcome = map_items(tmp_path, mapper, mapper_args={"flag": str(tmp_path / "flag")})
    assert outcome.ids == list(range(40)) and outcome.attempts == {8: 2}
    assert "save_results() was never called for items 8-11" in outcome.failures[0].message


def test_saving_twice_is_refused_and_what_was_saved_stays(tmp_path: Path) -> None:
    note = tmp_path / "note"
    outcome = map_items(tmp_path, saves_twice, mapper_args={"note": str(note)})
    assert outcome.ids == list(range(40))
    assert note.read_text() == "save_results() was called twice for items 8-11"


def test_saving_twice_without_minding_is_in_the_log_and_loses_nothing(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, saves_twice_and_minds_not)
    assert outcome.ids == list(range(40))
    assert b"save_results() was called twice for items 8-11" in outcome.log


def test_refused_results_may_be_mended_and_saved(tmp_path: Path) -> None:
    note = tmp_path / "note"
    outcome = map_items(tmp_path, mends_what_is_refused, 4, mapper_args={"note": str(note)})
    assert outcome.ids == list(range(4)) and outcome.failures == []
    told = note.read_text().splitlines()
    assert [line.split(":")[0] for line in told] == ["ValueError", "TypeError", "ResultError"]
    assert "item 3, key 'id'" in told[2]


def test_saving_before_loading_ends_the_job(tmp_path: Path) -> None:
    outcome = map_and_fail(tmp_path, saves_before_it_loads)
    assert "save_results() was called before a batch was taken from load()" in str(outcome.error)
