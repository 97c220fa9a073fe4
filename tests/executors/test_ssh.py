"""Jobs on hosts that real sshd processes serve."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from skybatch.executors import ciphers
from tests.tools.bench import ROOT, Bench, Ended, end_of
from tests.tools.pages import shown_pool
from tests.tools.processes import wait_until
from tests.tools.sshd import Hosts, needs_sshd

pytestmark = [needs_sshd, pytest.mark.full]

PAUSED = 75
BARE = "/usr/bin/python3"
"""A Python that has none of what formats need."""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    found = Hosts(tmp_path / "hosts", 2)
    yield found
    found.stop()


def pool(hosts: Hosts, *names: str, workers: int = 1, python: str = sys.executable, **options: Any) -> dict[str, Any]:
    """A pool of these hosts, of all unless some are named."""
    own = {"hosts": list(names) or hosts.names, "ssh_config": str(hosts.config), "python": python, **options}
    return {"executor": "ssh", "workers": workers, "options": own}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), outputs=OUTPUTS)
    bench.succeed(bench.start())
    return bench.outputs()


OUTPUTS = ["json", "yaml", "texts", "parquet", "shards"]


def old_python() -> str:
    """A Python 3.9 with nothing installed; skips where there is none."""
    found = [path for path in ("/root/.pyenv/versions/3.9.18/bin/python3", shutil.which("python3.9") or "") if path]
    usable = [path for path in found if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0]
    if not usable:
        pytest.skip("no Python 3.9 on this machine")
    return usable[0]


def cli(bench: Bench, *arguments: str) -> Ended:
    """Run the command."""
    return end_of(bench.spawn(["-m", "skybatch.cli", *arguments]))


def status(bench: Bench) -> dict[str, Any]:
    """What `status` tells of the job."""
    found: dict[str, Any] = json.loads(cli(bench, "status", bench.job_id, "--json").out)
    return found


# What comes out


@pytest.mark.parametrize("shared", [None, False], ids=["direct", "relayed"])
def test_outputs_are_those_of_local_workers(
    hosts: Hosts, tmp_path: Path, undisturbed: dict[str, bytes], shared: bool | None
) -> None:
    options = {} if shared is None else {"shared": shared}
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, pool=pool(hosts, **options))
    bench.succeed(bench.start())
    assert bench.outputs() == undisturbed


def test_a_bare_python_is_enough(hosts: Hosts, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, mapping_s=0.05, pool=pool(hosts, python=BARE))
    process = bench.start()
    bench.wait_for_note("ranges.log")
    wait_until(lambda: {"relayed"} == {worker["mode"] for worker in status(bench)["workers"]}, 10, "relayed workers")
    bench.succeed(process)
    assert bench.outputs() == undisturbed


def test_python_3_9_is_enough(hosts: Hosts, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, pool=pool(hosts, python=old_python()))
    bench.succeed(bench.start())
    assert bench.outputs() == undisturbed


def test_a_poison_item_is_set_aside_and_told_as_if_it_were_here(hosts: Hosts, tmp_path: Path) -> None:
    run(
        tmp_path,
        hosts,
        """
        import helper
        def mapper(batch):
            for item in batch:
                if item["id"] == 7:
                    os._exit(3)
                print("got", item["id"])
                if item["id"] == 11:
                    helper.fail()
            return [{"id": item["id"]} for item in batch]
        """,
        on_error="skip",
        shared=False,
    )
    rows = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [index for index in range(40) if index not in (7, 11)]
    told = command(tmp_path, "errors", "last", "--json")
    kinds = {failure["item"]: failure["kind"] for failure in json.loads(told) if failure["dead"]}
    assert kinds == {7: "lost", 11: "mapper"}
    assert "helper.py" in told and "no such luck" in told
    assert "got 12" in command(tmp_path, "logs", "last")


def run(folder: Path, hosts: Hosts, code: str, **how: Any) -> None:
    """A job of 40 items from a script with a module beside it, over one host."""
    import textwrap

    script = folder / "script.py"
    (folder / "helper.py").write_text("def fail():\n    raise ValueError('no such luck')\n")
    options = {"shared": how.pop("shared")} if "shared" in how else {}
    script.write_text(
        "import os\nimport skybatch\n"
        + textwrap.dedent(code)
        + f"""
if __name__ == "__main__":
    from skybatch.engine import pools
    skybatch.Dataset.from_items([{{"id": index}} for index in range(40)]).map(
        mapper, pools.from_mapping({pool(hosts, "box0", **options)!r}), batch_size=4,
        output=skybatch.JsonWriter({str(folder / "out.jsonl")!r}), **{how!r})
"""
    )
    environment = {**os.environ, "SKYBATCH_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, timeout=60, cwd=folder)


def command(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "SKYBATCH_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "skybatch.cli", *arguments]
    return subprocess.run(words, env=environment, check=True, timeout=60, capture_output=True, text=True).stdout


def test_images_and_arrays_travel(hosts: Hosts, tmp_path: Path) -> None:
    run(
        tmp_path,
        hosts,
        """
        import numpy
        def mapper(batch):
            return [{"id": item["id"], "array": numpy.arange(3)} for item in batch]
        """,
        shared=False,
    )
    assert (tmp_path / "out.jsonl").read_text().splitlines()[5] == '{"id":5,"array":[0,1,2]}'


# Connections


def slow(hosts: Hosts, tmp_path: Path, **options: Any) -> Bench:
    """A job of 60 ranges that take 0.1 s each."""
    return Bench(tmp_path / "job", items=240, mapping_s=0.1, pool=pool(hosts, **options))


def whole(tmp_path: Path) -> dict[str, bytes]:
    """What the slow job's outputs must be."""
    bench = Bench(tmp_path / "whole", items=240)
    bench.succeed(bench.start())
    return bench.outputs()


@pytest.mark.parametrize("shared", [None, False], ids=["direct", "relayed"])
def test_a_cut_connection_costs_no_item_its_tries(hosts: Hosts, tmp_path: Path, shared: bool | None) -> None:
    bench = slow(hosts, tmp_path, patience=30, **({} if shared is None else {"shared": shared}))
    process = bench.start()
    for count in (5, 15, 25):
        bench.wait_for_note("ranges.log", count=count)
        hosts.cut("box0")
    bench.succeed(process)
    assert bench.outputs() == whole(tmp_path)
    assert json.loads(cli(bench, "errors", bench.job_id, "--json").out) == []


@pytest.mark.parametrize("shared", [None, False], ids=["direct", "relayed"])
def test_a_host_that_falls_silent_is_left_and_its_late_answers_count_for_nothing(
    hosts: Hosts, tmp_path: Path, shared: bool | None
) -> None:
    bench = slow(hosts, tmp_path, **({} if shared is None else {"shared": shared}))
    process = bench.start()
    bench.wait_for_note("ranges.log", count=8)
    hosts.freeze("box0")
    bench.succeed(process)  # box0's part is done by box1, once box0 was silent for some seconds
    hosts.thaw("box0")
    assert bench.outputs() == whole(tmp_path)


def test_workers_end_when_the_engine_is_killed(hosts: Hosts, tmp_path: Path) -> None:
    bench = slow(hosts, tmp_path, workers=2)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=8)
    workers = [each for name in hosts.names for each in hosts.sessions(name) if "child.py" in " ".join(each.cmdline())]
    assert len(workers) == 4
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    bench.succeed(bench.start_resume())
    assert bench.outputs() == whole(tmp_path)


def test_a_lost_host_leaves_its_work_to_others(hosts: Hosts, tmp_path: Path) -> None:
    bench = slow(hosts, tmp_path)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=8)
    hosts.kill("box0")
    bench.succeed(process)
    assert bench.outputs() == whole(tmp_path)


def test_without_any_host_the_job_pauses_and_can_be_moved(hosts: Hosts, tmp_path: Path) -> None:
    bench = slow(hosts, tmp_path, patience=1)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=8)
    for name in hosts.names:
        hosts.kill(name)
    ended = end_of(process)
    assert ended.code == PAUSED
    assert "no worker can be started" in ended.err and "box0" in ended.err and "box1" in ended.err
    ended = cli(bench, "resume", bench.job_id, "--pool", "local")
    assert ended.code == 0, ended
    assert bench.outputs() == whole(tmp_path)


def test_a_host_that_comes_back_is_used_again(hosts: Hosts, tmp_path: Path) -> None:
    bench = slow(hosts, tmp_path, patience=30)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=8)
    for name in hosts.names:
        hosts.kill(name)
    time.sleep(1)
    hosts.start("box1")
    bench.succeed(process)
    assert bench.outputs() == whole(tmp_path)


def test_what_local_workers_began_a_host_finishes(hosts: Hosts, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job", items=240, mapping_s=0.05)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=20)
    process.kill()
    process.communicate()
    bench.wait_for_no_process()
    apply(bench, "boxes", pool(hosts, shared=False))
    ended = cli(bench, "resume", bench.job_id, "--pool", "boxes")
    assert ended.code == 0, ended
    assert bench.outputs() == whole(tmp_path)


def test_the_page_s_pool_is_run(hosts: Hosts, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    shown = shown_pool("ssh", ssh_config=str(hosts.config))
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, mapping_s=0.2, pool=shown)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=1)
    wait_until(lambda: working(bench) == {"box0", "box1"}, 20, "both at work")
    bench.succeed(process)
    assert bench.outputs() == undisturbed


def test_setup_is_run_on_each_host_and_makes_its_workers_possible(hosts: Hosts, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job", mapping_s=0.02, pool="boxes")
    line = f"mkdir -p ~/env/bin; ln -s {sys.executable} ~/env/bin/python; echo it is made; pwd > ~/made"
    own = {"activate_env": "test -d ~/env && export PATH=~/env/bin:$PATH", "setup": line}
    ended = apply(bench, "boxes", {**pool(hosts, workers=2), **own})
    assert ended.err.count("it is made") == 2
    assert "box0: setup is done" in ended.err and "box1: setup is done" in ended.err
    bench.succeed(bench.start())


def test_a_setup_that_fails_on_a_host_is_told_of_it(hosts: Hosts, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job", pool="boxes")
    hosts.kill("box1")
    file = tmp_path / "pool.yaml"
    file.write_text(json.dumps({**pool(hosts), "setup": "echo no such package >&2; exit 3"}))
    ended = cli(bench, "pool", "apply", str(file), "--pool", "boxes")
    assert ended.code == 1
    assert "box0: no such package" in ended.err and "box0: setup ended with exit code 3" in ended.err
    assert "box1: " in ended.err and "refused" in ended.err
    assert f"skybatch pool apply {file} --pool boxes" in ended.err
    ended = cli(bench, "pool", "apply", str(file), "--pool", "boxes", "--skip-setup")
    assert ended.code == 0 and "setup is not run" in ended.err


def apply(bench: Bench, name: str, values: dict[str, Any]) -> Ended:
    """Apply a pool of these values."""
    file = bench.folder / "pool.yaml"
    file.write_text(json.dumps(values))
    ended = cli(bench, "pool", "apply", str(file), "--pool", name)
    assert ended.code == 0, ended
    return ended


def test_hosts_come_and_go_while_a_job_runs(hosts: Hosts, tmp_path: Path) -> None:
    bench = slow(hosts, tmp_path)
    bench.options |= {"pool": "boxes", "mapping_s": 0.4}
    apply(bench, "boxes", pool(hosts, "box0"))
    process = bench.start()
    bench.wait_for_note("ranges.log", count=5)
    assert "takes the change over" in apply(bench, "boxes", pool(hosts)).err
    wait_until(lambda: working(bench) == {"box0", "box1"}, 60, "both at work")
    assert "takes the change over" in apply(bench, "boxes", pool(hosts, "box1")).err
    wait_until(lambda: working(bench) == {"box1"}, 60, "only one at work")
    bench.succeed(process)
    assert bench.outputs() == whole(tmp_path)
    assert json.loads(cli(bench, "errors", bench.job_id, "--json").out) == []


def working(bench: Bench) -> set[str]:
    """The hosts that have workers."""
    return {worker["place"] for worker in status(bench)["workers"] if worker["state"] == "ready"}


# Hosts that are not as they should be


def test_a_host_whose_key_is_not_known_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    hosts.write_config(["box0"])
    bench = Bench(tmp_path / "job", pool=pool(hosts, "box1"))
    ended = end_of(bench.start())
    assert ended.code == PAUSED
    assert "Host key verification failed" in ended.err
    assert "box1" not in (hosts.folder / "known").read_text()


def test_a_host_whose_key_has_changed_is_refused_and_the_others_work(hosts: Hosts, tmp_path: Path) -> None:
    known = hosts.folder / "known"
    lines = known.read_text().splitlines()
    port, key = lines[0].split()[0], lines[1].split(maxsplit=1)[1]
    known.write_text(f"{port} {key}\n{lines[1]}\n")
    bench = Bench(tmp_path / "job", mapping_s=0.1, pool=pool(hosts))
    process = bench.start()
    bench.wait_for_note("ranges.log", count=5)
    (aside,) = [place["aside"] for place in status(bench)["places"] if place["aside"]]
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in aside or "Host key verification failed" in aside
    bench.succeed(process)


def test_fast_ciphers_come_first_unless_the_user_says_which(hosts: Hosts) -> None:
    named = ["-F", str(hosts.config)]
    offered = ciphers.preferred("box0", named)
    assert offered is not None and offered.startswith("aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20")
    hosts.config.write_text(f"Host box1\n  Ciphers aes256-ctr\n{hosts.config.read_text()}")
    assert ciphers.preferred("box0", named) == offered
    assert ciphers.preferred("box1", named) is None


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "a;touch x", "$(touch x)", "a b", ""])
def test_what_is_no_name_of_a_host_is_refused(hosts: Hosts, tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path / "job", pool=pool(hosts, name or "\n"))
    ended = end_of(bench.start())
    assert ended.code == 2
    assert "is not the name of a host" in ended.err
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize(
    ("python", "told"),
    [
        ("/no/such/python", "/no/such/python"),
        ("/root/.pyenv/versions/3.8.18/bin/python", "workers need 3.9 or newer"),
    ],
)
def test_a_host_with_the_wrong_python_is_set_aside(hosts: Hosts, tmp_path: Path, python: str, told: str) -> None:
    if "pyenv" in python and not os.path.exists(python):
        pytest.skip("no Python 3.8 on this machine")
    asked = pool(hosts)
    asked["options"]["hosts"] = [{"host": "box0", "python": python}, "box1"]
    bench = Bench(tmp_path / "job", mapping_s=0.1, pool=asked)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=5)
    (aside,) = [place for place in status(bench)["places"] if place["aside"]]
    assert aside["name"] == "box0" and told in aside["aside"]
    bench.succeed(process)


def test_a_host_whose_disk_is_full_is_set_aside(hosts: Hosts, tmp_path: Path) -> None:
    small = hosts.folder / "home-box0" / ".cache"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        bench = Bench(tmp_path / "job", mapping_s=0.1, pool=pool(hosts))
        process = bench.start()
        bench.wait_for_note("ranges.log", count=5)
        (aside,) = [place for place in status(bench)["places"] if place["aside"]]
        assert aside["name"] == "box0" and "No space left" in aside["aside"]
        bench.succeed(process)
    finally:
        subprocess.run(["umount", str(small)], check=True)


# Pools


def test_secrets_are_in_no_command_line(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_TOKEN", "t0ps3cr3t")
    asked = {**pool(hosts, "box0"), "env": {"API_TOKEN": "${ENV:THE_TOKEN}"}}
    bench = Bench(tmp_path / "job", mapping_s=0.1, pool=asked)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=5)
    (worker,) = [each for each in hosts.sessions("box0") if "child.py" in " ".join(each.cmdline())]
    assert worker.environ()["API_TOKEN"] == "t0ps3cr3t"
    lines = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if "t0ps3cr3t" in line]
    bench.succeed(process)


def test_check_tells_of_every_slot(hosts: Hosts, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job")
    apply(bench, "boxes", pool(hosts, workers=2))
    found = json.loads(cli(bench, "pool", "check", "boxes", "--json").out)
    assert [one["slot"] for one in found] == ["box0-0", "box0-1", "box1-0", "box1-1"]
    for one in found:
        assert one["error"] is None and one["round_trip_s"] < 1
        assert one["facts"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert "orjson" in one["facts"]["versions"] and one["facts"]["disk_free"] > 0
    hosts.kill("box0")
    ended = cli(bench, "pool", "check", "boxes")
    assert ended.code == 1 and "box0" in ended.err and "box1-1" in ended.out


def test_files_are_brought_along(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "bias.txt").write_text("5")
    asked = pool(hosts, "box0", files=["weights"], files_root=str(tmp_path))
    script = tmp_path / "script.py"
    script.write_text(
        "import skybatch\nfrom pathlib import Path\n"
        "def mapper(batch):\n    bias = int(Path('weights/bias.txt').read_text())\n"
        "    return [{'id': item['id'] + bias} for item in batch]\n"
        "if __name__ == '__main__':\n    from skybatch.engine import pools\n"
        "    skybatch.Dataset.from_items([{'id': 1}]).map(mapper, "
        f"pools.from_mapping({asked!r}), batch_size=4, output=skybatch.JsonWriter('out.jsonl'))\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "SKYBATCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, timeout=60, cwd=elsewhere)
    assert (elsewhere / "out.jsonl").read_text() == '{"id":6}\n'


def test_activate_env_is_run_on_the_host(hosts: Hosts, tmp_path: Path) -> None:
    asked = pool(hosts, "box0", python=BARE)
    asked["activate_env"] = f"export PATH={Path(sys.executable).parent}:$PATH"
    bench = Bench(tmp_path / "job", mapping_s=0.1, pool=asked)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=3)
    assert {worker["mode"] for worker in status(bench)["workers"]} == {"direct"}
    bench.succeed(process)
