"""Workers on hosts that ssh reaches: the system's OpenSSH with the user's own configuration, keys and agent.

One connection for each eight workers of a host is made first and kept (its ControlMaster); workers share it. It is
also what tells of the host: cores, devices, and when it goes. A host needs a `python3`, 3.9 or newer, and nothing else.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from skybatch.errors import SkybatchError, UsageError
from skybatch.executors import ciphers, parts
from skybatch.executors.base import Executor, ExecutorOptions, Slot, WorkerChannel
from skybatch.executors.connection import LOADER, ProcessConnection
from skybatch.executors.keeper import Keeper
from skybatch.executors.remote import Boot, RemoteChannel
from skybatch.worker.frames import Frame

HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%\[\]-]*")
"""What ssh is asked to connect to: nothing that it, or a shell, could take for anything else."""
OPTIONS = (
    "BatchMode=yes",  # nobody is there to be asked
    "StrictHostKeyChecking=yes",  # a host that is not known is never taken for one that is
    "ConnectTimeout=15",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "ForwardX11=no",
    "LogLevel=ERROR",
    "ControlPersist=no",
)
WORKERS_PER_CONNECTION = 8
"""sshd allows ten sessions in one connection, unless it is told otherwise."""
AGAIN_S, AGAIN_MAX_S = 2.0, 60.0
"""So long after a host was lost, or could not be reached, it is tried again; twice as long each time."""


@dataclass(frozen=True)
class Host:
    """One host of a pool."""

    name: str  # as ssh knows it
    workers: int | None = None  # None: as many as it has cores, or devices to share
    python: str = "python3"
    gpus_per_worker: int = 0
    activate_env: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


class SshExecutor(Executor):
    """`workers` on each of `hosts`."""

    elsewhere: ClassVar[bool] = True
    keys: ClassVar[frozenset[str]] = frozenset(
        {"hosts", "python", "gpus_per_worker", "files", "files_root", "shared", "patience", "ssh_config"}
    )

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        asked = options.options
        self.patience_s = float(asked.get("patience", 60))
        self._folder = tempfile.mkdtemp(prefix="skybatch-", dir=_runtime_folder())
        self._changed, self._change = os.pipe()
        os.set_blocking(self._changed, False)
        self._brought = parts.brought(asked["files_root"], asked["files"]) if asked.get("files") else None
        self._hosts: dict[str, _Reached] = {}
        self._all: list[_Reached] = []  # those too that are wanted no more, whose workers may be at their last batch
        self._slots: dict[str, tuple[_Reached, int]] = {}
        self.adopt(options)

    @classmethod
    def check(cls, options: ExecutorOptions) -> None:
        """Raise UsageError for hosts that cannot be."""
        hosts_of(options)
        if options.options.get("files"):
            parts.brought(options.options.get("files_root", "."), options.options["files"])
        if shutil.which("ssh") is None:
            raise UsageError("executor: ssh: there is no ssh on this machine; install OpenSSH's client")

    def adopt(self, options: ExecutorOptions) -> None:
        """Take up hosts that are new, drop those that are gone; one whose settings changed is both."""
        wanted = {host.name: host for host in hosts_of(options)}
        for name, reached in list(self._hosts.items()):
            if wanted.get(name) != reached.host:
                reached.drop()
                del self._hosts[name]
        for name, host in wanted.items():
            if name not in self._hosts:
                self._hosts[name] = _Reached(self, host, len(self._all))
                self._all.append(self._hosts[name])
        self.options = options
        self.tell_changed()

    def fileno(self) -> int:
        """Readable when a host was reached, or lost."""
        return self._changed

    def tell_changed(self) -> None:
        """From any thread: the slots may have changed."""
        os.write(self._change, b"+")

    def slots(self) -> Sequence[Slot]:
        """Those of the hosts that are connected."""
        try:
            os.read(self._changed, 4096)
        except BlockingIOError:
            pass
        self._slots = {}
        found = []
        for reached in self._hosts.values():
            for number in range(reached.workers()):
                slot = Slot(name=f"{_plain(reached.host.name)}-{number}", place=reached.host.name)
                self._slots[slot.name] = reached, number
                found.append(slot)
        return found

    def expects_slots(self) -> bool:
        """Whether a host is being looked at for the first time."""
        return any(reached.state == "new" for reached in self._hosts.values())

    def aside(self) -> Mapping[str, str]:
        """Hosts that could not be reached, or were lost."""
        return {name: reached.reason for name, reached in self._hosts.items() if reached.state == "lost"}

    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        """Start a worker through its host's connection."""
        reached, number = self._slots[slot.name]
        errors = Path(self.options.log_folder, f"worker-{slot.name}.err") if self.options.log_folder else None
        host = reached.host
        connection = ProcessConnection(self.command(reached, number // WORKERS_PER_CONNECTION), errors)
        env = {**self.options.env, **host.env, **reached.devices(number)}
        activate_env = host.activate_env or self.options.activate_env
        if "shared" in self.options.options:
            config = {**config, "sights": [] if self.options.options["shared"] else None}
        boot = Boot(env=env, activate_env=activate_env, brought=self._brought)
        return RemoteChannel(connection, config, boot, log_folder=self.options.log_folder, name=slot.name)

    def report(self) -> Mapping[str, Mapping[str, Any]]:
        """What each host said of itself."""
        return {name: reached.facts() for name, reached in self._hosts.items() if reached.state == "up"}

    def command(self, reached: _Reached, connection: int, *, master: bool = False) -> list[str]:
        """The command line of one worker, or of the connection that workers share; nothing secret is in it."""
        host, path = reached.host, f"{self._folder}/{reached.number}-{connection}"
        options = [*OPTIONS, f"ControlPath={path}", f"ControlMaster={'yes' if master else 'no'}"]
        config = self.options.options.get("ssh_config")
        named = ["-F", str(config)] if config else []
        if master and (offered := ciphers.preferred(host.name, named)):
            options.append(f"Ciphers={offered}")
        return [
            "ssh",
            *named,
            "-T",
            *(word for option in options for word in ("-o", option)),
            "--",
            host.name,
            f'{shlex.quote(host.python)} -S -c "{LOADER}"',
        ]

    def errors_file(self, host: Host, connection: int) -> Path:
        """Where ssh says what is wrong with a connection that workers share."""
        return Path(self._folder, f"{_plain(host.name)}-{connection}.err")

    def close(self) -> None:
        """Let go of all hosts."""
        for reached in self._all:
            reached.drop()
        for reached in self._all:
            reached.join()
        os.close(self._changed)
        os.close(self._change)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Reached:
    """One host, and the thread that keeps it connected: `new`, `up`, `lost` (and to be tried again) or `dropped`."""

    def __init__(self, executor: SshExecutor, host: Host, number: int) -> None:
        self.host = host
        self.state, self.reason = "new", ""
        self._executor, self.number = executor, number
        self._keepers: list[Keeper] = []
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name=f"skybatch_{host.name}")
        self._thread.start()

    def workers(self) -> int:
        """How many workers it may have now."""
        if self.state != "up":
            return 0
        hello = self._keepers[0].hello
        most = len(hello["gpus"]) // self.host.gpus_per_worker if self.host.gpus_per_worker else hello["cpus"]
        wanted = most if self.host.workers is None else self.host.workers
        return min(wanted, most) if self.host.gpus_per_worker else wanted

    def devices(self, number: int) -> dict[str, str]:
        """What pins a worker to devices of its own."""
        count = self.host.gpus_per_worker
        if not count:
            return {}
        mine = self._keepers[0].hello["gpus"][number * count : (number + 1) * count]
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(each["uuid"] for each in mine)}

    def facts(self) -> dict[str, Any]:
        """What it said of itself, and how far away it is."""
        return {**self._keepers[0].facts(), "connections": len(self._keepers)}

    def drop(self) -> None:
        """It is wanted no more: its connections end when its workers have."""
        self.state = "dropped"
        self._dropped.set()

    def join(self) -> None:
        """Wait until its connections are closed."""
        for keeper in self._keepers:
            keeper.close()
        self._thread.join(5.0)

    def _keep(self) -> None:
        wait_s = AGAIN_S
        while not self._dropped.is_set():
            try:
                self._connect()
                if self.state != "dropped":
                    self.state = "up"
                self._executor.tell_changed()
                wait_s = AGAIN_S
                self.reason = self._keepers[0].watch()
            except (OSError, SkybatchError) as error:
                self.reason = str(error)
            if self.state != "dropped":
                self.state = "lost"
                self._executor.tell_changed()
            self._let_go()
            self._dropped.wait(wait_s)
            wait_s = min(wait_s * 2, AGAIN_MAX_S)

    def _connect(self) -> None:
        self._open(0)
        for connection in range(1, -(-self.workers_hoped() // WORKERS_PER_CONNECTION)):
            self._open(connection)

    def workers_hoped(self) -> int:
        """How many workers it will have, once connected."""
        if self.host.workers is not None:
            return self.host.workers
        return int(self._keepers[0].hello["cpus"])

    def _open(self, connection: int) -> None:
        command = self._executor.command(self, connection, master=True)
        keeper = Keeper(ProcessConnection(command, self._executor.errors_file(self.host, connection)))
        self._keepers.append(keeper)
        keeper.begin(Boot())
        if self.host.gpus_per_worker and not keeper.hello["gpus"]:
            raise SkybatchError("gpus_per_worker is asked for, and no NVIDIA device or driver was found there")

    def _let_go(self) -> None:
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.close()


def hosts_of(options: ExecutorOptions) -> list[Host]:
    """The hosts that a pool names, with what holds for all of them. Raises UsageError for what cannot be."""
    asked = options.options
    named = asked.get("hosts")
    if not isinstance(named, list) or not named:
        raise UsageError("hosts: name at least one, as `hosts: [box1, user@box2]`")
    common = {
        "workers": options.workers,
        "python": asked.get("python", "python3"),
        "gpus_per_worker": asked.get("gpus_per_worker", 0),
    }
    hosts = [_host(each, common) for each in named]
    for host in hosts:
        if sum(other.name == host.name for other in hosts) > 1:
            raise UsageError(f"hosts: {host.name} is named twice; say how many workers it has with `workers`")
    return hosts


def _host(named: Any, common: Mapping[str, Any]) -> Host:
    from skybatch.errors import nearest

    values = {"host": named} if isinstance(named, str) else named
    if not isinstance(values, Mapping) or "host" not in values:
        raise UsageError(f"hosts: each is a name, or a mapping with `host`; not {named!r}")
    known = ("host", "workers", "python", "gpus_per_worker", "activate_env", "env")
    for key in values:
        if key not in known:
            raise UsageError(f"hosts: unknown key {key!r}{nearest(key, known)}; known: {', '.join(known)}")
    name = values["host"]
    if not isinstance(name, str) or not HOST.fullmatch(name):
        raise UsageError(f"hosts: {name!r} is not the name of a host")
    given = {**common, **{key: value for key, value in values.items() if key != "host"}}
    for key in ("workers", "gpus_per_worker"):
        if given[key] is not None and (not isinstance(given[key], int) or given[key] < (key == "workers")):
            raise UsageError(f"hosts: {name}: {key} must be a whole number; not {given[key]!r}")
    return Host(name=name, **given)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _runtime_folder() -> str | None:
    """Where sockets may lie: their paths must be short."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return folder if folder and os.path.isdir(folder) and os.access(folder, os.W_OK) else None
