"""Jobs as objects: states, waiting, detaching, going on, and what is refused before one exists."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, JobFailed, JsonReader, JsonWriter
from skybatch.engine.job import find_job
from skybatch.errors import InputMissing, JobNotFound, OutputExists, UnknownName, UsageError
from tests.api import mappers
from tests.api.scripts import command, run, run_well, write

SCRIPT = """
    import os, signal, sys, time
    import skybatch

    def double(batch):
        return [{"i": item["i"], "twice": item["i"] * FACTOR} for item in batch]

    FACTOR = 2

    if __name__ == "__main__":
        job = skybatch.Dataset(skybatch.JsonReader("numbers.jsonl")).map(
            double, batch_size=2, workers=1, output=skybatch.JsonWriter("out.jsonl"),
            resume="resume" in sys.argv, stream="detach" not in sys.argv,
        )
        print(job.id)
"""


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(f'{{"i": {i}}}\n' for i in range(10)))
    return path


def doubled(path: Path) -> bool:
    return [json.loads(line)["twice"] for line in path.read_text().splitlines()] == [2 * i for i in range(10)]


def test_map_takes_the_arguments_of_the_reference_by_position(numbers: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    Dataset(JsonReader(str(numbers))).map(mappers.double, "local", 4, [JsonWriter(str(output))], None, True)
    assert doubled(output)


def test_a_finished_job_tells_its_progress(numbers: Path, tmp_path: Path) -> None:
    job = Dataset(JsonReader(str(numbers))).map(
        mappers.double, batch_size=4, output=JsonWriter(str(tmp_path / "out.jsonl")), name="doubling"
    )
    progress = job.progress()
    assert (job.name, job.state, job.errors()) == ("doubling", "cleaned", [])
    assert (progress.items, progress.items_done, progress.ranges, progress.ranges_done) == (10, 10, 3, 3)
    assert not progress.engine_running
    assert job.wait() is job
    assert [known.id for known in skybatch.jobs()] == [job.id]
    assert find_job(job.id[:9]).id == find_job("last").id == job.id
    with pytest.raises(JobNotFound):
        find_job()


def test_the_same_script_after_a_crash_says_how_to_go_on_and_goes_on(numbers: Path, tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", SCRIPT)
    killed = run(script, SKYBATCH_FAILPOINT="after-commit:2")  # the first commit grants, the second has a result
    assert killed.returncode == -signal.SIGKILL
    job_id = killed.stderr.split()[2]

    again = run(script)
    assert again.returncode == 1
    assert f"skybatch resume {job_id}" in again.stderr and "resume=True" in again.stderr
    assert not (tmp_path / "out.jsonl").exists()

    resumed = run_well(script, "resume")
    assert resumed.stdout.strip() == job_id
    assert doubled(tmp_path / "out.jsonl")


def test_a_resume_runs_the_stored_code_and_other_code_only_when_asked(numbers: Path, tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", SCRIPT)
    outputs = []
    for options in ([], ["--code", "current"]):
        write(tmp_path, "script.py", SCRIPT)
        assert run(script, SKYBATCH_FAILPOINT="after-commit:2").returncode == -signal.SIGKILL
        script.write_text(script.read_text().replace("FACTOR = 2", "FACTOR = 3"))
        resumed = command("resume", *options, cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        assert ("has changed since" in resumed.stderr) is not bool(options)
        outputs.append((tmp_path / "out.jsonl").read_text())
        (tmp_path / "out.jsonl").unlink()
    assert '"twice":27' not in outputs[0]
    assert '"twice":27' in outputs[1]


def test_a_detached_engine_outlives_its_script_and_is_waited_for(numbers: Path, tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", SCRIPT.replace("return [", "time.sleep(0.2); return ["))
    process = subprocess.Popen(
        [sys.executable, str(script), "detach"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    job_id = process.stdout.readline().strip()
    for number in (signal.SIGHUP, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
    process.communicate()

    job = find_job(job_id)
    assert job.engine_running
    assert job.wait(30).state == "cleaned"
    assert doubled(tmp_path / "out.jsonl")


def test_a_cancelled_job_is_resumed(numbers: Path, tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", SCRIPT.replace("return [", "time.sleep(0.1); return ["))
    job = find_job(run_well(script, "detach").stdout.strip())
    job.cancel()
    assert job.state == "cancelled" and not job.engine_running
    with pytest.raises(skybatch.Paused, match=f"skybatch resume {job.id}"):
        job.wait()
    assert skybatch.resume(job.id).state == "cleaned"
    assert doubled(tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("append", "has 100 bytes now, and had 90"),
        ("replace", "was last written at 1970-01-01 00:00:00.000000, and before at 20"),
        ("delete", "does not exist"),
    ],
)
def test_a_changed_input_stops_the_resume(change: str, told: str, numbers: Path, tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", SCRIPT)
    assert run(script, SKYBATCH_FAILPOINT="after-commit:2").returncode == -signal.SIGKILL
    text = numbers.read_text()
    if change == "append":
        numbers.write_text(text + '{"i": 10}\n')
    elif change == "replace":
        numbers.write_text(text.replace("3", "4"))
        os.utime(numbers, ns=(1, 1))
    else:
        numbers.unlink()
    resumed = command("resume", cwd=tmp_path)
    assert resumed.returncode == 4, resumed.stderr
    assert "numbers.jsonl" in resumed.stderr and told in resumed.stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"workers": 0}, "workers"),
        ({"max_retries": -1}, "max_retries"),
        ({"batch_timeout_s": 0}, "batch_timeout_s"),
        ({"on_error": "skipp"}, "did you mean 'skip'"),
        ({"concurrency": 2}, "async"),
        ({"executor": "locl"}, "did you mean 'local'"),
        ({"pool_name": "nowhere"}, "nowhere"),
        ({"mapper_args": {"x": object()}}, "mapper_args|cannot"),
        ({"output": []}, "needs an output"),
        ({"output": ["out.jsonl"]}, "OutputWriter"),
        ({"output": [JsonWriter("a.jsonl"), JsonWriter("./a.jsonl")]}, "same path"),
        ({"output": [JsonWriter("a.jsonl", column=[])]}, "column"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_job(
    options: dict[str, Any], message: str, numbers: Path
) -> None:
    keywords = {"output": JsonWriter("out.jsonl"), **options}
    with pytest.raises(UsageError, match=message):
        Dataset(JsonReader(str(numbers))).map(mappers.double, **keywords)
    assert skybatch.jobs() == []


def test_a_missing_input_is_refused_before_there_is_a_job(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"nowhere\.jsonl"):
        Dataset(JsonReader(str(tmp_path / "nowhere.jsonl"))).map(mappers.double, output=JsonWriter("out.jsonl"))
    assert skybatch.jobs() == []


def test_unknown_names_are_a_usage_error() -> None:
    assert issubclass(UnknownName, UsageError)


def test_a_failed_job_says_item_cause_log_and_command(numbers: Path, tmp_path: Path) -> None:
    def stumbles(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"i": 1 // (item["i"] - 7)} for item in batch]

    with pytest.raises(JobFailed) as failed:
        Dataset(JsonReader(str(numbers))).map(
            stumbles, batch_size=4, workers=1, max_retries=0, output=JsonWriter(str(tmp_path / "out.jsonl"))
        )
    message = str(failed.value)
    for part in ("ZeroDivisionError", "item 7", "/logs", "stumbles", f"skybatch resume {failed.value.job_id}"):
        assert part in message
    job = find_job(failed.value.job_id)
    assert job.state == "failed" and job.progress().items_done == 9
    assert not (tmp_path / "out.jsonl").exists()


def test_the_policy_skip_publishes_without_what_failed(numbers: Path, tmp_path: Path) -> None:
    def stumbles(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"i": item["i"], "x": 1 // (item["i"] - 7)} for item in batch]

    output = tmp_path / "out.jsonl"
    job = Dataset(JsonReader(str(numbers))).map(
        stumbles, batch_size=4, workers=1, max_retries=0, on_error="skip", output=JsonWriter(str(output), column="i")
    )
    assert job.progress().items_dead == 1
    assert [json.loads(line)["i"] for line in output.read_text().splitlines()] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert {failure.item for failure in job.errors() if failure.item is not None} == {7}


def test_an_existing_output_is_left_alone_unless_overwriting_is_allowed(numbers: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("theirs")
    with pytest.raises(OutputExists) as refused:
        Dataset(JsonReader(str(numbers))).map(mappers.double, output=JsonWriter(str(output)))
    assert refused.value.exit_code == 73 and output.read_text() == "theirs" and skybatch.jobs() == []
    Dataset(JsonReader(str(numbers))).map(mappers.double, output=JsonWriter(str(output)), overwrite=True)
    assert doubled(output)


def test_an_output_that_appears_meanwhile_is_left_alone(numbers: Path, tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", SCRIPT)
    assert run(script, SKYBATCH_FAILPOINT="reducing").returncode == -signal.SIGKILL
    (tmp_path / "out.jsonl").write_text("theirs")
    resumed = command("resume", cwd=tmp_path)
    assert resumed.returncode == 73 and (tmp_path / "out.jsonl").read_text() == "theirs"
    (tmp_path / "out.jsonl").unlink()
    assert command("resume", cwd=tmp_path).returncode == 0
    assert doubled(tmp_path / "out.jsonl")


def test_a_writer_with_wrong_settings_is_named_with_the_only_way_on(numbers: Path, tmp_path: Path) -> None:
    """No code can mend them: they are the job's."""
    with pytest.raises(JobFailed) as caught:
        Dataset(JsonReader(str(numbers))).map(
            mappers.double, output=JsonWriter(str(tmp_path / "out.jsonl"), column="twicd"), max_retries=0
        )
    told = str(caught.value)
    assert f"no result can be written: ResultError: output {tmp_path}/out.jsonl: item " in told
    assert "did you mean 'twice'" in told and "Traceback" not in told
    assert caught.value.command == f"skybatch clean --unfinished {caught.value.job_id}"
    assert find_job(caught.value.job_id).command == caught.value.command


def test_an_item_that_cannot_be_read_leaves_one_way_on_without_it(numbers: Path, tmp_path: Path) -> None:
    with open(numbers, "a") as file:
        file.write("{nothing\n")
    with pytest.raises(JobFailed) as caught:
        Dataset(JsonReader(str(numbers))).map(
            mappers.double, output=JsonWriter(str(tmp_path / "out.jsonl")), max_retries=0
        )
    job = find_job(caught.value.job_id)
    assert "1 item failed for good; the first: item 10: RecordError" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert caught.value.command == job.command == f"skybatch resume {job.id} --on-error skip"
    assert skybatch.resume(job.id, on_error="skip").progress().items_dead == 1
    with pytest.raises(UnknownName, match="did you mean 'skip'"):
        skybatch.resume(job.id, on_error="skipp")


def test_a_stricter_policy_takes_back_what_was_passed_over(numbers: Path, tmp_path: Path) -> None:
    broken = SCRIPT.replace("resume=", "max_retries=0, on_error='skip', resume=")
    script = write(tmp_path, "script.py", broken.replace("* FACTOR", "* FACTOR // (item['i'] != 4)"))
    assert run(script, SKYBATCH_FAILPOINT="reducing").returncode == -signal.SIGKILL
    strict = command("resume", "--on-error", "fail", cwd=tmp_path)
    assert strict.returncode == 1 and "1 item failed for good" in strict.stderr
    assert not (tmp_path / "out.jsonl").exists()
    write(tmp_path, "script.py", SCRIPT)
    mended = command("resume", "--code", "current", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert doubled(tmp_path / "out.jsonl")
