"""Mappers with bad manners: floods of output, closed descriptors, stray children, a process turned upside down."""

from __future__ import annotations

import locale
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch.errors
from skybatch import io_formats, utils
from skybatch.engine import pools
from skybatch.worker.frames import encode
from tests.tools.mapping import map_and_fail, map_items
from tests.tools.processes import wait_until

Batch = list[dict[str, Any]]


def first_time(flag: str) -> bool:
    """Whether this is called for the first time, in whatever process."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


LOG_SIZE = 80 << 20  # more than any worker's log may hold


def floods(batch: Batch) -> Batch:
    """A hundred megabytes in all, half of it no text, on both streams and by children too."""
    noise = bytes(range(256)) * 2048
    if batch[0]["id"] < 20:
        for _ in range(10):
            os.write(1, noise)
            os.write(2, noise)
            sys.stdout.buffer.write(noise)
        print("text " * 1_000_000)
        subprocess.run(["echo", "from a child"], check=True)
    return batch


def closes_everything(batch: Batch) -> Batch:
    os.closerange(0, 256)
    return batch


def prints_after_closing(batch: Batch, flag: str) -> Batch:
    """Prints into whatever took the place of the closed streams."""
    if batch[0]["id"] == 8:
        os.closerange(0, 256)
    try:
        print("lost", flush=True)
    except (OSError, ValueError):
        pass
    return batch


def leaves_children_and_threads(batch: Batch) -> Batch:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
        os._exit(0)
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    threading.Thread(target=time.sleep, args=(1000,)).start()
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return batch


def forks_a_copy_that_goes_on(batch: Batch) -> Batch:
    """The child returns from the mapper as the parent does: a worker doubled."""
    if batch[0]["id"] == 8:
        os.fork()
    return batch


def turns_the_process_upside_down(batch: Batch) -> Batch:
    os.chdir("/")
    os.umask(0o777)
    for name in ("de_DE.UTF-8", "C.UTF-8", "C"):
        try:
            locale.setlocale(locale.LC_ALL, name)
            break
        except locale.Error:
            continue
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    sys.path.clear()
    sys.setrecursionlimit(100)
    return batch


def test_flood_of_output_leaves_the_results_alone_and_the_log_capped(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, floods)
    assert outcome.ids == list(range(40)) and outcome.failures == []
    assert 1 << 20 < len(outcome.log) < LOG_SIZE
    assert b"[log full: what follows was dropped]" in outcome.log


def test_closed_descriptors_do_not_touch_the_protocol(tmp_path: Path) -> None:
    assert map_items(tmp_path, closes_everything).ids == list(range(40))


def test_what_is_printed_after_closing_gets_into_no_file_of_ours(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, prints_after_closing, 4000, mapper_args={"flag": ""})
    assert outcome.ids == list(range(4000))
    assert b"lost" not in outcome.output.read_bytes()


def test_children_and_threads_do_not_outlive_the_job(tmp_path: Path) -> None:
    """Seen to by the fixture of every test."""
    assert map_items(tmp_path, leaves_children_and_threads).ids == list(range(40))


def test_worker_that_doubles_itself_loses_nothing(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, forks_a_copy_that_goes_on, 400, batch_timeout_s=5.0)
    assert outcome.ids == list(range(400))


def test_folder_locale_umask_and_signal_handlers_are_the_mappers_own_affair(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, turns_the_process_upside_down, 400)
    assert outcome.ids == list(range(400)) and outcome.failures == []


def lingers(batch: Batch, note: str) -> Batch:
    """A thread that is no daemon keeps a process from ending."""
    threading.Thread(target=time.sleep, args=(1000,)).start()
    Path(note).touch()
    return batch


def test_thread_that_never_ends_does_not_keep_an_interrupted_job(tmp_path: Path) -> None:
    note = tmp_path / "note"

    def interrupt() -> None:
        wait_until(note.exists, 30.0, "the first batch is in hand")
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(skybatch.errors.Paused, match="interrupted by SIGINT"):
        map_items(tmp_path, lingers, 400_000, batch_timeout_s=60.0, mapper_args={"note": str(note)})
    interrupter.join()


def keeps_a_child_apart(batch: Batch, note: str) -> Batch:
    """A child in a session of its own, which no signal to the worker's group reaches."""
    if os.fork() == 0:
        os.setsid()
        Path(note).touch()
        time.sleep(1000)
    time.sleep(1000)
    return batch


def test_second_interrupt_ends_children_in_other_sessions_too(tmp_path: Path) -> None:
    """That none is left is seen to by the fixture of every test."""
    note = tmp_path / "note"

    def interrupt_twice() -> None:
        wait_until(note.exists, 30.0, "the child is there")
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    interrupter = threading.Thread(target=interrupt_twice)
    interrupter.start()
    with pytest.raises(skybatch.errors.Paused, match="interrupted by SIGINT"):
        map_items(tmp_path, keeps_a_child_apart, mapper_args={"note": str(note)})
    interrupter.join()


# Once, for the range 8-11: what ends the attempt, cleanly


def dies_and_leaves_a_copy(batch: Batch, flag: str) -> Batch:
    """The copy has all that the worker had open, and lives on."""
    if batch[0]["id"] == 8 and first_time(flag):
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(3)
    return batch


def closes_what_is_ours_too(batch: Batch, flag: str) -> Batch:
    if batch[0]["id"] == 8 and first_time(flag):
        os.closerange(0, 1 << 16)
    return batch


def write_into_our_channel(data: bytes) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 255 and os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
            os.write(int(name), data)
    time.sleep(1000)


def writes_into_our_channel(batch: Batch, flag: str) -> Batch:
    if batch[0]["id"] == 8 and first_time(flag):
        write_into_our_channel(b"noise " * 10)
    return batch


def says_what_makes_no_sense(batch: Batch, flag: str) -> Batch:
    """With a child in a session of its own, which must go too."""
    if batch[0]["id"] == 8 and first_time(flag):
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        write_into_our_channel(encode({"op": "done", "grant": 1}))
    return batch


ENDS = {
    dies_and_leaves_a_copy: "the worker ended with exit code 3 in the middle of its work",
    writes_into_our_channel: "something else was written into the worker's private channel",
}


@pytest.mark.parametrize("mapper", ENDS, ids=lambda mapper: mapper.__name__)
def test_attempt_that_breaks_its_worker_is_charged_and_told(tmp_path: Path, mapper: Any) -> None:
    outcome = map_items(tmp_path, mapper, mapper_args={"flag": str(tmp_path / "flag")})
    assert outcome.ids == list(range(40)) and outcome.attempts == {8: 2}
    assert [(f.start, f.kind, f.message) for f in outcome.failures] == [(8, "lost", ENDS[mapper])]


class OfTheCatalogue(Exception):
    """Calls something of its own `item`, as exceptions of others do."""

    def __init__(self, item: object) -> None:
        super().__init__("out of stock")
        self.item = item


def raises_with_an_item(batch: Batch, flag: str) -> Batch:
    if batch[0]["id"] == 8 and first_time(flag):
        raise OfTheCatalogue(object())
    return batch


def test_exception_may_call_anything_its_item(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, raises_with_an_item, mapper_args={"flag": str(tmp_path / "flag")})
    assert outcome.ids == list(range(40)) and outcome.attempts == {8: 2}
    assert [(f.start, f.item, f.message) for f in outcome.failures] == [(8, None, "OfTheCatalogue: out of stock")]


POOLS: list[dict[str, Any]] = [
    {"executor": "local"},
    {"executor": "command", "options": {"command": sys.executable}},
    {"executor": "command", "options": {"command": sys.executable, "shared": False}},
]


@pytest.mark.parametrize("pool", POOLS, ids=["local", "elsewhere", "relayed"])
def test_worker_that_makes_no_sense_is_replaced(tmp_path: Path, pool: dict[str, Any]) -> None:
    asked, flag = pools.from_mapping({**pool, "workers": 2}), str(tmp_path / "flag")
    outcome = map_items(tmp_path, says_what_makes_no_sense, pool_name=asked, workers=None, mapper_args={"flag": flag})
    assert os.path.exists(flag) and outcome.ids == list(range(40))
    assert {failure.kind for failure in outcome.failures} <= {"lost"}


def always_makes_no_sense(batch: Batch) -> Batch:
    write_into_our_channel(encode({"op": "done", "grant": 1}))
    return batch


def test_workers_that_never_make_sense_end_the_job(tmp_path: Path) -> None:
    error = map_and_fail(tmp_path, always_makes_no_sense).error
    assert "its worker does not make sense: a frame 'done' came whose start is None" in str(error)


def test_worker_that_closes_its_own_channel_is_replaced(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, closes_what_is_ours_too, mapper_args={"flag": str(tmp_path / "flag")})
    assert outcome.ids == list(range(40))
    assert {failure.kind for failure in outcome.failures} <= {"lost"}


def asks_processes_of_its_own(batch: Batch, method: str) -> Batch:
    with multiprocessing.get_context(method).Pool(2) as pool:
        return [{"id": int(value)} for value in pool.map(abs, [item["id"] for item in batch])]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_mapper_may_have_processes_of_its_own(tmp_path: Path, method: str) -> None:
    outcome = map_items(tmp_path, asks_processes_of_its_own, 8, mapper_args={"method": method})
    assert outcome.ids == list(range(8)) and outcome.failures == []


# Formats that end their thread instead of failing


@dataclass
class LeavingReader(io_formats.InputReader):
    """Leaves by the back door, once or always."""

    flag: str

    def __len__(self) -> int:
        return 40

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        if start_idx >= 8 and not os.path.exists(self.flag):
            open(self.flag, "x").close()
            sys.exit(0)
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


@dataclass
class LeavingWriter(io_formats.OutputWriter):
    flag: str

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        if start_idx == 8 and not os.path.exists(self.flag):
            open(self.flag, "x").close()
            sys.exit(0)
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def same(batch: Batch) -> Batch:
    return batch


def test_reader_that_exits_is_charged_for_it(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, same, reader=LeavingReader("x", str(tmp_path / "flag")))
    assert outcome.ids == list(range(40))


def test_writer_that_exits_is_charged_for_it(tmp_path: Path) -> None:
    writer = LeavingWriter(str(tmp_path / "out.jsonl"), str(tmp_path / "flag"))
    outcome = map_items(tmp_path, same, output=writer)
    assert outcome.ids == list(range(40))
    assert [(f.start, f.kind) for f in outcome.failures] == [(8, "write")]
