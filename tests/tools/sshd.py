"""Hosts to reach by ssh: real sshd processes on ports of this machine, each with a key and a home of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_sshd = pytest.mark.skipif(SSHD is None or os.geteuid() != 0, reason="no sshd here, or not allowed to run it")


class Hosts:
    """Some hosts, called box0, box1, ..., and the client's configuration that leads to them."""

    def __init__(self, folder: Path, count: int) -> None:
        assert SSHD is not None
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.makedirs("/run/sshd", exist_ok=True)
        _key(folder / "client")
        (folder / "authorized").write_text((folder / "client.pub").read_text())
        self.names = [f"box{number}" for number in range(count)]
        self.ports = {name: _free_port() for name in self.names}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in self.names:
            _key(folder / f"{name}.key")
        self.config = folder / "config"
        self.write_config(self.names)
        for name in self.names:
            self.start(name)

    def write_config(self, known: list[str]) -> None:
        """The client's configuration; the keys of the `known` hosts are known to it."""
        lines = (f"[127.0.0.1]:{self.ports[name]} {(self.folder / f'{name}.key.pub').read_text()}" for name in known)
        (self.folder / "known").write_text("".join(lines))
        entries = [
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {self.folder}/client\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.folder}/known\n  GlobalKnownHostsFile /dev/null\n"
            for name, port in self.ports.items()
        ]
        self.config.write_text("\n".join(entries))

    def start(self, name: str) -> None:
        """Have the host be there (again)."""
        home = self.folder / f"home-{name}"
        home.mkdir(exist_ok=True)
        settings = self.folder / f"{name}.conf"
        settings.write_text(
            f"Port {self.ports[name]}\nListenAddress 127.0.0.1\nHostKey {self.folder}/{name}.key\nUsePAM no\n"
            f"StrictModes no\nAuthorizedKeysFile {self.folder}/authorized\nPasswordAuthentication no\n"
            f"PidFile {self.folder}/{name}.pid\nMaxStartups 100\nPermitRootLogin yes\n"
            f"SetEnv HOME={home} XDG_CACHE_HOME={home}/.cache SKYBATCH_CACHE={home}/.cache\n"
        )
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _wait_for(self.ports[name])

    def sessions(self, name: str) -> list[psutil.Process]:
        """The sshd processes that serve connections to a host, and all that was started there."""
        return psutil.Process(self.processes[name].pid).children(recursive=True)

    def connections(self) -> int:
        """How many there are, to all hosts."""
        return sum(len(psutil.Process(each.pid).children()) for each in self.processes.values())

    def kill(self, name: str) -> None:
        """The host is gone, with all that ran there."""
        process = self.processes.pop(name)
        left = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for each in left:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                pass

    def freeze(self, name: str) -> None:
        """Nothing comes from it any more; what runs there goes on."""
        for each in self._relays(name):
            each.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """After `freeze`."""
        for each in self._relays(name):
            each.send_signal(signal.SIGCONT)

    def cut(self, name: str) -> None:
        """Every connection to it ends, and what was started through them is left alone; new ones can be made."""
        for each in self._relays(name):
            try:
                each.kill()
            except psutil.NoSuchProcess:
                pass

    def _relays(self, name: str) -> list[psutil.Process]:
        return [each for each in self.sessions(name) if each.name().startswith("sshd")]

    def stop(self) -> None:
        """All are gone."""
        for name in list(self.processes):
            self.kill(name)


def _key(path: Path) -> None:
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"no sshd at port {port}")
