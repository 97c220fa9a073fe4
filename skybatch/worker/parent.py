"""The worker's parent: starts the worker, relays frames, keeps its log, and sees that nothing outlives it.

Run as a script, with frames to and from the engine on stdin and stdout. Standard library only. It stays
alive and awake while C code in the worker holds the GIL, and ends the worker and every process the worker
started (it is their subreaper) when the engine goes away, when the worker dies, when a range exceeds the
batch timeout, or when this host wants its processes gone (SIGTERM).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time

# Run as a file, so that skybatch need not be importable; -I leaves this folder off sys.path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from frames import HEADER, Decoder, encode, write_all  # type: ignore[import-not-found]
from mark import MAPPING, Mark, size_for  # type: ignore[import-not-found]
from oom import EXIT_CODE, OomKills, volunteer  # type: ignore[import-not-found]
from sources import fingerprint, version  # type: ignore[import-not-found]
from stacks import SIGNAL, Stacks, of_user_code  # type: ignore[import-not-found]

sys.path.pop(0)

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# A worker allocates and frees the same amounts over and over; giving memory back in between costs a third of its time.
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "16777216",
}
FIRST_PRIVATE_FD = 600  # above what careless code closes with os.closerange(0, 256)
UNWANTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What a host sends to processes it wants gone, and lets them have some seconds."""


class Log:
    """The worker's stdout and stderr, capped: past the cap the rest is dropped, and said so once."""

    def __init__(self, path, cap):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self._left = cap

    def write(self, data):
        if self._left <= 0:
            return
        try:
            write_all(self._fd, data[: self._left])
            self._left -= len(data)
            if self._left <= 0:
                write_all(self._fd, b"\n[log full: what follows was dropped]\n")
        except OSError:
            self._left = 0  # a full disk must not stop the relay


def main():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    config = first_frame()
    log = Log(config["log"], config["log_cap"])
    child = Child(config)
    asked_to_go = notice_signals()
    poll = select.poll()
    for fd in (0, child.socket.fileno(), child.output, asked_to_go):
        poll.register(fd, select.POLLIN)
    try:
        reason = relay(poll, child, log, asked_to_go, Deadlines(child.mark, config))
    except BrokenPipeError:
        reason = None
    held = child.mark.held()
    stacks = child.stacks.ask(child.pid) if reason == "timeout" else ""
    status = child.end()
    drain(child.output, log)
    if reason == "timeout":
        log_stacks(log, held, stacks)
    if reason == "exit":
        reason, held = why(status, child.oom_kills), child.mark.held()
    if reason is not None:
        report(reason, status, held, stacks)


def notice_signals():
    """A descriptor that is readable once this host has asked for our end. A frame half sent is sent to its end."""
    noticed, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    for number in UNWANTED:
        signal.signal(number, lambda *_: None)
    return noticed


def why(status, oom_kills):
    """What ended a worker that nobody here ended."""
    if (status == signal.SIGKILL and oom_kills.happened()) or status == EXIT_CODE << 8:
        return "memory"
    return "preempted" if status == signal.SIGTERM else "exit"


def log_stacks(log, held, stacks):
    where = "with items %d-%d" % (held[0].start, held[0].end) if held else "before its first batch"
    told = stacks or "  (it did not tell)\n"
    log.write(("\n[the worker was stuck %s and was killed; its threads were at:]\n%s" % (where, told)).encode())


def first_frame():
    decoder = Decoder()
    while True:
        data = read_exactly_one(decoder)
        if data is not None:
            return data


def read_exactly_one(decoder):
    # One frame and not a byte more: what follows it belongs to the worker.
    head = read_n(HEADER.size)
    (length,) = HEADER.unpack(head)
    frames = decoder.feed(head + read_n(length))
    return frames[0] if frames else None


def read_n(count):
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data


class Child:
    """The worker process and the descriptors that lead to it."""

    def __init__(self, config):
        ours, theirs = socket.socketpair()
        output, worker_output = os.pipe()
        memory = os.memfd_create("skybatch-mark")
        concurrency = config.get("concurrency", 1)
        os.ftruncate(memory, size_for(concurrency))
        self.mark = Mark(memory, concurrency)
        self.mark.clear()
        self.stacks, self.oom_kills = Stacks(), OomKills()
        self.socket, self.output = ours, output
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                become_worker((theirs.fileno(), memory, self.stacks.fd), worker_output, parent)
            finally:
                os._exit(127)
        theirs.close()
        os.close(worker_output)
        os.close(memory)
        write_all(ours.fileno(), encode(config))
        about = {"version": version(), "sources": fingerprint()}
        write_all(1, encode({"op": "started", "pid": self.pid, "parent": parent, **about}))

    def end(self):
        """Kill the worker's group and every descendant; return the worker's wait status."""
        status = None
        for _ in range(200):
            kill(-self.pid)
            kill(self.pid)
            for pid in children():
                kill(-pid)
                kill(pid)
            while True:
                try:
                    pid, code = os.waitpid(-1, os.WNOHANG if status is not None else 0)
                except ChildProcessError:
                    return status
                if pid == 0:
                    break
                if pid == self.pid:
                    status = code
            time.sleep(0.005)  # the killed need a moment to be reaped
        return status


def become_worker(private, output, parent):
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import fcntl

    private = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_PRIVATE_FD) for fd in private]
    volunteer()
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
    os.environ.update(ALLOCATOR)
    os.execv(sys.executable, [sys.executable, script, *map(str, private), str(int(SIGNAL))])


def children():
    try:
        with open("/proc/self/task/%d/children" % os.getpid()) as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def relay(poll, child, log, asked_to_go, deadlines):
    """Carry bytes until something ends; return why, or None when the engine is gone."""
    worker = child.socket.fileno()
    upward = bytearray()
    log_open = True
    while True:
        ready = dict(poll.poll(deadlines.wait_ms()))
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return None
            try:
                write_all(worker, data)
            except OSError:
                return "exit"
        if asked_to_go in ready:
            return "preempted"
        if log_open and child.output in ready:
            data = os.read(child.output, 1 << 16)
            log.write(data)
            if not data:
                log_open = False
                poll.unregister(child.output)
        if worker in ready:
            try:
                data = os.read(worker, 1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return "exit"
            upward += data
            forward_whole_frames(upward)
        if deadlines.passed():
            return "timeout"
        child.oom_kills.look()


def forward_whole_frames(buffer):
    """A worker that dies within a frame must not leave half of it in the engine's stream."""
    end = 0
    while len(buffer) - end >= HEADER.size:
        (length,) = HEADER.unpack_from(buffer, end)
        if len(buffer) - end < HEADER.size + length:
            break
        end += HEADER.size + length
    if end:
        write_all(1, bytes(buffer[:end]))
        del buffer[:end]


class Deadlines:
    """When a worker is stuck: a range too long in hand, or the mapper too long before its first batch."""

    def __init__(self, mark, config):
        self._mark, self._batch_s, self._start_s = mark, config.get("batch_timeout_s"), config.get("start_timeout_s")
        self._started_at = time.monotonic()

    def wait_ms(self):
        """Milliseconds until a look at the clock is due; None: never."""
        left = self._left()
        return None if left is None else max(0.0, left) * 1000 + 1

    def passed(self):
        """Whether the worker is stuck."""
        left = self._left()
        return left is not None and left <= 0

    def _left(self):
        if self._batch_s is None:
            return None
        now, held = time.monotonic(), self._mark.held()
        left = self._batch_s - (now - held[0].since) if held else self._batch_s
        if self._start_s is not None and not self._mark.has_begun():
            left = min(left, self._start_s - (now - self._started_at))
        return left


def drain(output, log):
    os.set_blocking(output, False)
    try:
        while True:
            data = os.read(output, 1 << 16)
            if not data:
                return
            log.write(data)
    except BlockingIOError:
        return


def report(reason, status, held, stacks):
    if reason == "memory":  # what was being mapped is what grew
        held.sort(key=lambda hand: hand.slot < MAPPING)
    ranges = [[hand.start, hand.end] for hand in held]
    frame = {"op": "lost", "reason": reason, "status": status, "held": ranges, "stacks": of_user_code(stacks) or None}
    try:
        write_all(1, encode(frame))
    except OSError:
        pass


if __name__ == "__main__":
    main()
