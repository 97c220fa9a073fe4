"""Each verb on a running, a killed, a failed and a finished job."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skybatch.cli.main import SIGPIPE_CODE, invoke
from skybatch.engine.folder import JobFolder
from skybatch.engine.job import Job, find_job
from skybatch.journal.journal import Journal
from tests.cli import jobs_in_states
from tests.cli.jobs_in_states import STATES, WHOLE, Place

pytestmark = pytest.mark.full  # every verb beside jobs in every state

STILL = tuple(state for state in STATES if state != "running")
NEXT_STATE = {"running": "running", "killed": "running", "failed": "failed", "finished": "cleaned"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """Jobs that do not run, made once and put back before each test that asks for one."""
    root = tmp_path_factory.mktemp("jobs")
    places: dict[str, Place] = {}

    def get(state: str) -> Place:
        if state in places:
            jobs_in_states.restore(root / state, root / f"{state}.copy")
        else:
            places[state] = jobs_in_states.make(root / state, state)
            shutil.copytree(root / state, root / f"{state}.copy", symlinks=True, ignore=_sockets)
        return places[state]

    yield get


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "control.sock"]


@pytest.fixture(params=STATES)
def place(
    request: pytest.FixtureRequest, made: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A job in each state, with its home set for this process."""
    if request.param != "running":
        at = made(request.param)
        monkeypatch.setenv("SKYBATCH_HOME", str(at.folder / "home"))
        yield at
        return
    monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "home"))
    with jobs_in_states.running(tmp_path) as at:
        yield at


@pytest.fixture
def state(request: pytest.FixtureRequest) -> str:
    found: str = request.node.callspec.params["place"]
    return found


def only(*states: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", states, indirect=True)


def test_list_shows_it_in_any_state(place: Place, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["list"]) == 0
    [line] = capsys.readouterr().out.splitlines()[1:]
    assert line.startswith(f"{place.job.id}  {NEXT_STATE[state]}")
    assert ("interrupted" in line) == (state == "killed")
    assert invoke(["list", "--json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["engine_running"]) == (NEXT_STATE[state], state == "running")
    assert shown["items"] == 6 and shown["items_done"] >= 2


def test_status_tells_how_to_go_on(place: Place, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["status", place.job.id]) == 0
    text = capsys.readouterr().out
    assert invoke(["status", place.job.id[:11], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    command = {
        "running": f"skybatch status {place.job.id} --watch",
        "failed": f"skybatch retry {place.job.id} --code current",
        "finished": None,
    }
    assert shown["next_command"] == command.get(state, f"skybatch resume {place.job.id}")
    assert shown["next_command"] is None or shown["next_command"] in text
    assert shown["outputs"] == [{"path": str(place.output), "state": "cleaned" if state == "finished" else "open"}]
    assert ("four is \\x1b[31mtoo much" in text) == (state == "failed")


@only(*STILL)
def test_watching_a_job_without_an_engine_ends_with_its_exit_code(place: Place, state: str) -> None:
    assert invoke(["status", "last", "--watch"]) == {"killed": 75, "failed": 1, "finished": 0}[state]


@only("running")
def test_watching_follows_a_running_job_to_its_end(place: Place) -> None:
    arguments = ["status", "--watch", "--json"]
    with jobs_in_states.popen(*arguments, home=place.folder / "home") as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert first == {"event": "progress", "state": "running", "done": 2, "dead": 0, "total": 6}
        jobs_in_states.kill_engine(place.job)
        last = json.loads(watching.stdout.read().splitlines()[-1])
    assert watching.returncode == 75
    assert (last["id"], last["engine_running"], last["items_done"]) == (place.job.id, False, 2)


def test_logs_show_what_the_mapper_printed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["logs", "last", "--worker", "0"]) == 0
    assert capsys.readouterr().out.startswith("hello from the mapper\n")
    assert invoke(["logs", "last", "--json"]) == 0
    assert "worker-0" in [log["name"] for log in json.loads(capsys.readouterr().out)]
    assert invoke(["logs", "last", "--worker", "7"]) == 2


def test_errors_show_the_mappers_own_traceback_inert(
    place: Place, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["errors", "last"]) == 0
    shown = capsys.readouterr()
    assert invoke(["errors", "last", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    if state != "failed":
        assert (shown.out, shown.err, listed) == ("", "skybatch: nothing failed\n", [])
        return
    assert "items 4-5, try 1, mapper: ValueError: four is \\x1b[31mtoo much" in shown.out
    assert "own_mapper.py" in shown.out and "\x1b" not in shown.out
    assert {(row["start"], row["end"]) for row in listed if row["dead"]} >= {(4, 4), (5, 5)}


def test_cancel_stops_what_runs_and_leaves_the_rest_alone(
    place: Place, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["cancel", place.job.id]) == 0
    said = capsys.readouterr().err
    assert not place.job.engine_running
    if state in ("running", "killed"):
        assert place.job.state == "cancelled"
        assert f"skybatch resume {place.job.id}" in said
    else:
        assert place.job.state == NEXT_STATE[state]
        assert "does not run" in said


def test_clean_removes_only_what_is_finished(place: Place, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["clean", place.job.id]) == {"running": 5, "killed": 2, "failed": 2, "finished": 0}[state]
    assert place.job.folder.path.exists() == (state != "finished")
    if state in ("killed", "failed"):
        assert f"skybatch resume {place.job.id}" in capsys.readouterr().err
    assert place.output.exists() == (state == "finished")


def test_clean_unfinished_leaves_nothing_behind_but_refuses_what_runs(place: Place, state: str) -> None:
    assert invoke(["clean", "--unfinished", "last"]) == (5 if state == "running" else 0)
    assert place.job.folder.path.exists() == (state == "running")
    if state != "running":
        assert not (place.folder / ".sky_batch_tmp").exists()
        assert list((place.folder / "home" / "unfinished").iterdir()) == []
    assert place.output.exists() == (state == "finished")


def test_resume_finishes_what_can_be_finished(place: Place, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = place.output.stat() if place.output.exists() else None
    assert invoke(["resume", place.job.id]) == {"running": 5, "killed": 0, "failed": 1, "finished": 0}[state]
    if state in ("killed", "finished"):
        assert place.output.read_bytes() == WHOLE
    if before is not None:
        assert place.output.stat().st_mtime_ns == before.st_mtime_ns
    if state == "failed":
        said = capsys.readouterr().err
        assert "Traceback" in said and "logs" in said and f"skybatch resume {place.job.id}" in said
    if state == "running":
        assert "another engine" in capsys.readouterr().err
        assert place.job.engine_running


@only("failed")
def test_resume_with_another_policy_publishes_without_what_failed_for_good(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["resume", place.job.id]) == 1
    assert f"skybatch resume {place.job.id} --on-error skip" in capsys.readouterr().err
    assert invoke(["errors", place.job.id]) == 0
    shown = capsys.readouterr().out
    assert (shown.count("  item 4, "), shown.count("set aside")) == (2, 2)  # it was tried twice, and set aside once
    assert invoke(["resume", place.job.id, "--on-error", "skip"]) == 3
    assert place.output.read_text() == "".join(f'{{"id":{i}}}\n' for i in range(4))
    assert invoke(["resume", place.job.id, "--on-error", "fail"]) == 2
    assert "put together already" in capsys.readouterr().err
    assert Job(place.job.folder).spec.on_error == "skip"


@only("killed")
def test_another_policy_reaches_a_detached_engine_and_stays(place: Place) -> None:
    assert invoke(["resume", place.job.id, "--on-error", "skip", "--detach"]) == 0
    place.job.wait(60)
    assert Job(place.job.folder).spec.on_error == "skip"
    assert place.output.read_bytes() == WHOLE


@only("killed")
def test_settings_that_a_resumed_job_does_not_take_are_named(place: Place) -> None:
    with open(place.jobfile, "a") as file:
        file.write("on_error: skip\n")
    again = run(place, "--resume")
    assert again.returncode == 0
    assert "its own on_error, 'fail', not with 'skip'" in again.stderr and "max_retries" not in again.stderr


@only("failed")
def test_a_resume_that_is_refused_changes_nothing_and_names_both_ways_on(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = place.job._row()
    with open(place.folder / "in.jsonl", "a") as file:
        file.write('{"id":6}\n')
    assert invoke(["resume", place.job.id]) == 4
    said = capsys.readouterr().err
    assert f"skybatch resume {place.job.id}" in said and f"skybatch clean --unfinished {place.job.id}" in said
    after = place.job._row()
    assert (after.state, after.cause, after.finished_at) == (before.state, before.cause, before.finished_at)


@only("killed")
def test_resume_without_a_job_takes_the_one_unfinished(place: Place) -> None:
    assert invoke(["resume"]) == 0
    assert place.output.read_bytes() == WHOLE
    assert invoke(["resume"]) == 2


@only("killed")
def test_resume_detached_prints_the_id_and_goes_on_alone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["resume", "--detach", "--workers", "2"]) == 0
    assert capsys.readouterr().out == f"{place.job.id}\n"
    place.job.wait(60)
    assert place.output.read_bytes() == WHOLE


def run(place: Place, *options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as each job's mapper is a module of the same name."""
    return jobs_in_states.command("run", *options, place.jobfile, home=place.folder / "home")


def test_run_of_the_same_file_never_does_the_work_twice(place: Place, state: str) -> None:
    again = run(place)
    assert again.returncode == {"running": 5, "killed": 1, "failed": 1, "finished": 73}[state]
    way = {"killed": "resume", "failed": "retry"}.get(state)
    assert way is None or f"skybatch {way} {place.job.id}" in again.stderr
    assert "Traceback" not in again.stderr


@only("killed")
def test_run_with_resume_goes_on_with_the_unfinished_job(place: Place) -> None:
    assert run(place, "--resume").returncode == 0
    assert place.output.read_bytes() == WHOLE
    assert place.job.state == "cleaned"


@only("finished")
def test_run_with_overwrite_replaces_the_output(place: Place) -> None:
    place.output.write_text("old\n")
    assert run(place, "--overwrite").returncode == 0
    assert place.output.read_bytes() == WHOLE


@pytest.mark.parametrize("arguments", [["pool", "list"], ["pool", "show", "local"], ["plugins"], ["doctor"]])
def test_the_other_verbs_work_beside_any_job_and_touch_none(
    place: Place, state: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == 0
    assert invoke([*arguments, "--json"]) == 0
    assert place.job.state == NEXT_STATE[state]


@only(*STILL)
def test_a_damaged_journal_is_listed_and_named_and_can_be_cleaned_away(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.job.folder.journal.write_bytes(b"\0" * 5000)
    assert invoke(["list"]) == 0
    assert "damaged" in capsys.readouterr().out
    for verb in ("resume", "cancel", "errors"):
        assert invoke([verb, place.job.id]) == 74
        assert str(place.job.folder.journal) in capsys.readouterr().err
    assert invoke(["status", place.job.id, "--watch"]) == 74
    assert invoke(["clean", place.job.id]) == 2
    assert invoke(["clean", "--unfinished", place.job.id]) == 0
    assert not place.job.folder.path.exists()


def test_a_job_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "home"))
    for verb in ("status", "logs", "errors", "cancel", "resume", "clean"):
        for reference in ("last", "5zzzzz"):
            assert invoke([verb, reference]) == 2


@only("killed")
def test_several_unfinished_jobs_are_listed_not_guessed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    other = place.job.folder.path.with_name("0" * 12)
    shutil.copytree(place.job.folder.path, other)
    assert invoke(["resume"]) == 2
    said = capsys.readouterr().err
    newest, oldest = said.splitlines()[1:]
    assert newest.split()[:2] == [place.job.id, "running"] and oldest.split()[0] == other.name
    assert all(str(place.output) in line for line in (newest, oldest))


@only("killed")
def test_of_several_unfinished_jobs_the_one_that_has_not_failed_is_meant(place: Place) -> None:
    failed = JobFolder(place.job.folder.path.with_name("zzzzzzzzzzzz"))
    shutil.copytree(place.job.folder.path, failed.path)
    with Journal.open(failed.journal) as journal:
        journal.set_state("failed", "for the test")
    assert find_job().id == place.job.id
    assert invoke(["clean", "--state", "failed", place.job.id]) == 2
    assert invoke(["clean", "--state", "failed"]) == 0
    assert place.job.folder.path.exists() and not failed.path.exists()


@only("finished")
def test_output_cut_short_by_head_is_no_error(place: Place) -> None:
    with jobs_in_states.popen("logs", "last", "-n", "0", home=place.folder / "home") as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == SIGPIPE_CODE
