"""Mappers that forget results, and mappers with bad manners, in a module that is not installed."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import skybatch
from skybatch import io_formats, utils

Batch = list[dict[str, Any]]


def plain(batch: Batch) -> Batch:
    return [{"i": item["i"], "twice": 2 * item["i"]} for item in batch]


@skybatch.remote_function
def breaking_off() -> None:
    """Leaves the loop after every batch."""
    for batch in skybatch.load():
        skybatch.save_results(plain(batch))
        break


@skybatch.remote_function
def saving_twice() -> None:
    for batch in skybatch.load():
        skybatch.save_results(plain(batch))
        skybatch.save_results(plain(batch))


@skybatch.remote_function
def saving_never() -> None:
    for _ in skybatch.load():
        pass


@skybatch.remote_function
def breaking_off_unsaved() -> None:
    for _ in skybatch.load():
        break


@skybatch.remote_function
def saving_too_few() -> None:
    for batch in skybatch.load():
        skybatch.save_results(plain(batch)[:-1])


@skybatch.remote_function
def saving_a_tuple() -> None:
    for batch in skybatch.load():
        skybatch.save_results(tuple(plain(batch)))  # type: ignore[arg-type]


@skybatch.remote_function
def saving_numbers() -> None:
    for batch in skybatch.load():
        skybatch.save_results([item["i"] for item in batch])


@skybatch.remote_function
def saving_after_a_refusal() -> None:
    """What was refused does not count as saved."""
    for batch in skybatch.load():
        try:
            skybatch.save_results(plain(batch)[:-1])
        except ValueError:
            skybatch.save_results(plain(batch))


def talking(batch: Batch) -> Batch:
    """100 MB in all, when called for four batches; binary, and not in lines."""
    sys.stdout.write("no line end ")
    for fd in (1, 2):
        data = memoryview(os.urandom(1 << 16) * 200)
        while data:
            data = data[os.write(fd, data) :]
    return plain(batch)


def closing(batch: Batch) -> Batch:
    os.closerange(0, 256)
    return plain(batch)


def forking(batch: Batch) -> Batch:
    for apart in (False, True):
        if os.fork() == 0:
            if apart:
                os.setsid()
                if os.fork():
                    os._exit(0)
            time.sleep(1000)
    return plain(batch)


def forking_and_waiting(batch: Batch) -> Batch:
    """Waits for children that leave the mapper as anything may: by exit, exception and return."""
    for status in (0, 3, 1):
        pid = os.fork()
        if pid == 0 and status == 1:
            raise OSError("in the child")
        if pid == 0:
            sys.exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return plain(batch)


def threading_on(batch: Batch) -> Batch:
    import threading

    for daemon in (False, True):
        threading.Thread(target=time.sleep, args=(1000,), daemon=daemon).start()
    return plain(batch)


def moving(batch: Batch) -> Batch:
    os.chdir("/")
    return plain(batch)


def changing_locale(batch: Batch) -> Batch:
    import locale

    for name in ("C", "C.UTF-8", "POSIX"):
        locale.setlocale(locale.LC_ALL, name)
    os.environ.update(LC_ALL="C", LANG="tr_TR", TZ="Pacific/Kiritimati")
    time.tzset()
    return plain(batch)


def masking(batch: Batch) -> Batch:
    os.umask(0o777)
    return plain(batch)


def deaf(batch: Batch) -> Batch:
    import signal

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return plain(batch)


@dataclass
class Miscounting(io_formats.InputReader):
    """Gives another number of items than asked for, from the third range on."""

    more: int

    def __len__(self) -> int:
        return 12

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        more = self.more if start_idx >= 8 else 0
        return [{"i": index} for index in range(start_idx, end_idx + 1 + more)]


@dataclass
class MergingWriter(io_formats.OutputWriter):
    """As one writes a format by the guide: a file for each batch, merged at the end."""

    key: str = "i"

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        rows = [row for path in utils.list_batch_files(self.path, job_id) for row in utils.load_jsonl_from_cloud(path)]
        utils.upload_bytes_to_cloud("".join(f"{row[self.key]}\n" for row in rows).encode(), self.path)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)
        utils.delete_input_batch_files(self.path, job_id)


def littering(batch: Batch, folder: str) -> Batch:
    """Leaves files of other names among the batch files."""
    place = f"{folder}/.sky_batch_tmp/{skybatch.context().job_id}"
    for name in ("stray", "merged/.hidden", "merged/000000000000-000000000003.jsonl", "merged/00-03-abc.jsonl.tmp"):
        os.makedirs(os.path.dirname(f"{place}/{name}"), exist_ok=True)
        with open(f"{place}/{name}", "w") as file:
            file.write("not a batch file")
    return plain(batch)
