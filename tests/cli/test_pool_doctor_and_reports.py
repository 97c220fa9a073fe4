"""What the verbs do beyond any one job: pools, checks, ends of logs, exit 3, plugins that cannot be loaded."""

import json
import os
from pathlib import Path

import pytest

from skybatch.cli import reports
from skybatch.cli.main import invoke
from tests.cli import jobs_in_states


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("SKYBATCH_HOME", str(path))
    return path


def test_the_references_pool_command_works_and_the_pool_lives_until_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text("pool:\n  workers: 2\nresources:\n  cpus: 4\nsetup: uv pip install vllm\n")
    assert invoke(["pool", "apply", str(file), "--pool", "custom-fmt-pool", "-y"]) == 0
    said = capsys.readouterr().err
    assert "local, 2 workers" in said and "setup is not run" in said and "resources.cpus" in said
    assert invoke(["pool", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["custom-fmt-pool", "local", "2"]
    assert invoke(["pool", "show", "custom-fmt-pool", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["workers"] == 2
    assert invoke(["pool", "show", "custom-fmt-pol"]) == 2
    assert "did you mean 'custom-fmt-pool'?" in capsys.readouterr().err
    assert invoke(["pool", "delete", "custom-fmt-pool"]) == 0
    assert invoke(["pool", "delete", "custom-fmt-pool"]) == 2


def test_setup_is_run_here_when_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pool.yaml"
    made = tmp_path / "made"
    file.write_text(f"workers: 2\nenv: {{WHERE: {made}}}\nactivate_env: exit 9\nsetup: echo once >> $WHERE\n")
    assert invoke(["pool", "apply", str(file), "--pool", "a", "--run-setup"]) == 0
    assert made.read_text() == "once\n"
    assert "local: setup is done" in capsys.readouterr().err


def test_what_pool_show_writes_can_be_applied_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text('workers: 3\nenv: {A: "1", B: "${ENV:B}"}\nactivate_env: source x\noptions: {deep: [1]}\n')
    assert invoke(["pool", "apply", str(file), "--pool", "a"]) == 0
    assert invoke(["pool", "show", "a"]) == 0
    file.write_text(capsys.readouterr().out)
    assert invoke(["pool", "apply", str(file), "--pool", "b"]) == 0
    assert invoke(["pool", "list", "--json"]) == 0
    first, second, _ = json.loads(capsys.readouterr().out)
    assert {**first, "name": ""} == {**second, "name": ""}


def test_a_pool_of_an_unknown_executor_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text("executor: locl\n")
    assert invoke(["pool", "apply", str(file), "--pool", "a"]) == 2
    assert "unknown executor 'locl'; did you mean 'local'?" in capsys.readouterr().err
    assert invoke(["pool", "show", "a"]) == 2


def test_doctor_says_what_is_wrong_and_fails(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor"]) == 0
    assert "BAD" not in capsys.readouterr().out
    home.chmod(0o777)
    assert invoke(["doctor", "--json"]) == 1
    wrong = [check for check in json.loads(capsys.readouterr().out) if not check["ok"]]
    assert [check["name"] for check in wrong] == ["job folders"]
    assert "others may write to it" in wrong[0]["found"] and "SKYBATCH_HOME" in wrong[0]["remedy"]


@pytest.mark.parametrize("block", [3, 1 << 16])
@pytest.mark.parametrize("text", [b"", b"\n", b"one", b"one\n", b"one\ntwo", b"one\n\ntwo\nthree\n", b"\n\n\n"])
@pytest.mark.parametrize("lines", [1, 2, 3, 9])
def test_the_end_of_a_log_is_found_from_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, lines: int, block: int
) -> None:
    monkeypatch.setattr(reports, "BLOCK", block)
    path = tmp_path / "log"
    path.write_bytes(text)
    with open(path, "rb") as file:
        offset = reports._offset_of_last(file.fileno(), lines)
    assert text[offset:] == b"".join(text.splitlines(keepends=True)[-lines:])


def test_a_job_done_but_for_items_set_aside_exits_3_and_says_how_to_see_them(tmp_path: Path) -> None:
    jobs_in_states.write_files(tmp_path, "failing")
    with open(tmp_path / "job.yaml", "a") as file:
        file.write("on_error: skip\npool: {workers: 2}\n")
    job = tmp_path / "job.yaml"
    ran = jobs_in_states.command("run", job, home=tmp_path / "home")
    assert ran.returncode == 3, ran.stderr
    done, how = ran.stderr.splitlines()[-2:]
    assert done.endswith("out.jsonl; 2 items were set aside")
    assert "to see them: skybatch errors" in how and "to try them again: skybatch retry" in how
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 4
    watched = jobs_in_states.command("status", "last", "--watch", "--json", home=tmp_path / "home")
    assert watched.returncode == 3
    assert json.loads(watched.stdout)["items_dead"] == 2


def test_nothing_is_read_from_the_terminal(tmp_path: Path) -> None:
    """Also where an output is in the way, which the reference asks about."""
    jobs_in_states.write_files(tmp_path, "gated")
    (tmp_path / "out.jsonl").write_text("theirs\n")
    standard_input, writer = os.pipe()  # a read would wait for ever
    try:
        ran = jobs_in_states.command(
            "run", tmp_path / "job.yaml", home=tmp_path / "home", standard_input=standard_input
        )
    finally:
        os.close(writer)
        os.close(standard_input)
    assert ran.returncode == 73
    assert (tmp_path / "out.jsonl").read_text() == "theirs\n"
