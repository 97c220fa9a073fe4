"""Where jobs live, and which folders are refused."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from skybatch.engine import folder as folder_module
from skybatch.engine.folder import JobFolder, filesystem_type, home, job_folders, new_id
from skybatch.errors import NetworkFilesystem, UntrustedFolder

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /mnt/my\\040share rw shared:9 - nfs4 server:/export rw
31 22 0:41 / /home/me/cloud rw - fuse.sshfs me@host: rw
32 22 0:42 / /home/me/cloud/local rw - tmpfs tmpfs rw
33 22 0:43 / /over rw - nfs server:/x rw
34 22 0:44 / /over rw - xfs /dev/vdb rw
"""


def test_home_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "a" / "b"))
    assert home() == tmp_path / "a" / "b"
    assert stat.S_IMODE(home().stat().st_mode) == 0o700
    monkeypatch.delenv("SKYBATCH_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".skybatch"


def test_ids_sort_by_time_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for tick in (1, 31, 32, 1000, 175_000_000_000, 2**40 - 1):
        monkeypatch.setattr(folder_module.time, "time_ns", lambda tick=tick: tick * 10_000_000)
        ids.append(new_id())
    assert ids == sorted(ids)
    assert {len(id) for id in ids} == {12}
    assert len({new_id() for _ in range(20)}) == 20


def test_a_job_folder_and_its_parts_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = JobFolder.create(tmp_path, new_id())
    finally:
        os.umask(old)
    for part in (folder.path, folder.code, folder.logs, folder.index):
        assert stat.S_IMODE(part.stat().st_mode) == 0o700
    assert {p.parent for p in (folder.journal, folder.spec, folder.lock, folder.control)} == {folder.path}
    folder.check_trusted()
    folder.check_filesystem()
    with pytest.raises(FileExistsError):
        JobFolder.create(tmp_path, folder.id)


def test_job_folders_are_listed_oldest_first(tmp_path: Path) -> None:
    assert job_folders(tmp_path) == []
    for id in ("00000002abcd", "00000001wxyz"):
        JobFolder.create(tmp_path, id)
    (tmp_path / "jobs" / "notes.txt").touch()
    assert [folder.id for folder in job_folders(tmp_path)] == ["00000001wxyz", "00000002abcd"]


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


UNTRUSTED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a symlink": ("", _replace_by_link, "symbolic link"),
    "writable by the group": ("", lambda path: path.chmod(0o770), "others may write"),
    "writable by all": ("", lambda path: path.chmod(0o703), "others may write"),
    "code is a symlink": ("code", _replace_by_link, "symbolic link"),
    "code writable by all": ("code", lambda path: path.chmod(0o777), "others may write"),
    "spec writable by all": ("spec.json", lambda path: path.chmod(0o666), "others may write"),
    "journal is a symlink": ("journal.db", _replace_by_link, "symbolic link"),
}


@pytest.mark.parametrize("fault", UNTRUSTED)
def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path: Path, fault: str) -> None:
    folder = JobFolder.create(tmp_path, new_id())
    for file in (folder.spec, folder.journal):
        file.touch(mode=0o600)
    folder.check_trusted()
    part, inflict, reason = UNTRUSTED[fault]
    inflict(folder.path / part)
    with pytest.raises(UntrustedFolder, match=reason):
        folder.check_trusted()


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JobFolder.create(tmp_path, new_id())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UntrustedFolder, match="another user"):
        folder.check_trusted()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/jobs", "ext4"),
        ("/mnt/my share/jobs", "nfs4"),
        ("/mnt/my sharefoo", "ext4"),
        ("/home/me/cloud", "fuse.sshfs"),
        ("/home/me/cloud/x", "fuse.sshfs"),
        ("/home/me/cloud/local/x", "tmpfs"),
        ("/over/x", "xfs"),
    ],
)
def test_the_filesystem_is_the_last_mount_over_a_path(path: str, kind: str) -> None:
    assert filesystem_type(MOUNTS, path) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "fuse.gcsfuse", "lustre"])
def test_network_filesystems_are_refused(tmp_path: Path, kind: str) -> None:
    mounts = f"22 1 0:1 / / rw - {kind} somewhere rw\n"
    with pytest.raises(NetworkFilesystem, match="SKYBATCH_HOME"):
        JobFolder(tmp_path).check_filesystem(mounts)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs"]
)
def test_local_filesystems_are_not(tmp_path: Path, kind: str) -> None:
    JobFolder(tmp_path).check_filesystem(f"22 1 0:1 / / rw - {kind} somewhere rw\n")
    JobFolder(tmp_path).check_filesystem("")


@pytest.mark.parametrize("depth", [0, 12])
def test_the_control_socket_works_however_deep_the_folder_lies(tmp_path: Path, depth: int) -> None:
    place = tmp_path.joinpath(*["deep-folder"] * depth)
    place.mkdir(parents=True, exist_ok=True)
    folder = JobFolder.create(place, new_id())
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with folder.control_address() as address:
            server.bind(address)
        server.listen()
        with folder.control_address() as address:
            client.connect(address)
        server.accept()[0].close()
    assert folder.control.is_socket()
