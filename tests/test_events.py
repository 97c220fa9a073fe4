"""What plugins are told of a real job, from its start to its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """\
import json, sys
from skybatch import Dataset, JobFailed, JsonReader, JsonWriter, hookimpl
from skybatch import plugins

class Listener:
    @hookimpl
    def skybatch_job_started(self, job_id, spec): heard.append(["started", job_id, spec.batch_size])
    @hookimpl
    def skybatch_job_finished(self, job_id, state): heard.append(["finished", job_id, state])
    @hookimpl
    def skybatch_ranges_finished(self, ranges): heard.append(["ranges", *map(list, ranges)])
    @hookimpl
    def skybatch_range_failed(self, start, end, kind, message):
        heard.append(["failed", start, end, kind, message])
        raise RuntimeError("a listener's own trouble")

def mapper(batch):
    if batch[0]["id"] == 4:
        raise ValueError("four")
    return batch

if __name__ == "__main__":
    heard = []
    plugins.manager().register(Listener())
    output = JsonWriter("out.jsonl")
    try:
        Dataset(JsonReader("in.jsonl")).map(mapper, batch_size=2, output=output, workers=1, max_retries=0)
    except JobFailed as error:
        heard.append(["raised", error.job_id])
    print(json.dumps(heard))
"""


def test_a_job_tells_its_start_its_ranges_its_failures_and_its_end(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id":{i}}}\n' for i in range(6)))
    ran = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "SKYBATCH_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    heard = json.loads(ran.stdout)
    job_id = heard[0][1]
    assert heard[0] == ["started", job_id, 2]
    assert heard[-2:] == [["finished", job_id, "failed"], ["raised", job_id]]
    ranges = [tuple(pair) for event in heard if event[0] == "ranges" for pair in event[1:]]
    assert sorted(ranges) == [(0, 1), (2, 3), (5, 5)]
    failed = [event[1:] for event in heard if event[0] == "failed"]
    assert failed[0] == [4, 5, "mapper", "ValueError: four"]
    assert [4, 4, "mapper", "ValueError: four"] in failed
    assert "a listener's own trouble" in ran.stderr
