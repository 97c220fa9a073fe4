"""The worker's parent: starts the worker, relays frames, keeps its log, and sees that nothing outlives it.

Run as a script, with frames to and from the engine on stdin and stdout. Standard library only. It stays
alive and awake while C code in the worker holds the GIL, and ends the worker and every process the worker
started (it is their subreaper) when the engine goes away, when the worker dies, when a range exceeds the
batch timeout, or when this host wants its processes gone (SIGTERM).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import time

# Run as a file, so that skybatch need not be importable; -I leaves this folder off sys.path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from frames import HEADER, READ_SIZE, Decoder, FrameError, encode, whole, write_all  # type: ignore[import-not-found]
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
CHANNEL_CLOSED = "the worker's private channel was closed within it"
CHANNEL_GARBLED = "something else was written into the worker's private channel"
KEPT_SIZE = 1 << 20
ENDS_SOON_S = 0.5
SILENCES_MAX = 3


class LogElsewhere:
    """The worker's stdout and stderr, sent to the engine, which keeps it."""

    def write(self, data):
        if data:
            write_all(1, encode({"op": "log"}, data))


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
    folder = JobFolder(config.get("job_folder"))
    log = Log(config["log"], config["log_cap"]) if config["log"] else LogElsewhere()
    signals = notice_signals()
    child = Child(config)
    heartbeat = Heartbeat(config["heartbeat_s"] if config.get("elsewhere") else None)
    relay = Relay(child, log, signals, Deadlines(child.mark, config), heartbeat)
    try:
        reason = relay.run()
    except BrokenPipeError:
        reason = None
    heartbeat.stop()
    held = child.mark.held()
    stacks = child.stacks.ask(child.pid) if reason == "timeout" else ""
    message = relay.message
    if reason == "exit" and message is None and not child.ends_soon():
        message = CHANNEL_CLOSED
    status = child.end()
    folder.leave()
    if reason is None and not config["log"]:
        return  # nobody is there to keep it
    heartbeat.heard()
    drain(child.output, log)
    if reason == "timeout":
        log_stacks(log, held, stacks)
    if reason == "exit":
        held = child.mark.held()
        reason = why(status, child.oom_kills) if message is None else reason
    if reason is not None:
        report(reason, status, held, stacks=of_user_code(stacks) or None, message=message)


class JobFolder:
    """What the workers of one job have on this host for themselves; removed by the last that leaves."""

    def __init__(self, path):
        self._path = path
        if path:
            os.makedirs(path, 0o700, exist_ok=True)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def leave(self):
        if self._path:
            import shutil  # which workers of this machine need not wait for

            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self._path, ignore_errors=True)
            except OSError:
                pass  # others are at work here


class Heartbeat:
    """Where the engine is on another machine: it and we say something every so often, and notice silence.

    By an alarm, as what we send may never be taken by a connection that was cut.
    """

    def __init__(self, seconds):
        self._seconds = seconds
        self._said_at = time.monotonic()
        if seconds is not None:
            signal.signal(signal.SIGALRM, be_alone)
            self.heard()

    def wait_ms(self):
        """Milliseconds until something is to be said; None where nobody waits for it."""
        return None if self._seconds is None else max(0.0, self._said_at + self._seconds - time.monotonic()) * 1000 + 1

    def heard(self):
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, SILENCES_MAX * self._seconds)

    def say(self):
        """Say that we are here if it is time."""
        if self._seconds is not None and time.monotonic() >= self._said_at + self._seconds:
            self._said_at = time.monotonic()
            write_all(1, encode({"op": "beat"}))

    def stop(self):
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)


def be_alone(*_):
    raise BrokenPipeError


def notice_signals():
    """A descriptor from which the numbers of signals can be read: of a child's death, and that this host wants our end.

    Nothing is interrupted by them: a frame half sent is sent to its end.
    """
    noticed, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *UNWANTED):
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
        self.stacks = Stacks()
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
        for fd in config.get("ends", ()):  # of a connection that is the worker's from now on
            os.close(fd)
        write_all(ours.fileno(), encode(config))
        self.oom_kills = OomKills()
        about = {"version": version(), "sources": fingerprint()}  # while the worker starts
        write_all(1, encode({"op": "started", "pid": self.pid, "parent": parent, **about}))

    def has_ended(self):
        """Whether the worker itself is dead, to be waited for yet. Of what it left to us, the dead are buried."""
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return False
            if found.si_pid == self.pid:
                return True
            os.waitpid(found.si_pid, 0)

    def ends_soon(self):
        """Whether the worker, which says no more, is dying by itself."""
        deadline = time.monotonic() + ENDS_SOON_S
        while not self.has_ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

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


class Relay:
    """Carries bytes between engine and worker, and the worker's output into its log, until something ends."""

    def __init__(self, child, log, signals, deadlines, heartbeat):
        self._child, self._log, self._signals, self._deadlines = child, log, signals, deadlines
        self._heartbeat = heartbeat
        self._worker = child.socket.fileno()
        self._downward, self._upward = bytearray(READ_SIZE), bytearray(READ_SIZE)
        self._filled = 0  # bytes of what goes upward
        self.message = None  # what is wrong with the worker, where its end does not tell
        self._poll = select.poll()
        for fd in (0, self._worker, child.output, signals):
            self._poll.register(fd, select.POLLIN)

    def run(self):
        """Return why it ended, or None when the engine is gone. Raises BrokenPipeError when that goes meanwhile."""
        while True:
            ready = dict(self._poll.poll(self._patience_ms()))
            if 0 in ready:
                count = os.readv(0, [self._downward])
                if not count:
                    return None
                self._heartbeat.heard()
                try:
                    write_all(self._worker, memoryview(self._downward)[:count])
                except OSError:
                    return "exit"
            if self._child.output in ready:
                self._keep_output()
            reason = (self._worker in ready and self._forward()) or (self._signals in ready and self._heed_signals())
            if reason:
                return reason
            if self._deadlines.passed():
                return "timeout"
            self._heartbeat.say()
            self._child.oom_kills.look()

    def _patience_ms(self):
        waits = [ms for ms in (self._deadlines.wait_ms(), self._heartbeat.wait_ms()) if ms is not None]
        return min(waits, default=None)

    def _keep_output(self):
        data = os.read(self._child.output, 1 << 16)
        self._log.write(data)
        if not data:
            self._poll.unregister(self._child.output)

    def _forward(self):
        """Pass on what the worker says; "exit" when it has gone, or says what nobody understands."""
        if self._filled == len(self._upward):
            self._upward += bytes(self._filled)
        try:
            count = os.readv(self._worker, [memoryview(self._upward)[self._filled :]])
        except ConnectionResetError:
            count = 0
        self._filled += count
        try:
            self._filled = forward_whole_frames(self._upward, self._filled)
        except FrameError:
            self.message = CHANNEL_GARBLED
            return "exit"
        if not self._filled and len(self._upward) > KEPT_SIZE:
            self._upward = bytearray(READ_SIZE)
        return None if count else "exit"

    def _heed_signals(self):
        """Act on signals that came. A dead worker's channel may be held open by what it forked."""
        if set(os.read(self._signals, 4096)) & set(UNWANTED):
            return "preempted"
        if not self._child.has_ended():
            return None
        self._forward_rest()
        return "exit"

    def _forward_rest(self):
        os.set_blocking(self._worker, False)
        try:
            while not self._forward():
                pass
        except BlockingIOError:
            pass


def forward_whole_frames(buffer, filled):
    """Send whole frames on, none in part: a worker may die within one. What is left is moved to the front; how much.

    Raises FrameError, with nothing sent, when what came are no frames at all.
    """
    end = 0
    while (following := whole(buffer, end, filled)) is not None:
        end = following
    if end:
        write_all(1, memoryview(buffer)[:end])
        buffer[: filled - end] = buffer[end:filled]
    return filled - end


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


def report(reason, status, held, **more):
    if reason == "memory":  # what was being mapped is what grew
        held.sort(key=lambda hand: hand.slot < MAPPING)
    ranges = [[hand.start, hand.end] for hand in held]
    try:
        write_all(1, encode({"op": "lost", "reason": reason, "status": status, "held": ranges, **more}))
    except OSError:
        pass


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        pass  # the engine went away before anything had begun; the worker goes with us
