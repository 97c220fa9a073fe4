"""Workers pinned to devices, which a stand-in for NVIDIA's library tells of, driver and all."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skybatch.errors import UsageError
from skybatch.executors import devices
from skybatch.executors.base import ExecutorOptions
from skybatch.executors.gpu import GpuExecutor
from tests.tools.bench import ROOT
from tests.tools.processes import wait_until

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed"),
]
PAUSED = 75
SCRIPT = """
import os, sys, time
import skybatch
from skybatch.engine import pools

def mapper(batch, folder, seconds):
    with open(f"{folder}/seen.log", "a") as file:
        file.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
    time.sleep(seconds)
    return [{"id": item["id"]} for item in batch]

class Spoilt:
    # a mapper whose context is spoilt by one item, as CUDA's is
    broken = False
    def __init__(self, folder, seconds):
        self.folder = folder
    def __call__(self, batch):
        with open(f"{self.folder}/seen.log", "a") as file:
            file.write(f"{os.getpid()} {batch[0]['id']}\\n")
        if Spoilt.broken or batch[0]["id"] == 8:
            Spoilt.broken = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return [{"id": item["id"]} for item in batch]

if __name__ == "__main__":
    folder, seconds, pool, which = sys.argv[1], float(sys.argv[2]), pools.from_mapping(eval(sys.argv[3])), sys.argv[4]
    try:
        skybatch.Dataset.from_items([{"id": index} for index in range(40)]).map(
            {"mapper": mapper, "Spoilt": Spoilt}[which], pool, batch_size=1 if which == "Spoilt" else 2,
            output=skybatch.JsonWriter(f"{folder}/out.jsonl"), on_error="skip",
            mapper_args={"folder": folder, "seconds": seconds})
    except skybatch.SkybatchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = ROOT / "tests" / "tools" / "nvml.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(source)], check=True)
    return folder


class Machine:
    """A folder with devices, and a job to run on them."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder, self._library = folder, library
        (folder / "script.py").write_text(SCRIPT)

    def has(self, *states: str, name: str = "NVIDIA L4") -> None:
        """Say what devices there are, all at once: `ok` or `lost`."""
        lines = "".join(f"GPU-{number}|{name}|{state}\n" for number, state in enumerate(states))
        (self.folder / "devices.new").write_text(lines)
        os.replace(self.folder / "devices.new", self.folder / "devices")

    def environment(self, **more: str) -> dict[str, str]:
        """That of who is to see these devices."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self._library),
            "NVML_DEVICES": str(self.folder / "devices"),
            "SKYBATCH_HOME": str(self.folder / "home"),
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def start(
        self, options: dict[str, Any], seconds: float = 0.0, mapper: str = "mapper", **environment: str
    ) -> subprocess.Popen[str]:
        """Run the job."""
        pool = {"executor": "gpu", **options}
        words = [sys.executable, "script.py", str(self.folder), str(seconds), repr(pool), mapper]
        return subprocess.Popen(
            words, env=self.environment(**environment), cwd=self.folder, stderr=subprocess.PIPE, text=True
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        words = [sys.executable, "-m", "skybatch.cli", *arguments]
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(words, env=self.environment(), cwd=self.folder, **how)

    def seen(self) -> list[str]:
        """What was visible to the mapper, batch by batch."""
        try:
            return (self.folder / "seen.log").read_text().splitlines()
        except FileNotFoundError:
            return []

    def done(self, process: subprocess.Popen[str]) -> None:
        """See the job done, with every item."""
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        rows = (self.folder / "out.jsonl").read_text().splitlines()
        assert rows == [f'{{"id":{index}}}' for index in range(40)]


@pytest.fixture
def machine(tmp_path: Path, library: Path) -> Machine:
    made = Machine(tmp_path, library)
    made.has("ok", "ok", "ok", "ok")
    return made


@pytest.mark.parametrize(
    ("options", "pins"),
    [
        ({}, ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]),
        ({"workers": 2}, ["GPU-0", "GPU-1"]),
        ({"gpus_per_worker": 2}, ["GPU-0,GPU-1", "GPU-2,GPU-3"]),
        ({"gpus_per_worker": 3}, ["GPU-0,GPU-1,GPU-2"]),
        ({"workers": 2, "workers_per_gpu": 2}, ["GPU-0"]),
        ({"resources": {"accelerators": "L4:2"}}, ["GPU-0,GPU-1", "GPU-2,GPU-3"]),
    ],
    ids=str,
)
def test_each_worker_sees_its_own_devices(machine: Machine, options: dict[str, Any], pins: list[str]) -> None:
    machine.done(machine.start(options, 0.1))
    assert sorted(set(machine.seen())) == pins


def test_only_what_the_engine_may_use_is_used(machine: Machine) -> None:
    machine.done(machine.start({}, 0.05, CUDA_VISIBLE_DEVICES="1,GPU-3"))
    assert set(machine.seen()) == {"GPU-1", "GPU-3"}


def test_a_lost_device_is_set_aside_and_its_work_goes_elsewhere(machine: Machine) -> None:
    machine.has("ok", "ok")
    process = machine.start({}, 0.2)
    wait_until(lambda: len(set(machine.seen())) == 2, 20, "both at work")
    machine.has("ok", "lost")
    for worker in _workers_of(machine, "GPU-1"):
        worker.kill()  # as a driver does to those on a lost device
    wait_until(lambda: "GPU is lost" in machine.command("status", "last", "--json").stdout, 20, "it is told")
    machine.done(process)
    assert json.loads(machine.command("errors", "last", "--json").stdout) == []


def _workers_of(machine: Machine, pin: str) -> list[Any]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        is_ours = environment.get("SKYBATCH_HOME") == str(machine.folder / "home")
        if is_ours and environment.get("CUDA_VISIBLE_DEVICES") == pin and "child.py" in " ".join(process.cmdline()):
            found.append(process)
    return found


def test_without_any_device_left_the_job_pauses(machine: Machine) -> None:
    machine.has("ok")
    process = machine.start({}, 0.2)
    wait_until(lambda: len(machine.seen()) > 2, 20, "at work")
    machine.has("lost")
    for worker in _workers_of(machine, "GPU-0"):
        worker.kill()
    _, told = process.communicate(timeout=60)
    assert process.returncode == PAUSED, told
    assert "GPU is lost" in told
    machine.has("ok")
    ended = machine.command("resume")
    assert ended.returncode == 0, ended
    assert len((machine.folder / "out.jsonl").read_text().splitlines()) == 40


def test_status_tells_of_memory_and_utilisation(machine: Machine) -> None:
    process = machine.start({"workers": 1}, 0.2)
    wait_until(lambda: len(machine.seen()) > 1, 20, "at work")
    (place,) = json.loads(machine.command("status", "last", "--json").stdout)["places"]
    assert place["facts"] == {
        "name": "NVIDIA L4", "memory_used": 10**9, "memory_total": 24 * 10**9, "utilisation": 42
    }  # fmt: skip
    assert "1.0 of 24.0 GB used, 42 % busy" in machine.command("status", "last").stdout
    machine.done(process)


def test_check_tells_of_the_devices(machine: Machine) -> None:
    (machine.folder / "pool.yaml").write_text("executor: gpu\nworkers: 2\n")
    assert machine.command("pool", "apply", "pool.yaml", "--pool", "gpus").returncode == 0
    found = json.loads(machine.command("pool", "check", "gpus", "--json").stdout)
    assert [[gpu["uuid"] for gpu in one["facts"]["gpus"]] for one in found] == [["GPU-0"], ["GPU-1"]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"resources": {"accelerators": "A100:1"}}, "1 A100 for each worker is asked for, and this"),
        ({"gpus_per_worker": 8}, "8 GPUs for each worker are asked for"),
        ({"workers_per_gpu": 0}, "workers_per_gpu: a whole number of at least 1"),
        ({"options": {"accelerators": [1]}}, "is not a kind and a number"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_there_is_a_job(machine: Machine, options: dict[str, Any], told: str) -> None:
    process = machine.start(options)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and told in said
    assert not list((machine.folder / "home").glob("jobs/*/spec.json"))


def test_without_a_driver_the_reason_is_told(machine: Machine) -> None:
    (machine.folder / "devices").unlink()
    process = machine.start({})
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "Driver Not Loaded" in said


def test_a_spoilt_context_costs_one_range_and_not_those_that_come_after(machine: Machine) -> None:
    process = machine.start({"workers": 1}, mapper="Spoilt")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    rows = [json.loads(row)["id"] for row in (machine.folder / "out.jsonl").read_text().splitlines()]
    assert rows == [index for index in range(40) if index != 8]
    failures = json.loads(machine.command("errors", "last", "--json").stdout)
    assert {failure["item"] for failure in failures} == {8}


def test_names_of_devices() -> None:
    there = [devices.Device("a", "NVIDIA A100-SXM4-80GB", 0), devices.Device("b", "NVIDIA L40S", 1)]
    from skybatch.executors.gpu import _fitting

    assert [device.id for device in _fitting(there, "A100-80GB")] == ["a"]
    assert [device.id for device in _fitting(there, "L4")] == []
    assert [device.id for device in _fitting(there, "")] == ["a", "b"]


def test_devices_of_amd_are_counted_as_the_kernel_shows_them(tmp_path: Path) -> None:
    for number, simds in enumerate((0, 304, 304)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "properties").write_text(f"simd_count {simds}\ngfx_target_version 90402\n")
    found = devices._amd(tmp_path)
    assert [(device.id, device.pinned_by) for device in found] == [("0", devices.AMD), ("1", devices.AMD)]


def test_numbers_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="workers_per_gpu"):
        GpuExecutor.check(ExecutorOptions(options={"gpus_per_worker": 2, "workers_per_gpu": 2}))
