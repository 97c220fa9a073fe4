"""The executor keeps the contract, and its workers are nice."""

import json
import sys

import pytest

import skybatch
from skybatch.engine import pools
from skybatch.errors import UsageError
from skybatch.testing import ExecutorSuite

POOL = {"executor": "nice", "workers": 2, "options": {"python": sys.executable}}


def niceness(batch):
    import os

    return [{"niceness": os.nice(0)} for _ in batch]


class TestExecutor(ExecutorSuite):
    """What every executor keeps, and the priority of its own."""

    pool = POOL

    @pytest.mark.parametrize("wrong", [-1, 20, "much"])
    def test_what_is_no_niceness_is_refused(self, wrong):
        with pytest.raises(UsageError, match="niceness"):
            pools.check(pools.from_mapping({"executor": "nice", "niceness": wrong}))

    def test_workers_run_at_the_priority_asked_for(self, tmp_path):
        pool = pools.from_mapping({**POOL, "niceness": 7})
        output = skybatch.JsonWriter(str(tmp_path / "out.jsonl"))
        skybatch.Dataset.from_items([{}] * 4).map(niceness, pool, batch_size=2, output=output)
        assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["niceness"] >= 7
