"""Where jobs live: `$SKYBATCH_HOME/jobs/<id>/`, and whether such a folder may be trusted."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skybatch import disk
from skybatch.errors import NetworkFilesystem, SkybatchError, StorageFailed, UntrustedFolder, is_of_storage

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # sorts as it counts; nothing looks like something else
TIME_DIGITS, RANDOM_DIGITS = 8, 4  # 8 digits of 10 ms last until the year 2318
SOCKET_PATH_MAX = 107  # bytes; the kernel's limit for the address of a Unix socket
NETWORK_FILESYSTEMS = frozenset(
    [
        *("afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "smb3"),
        *("blobfuse", "blobfuse2", "ceph-fuse", "curlftpfs", "davfs", "gcsfuse", "goofys", "juicefs"),
        *("mount-s3", "mountpoint-s3", "rclone", "s3fs", "smbfs", "sshfs"),
    ]
)  # those that are mounted through FUSE as "fuse.NAME"


def home() -> Path:
    """skybatch's own folder, `$SKYBATCH_HOME` or `~/.skybatch`; made with mode 0700 when missing."""
    path = Path(os.environ.get("SKYBATCH_HOME") or Path.home() / ".skybatch").absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def items_folder() -> Path:
    """Where the items of `Dataset.from_items` are kept."""
    return home() / "items"


def new_id() -> str:
    """A job's id: 12 characters that sort by time (to 10 ms) and differ between machines."""
    ticks = time.time_ns() // 10_000_000
    return _digits(ticks, TIME_DIGITS) + _digits(int.from_bytes(os.urandom(4), "big"), RANDOM_DIGITS)


@dataclass(frozen=True)
class JobFolder:
    """One job's folder, mode 0700; the job's id is its name."""

    path: Path

    @classmethod
    def create(cls, home: Path, id: str) -> JobFolder:
        """Make the folder of a new job. Raises FileExistsError when there is one with this id."""
        jobs = home / "jobs"
        jobs.mkdir(mode=0o700, exist_ok=True)
        folder = cls(jobs / id)
        disk.mkdir("job", folder.path, 0o700)
        for part in (folder.code, folder.logs, folder.index):
            disk.mkdir("job.part", part, 0o700)
        return folder

    def discard_unborn(self) -> None:
        """Remove the folder of a job that has not come into being."""
        if not self.spec.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / "journal.db"

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def control(self) -> Path:
        return self.path / "control.sock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @contextmanager
    def control_address(self) -> Iterator[str]:
        """An address to bind or connect the control socket to, valid inside the `with` block.

        A path too long for a socket's address is shortened through an open descriptor of the folder.
        """
        direct = str(self.control)
        if len(os.fsencode(direct)) <= SOCKET_PATH_MAX:
            yield direct
            return
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{fd}/{self.control.name}"
        finally:
            os.close(fd)

    def check_trusted(self) -> None:
        """Raise UntrustedFolder unless folder and contents are ours alone: a resume runs the code in it."""
        _check_owned(self.path)
        for part in (self.journal, self.spec, self.code, self.lock):
            _check_owned(part, may_be_missing=True)

    def check_filesystem(self, mountinfo: str | None = None) -> None:
        """Raise NetworkFilesystem when the folder is on one; `mountinfo` is /proc/self/mountinfo's text."""
        if mountinfo is None:
            mountinfo = _read_mountinfo()
        kind = filesystem_type(mountinfo, os.path.realpath(self.path))
        if kind.removeprefix("fuse.") in NETWORK_FILESYSTEMS:
            raise NetworkFilesystem(
                f"{self.path}: on a network filesystem ({kind}), where SQLite's locks cannot be trusted; "
                "set SKYBATCH_HOME to a folder on a local disk"
            )


@contextmanager
def told_when_disk_fails(home: Path) -> Iterator[None]:
    """A disk that is full or fails before there is a job is told as such. Raises StorageFailed."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SkybatchError) or not is_of_storage(error):
            raise
        raise StorageFailed(f"no job was made: {error.strerror}: {error.filename or home}") from error


def job_folders(home: Path) -> list[JobFolder]:
    """The folders of all jobs, oldest first."""
    try:
        names = os.listdir(home / "jobs")
    except FileNotFoundError:
        return []
    return [JobFolder(home / "jobs" / name) for name in sorted(names) if _is_id(name)]


def filesystem_type(mountinfo: str, path: str) -> str:
    """The type of the filesystem that holds the absolute `path`, by the text of /proc/self/mountinfo.

    An empty string when the text does not say.
    """
    best, found = -1, ""
    for line in mountinfo.splitlines():
        place, _, source = line.partition(" - ")
        if not source:
            continue
        point = _unescaped(place.split()[4])
        if len(point) >= best and (path == point or path.startswith(point.rstrip("/") + "/")):
            best, found = len(point), source.split()[0]
    return found


def _unescaped(text: str) -> str:
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


def _read_mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""  # not Linux: nothing is known


def _check_owned(path: Path, *, may_be_missing: bool = False) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        if may_be_missing:
            return
        raise
    fault = _fault(status)
    if fault:
        raise UntrustedFolder(
            f"{path}: {fault}; it is not used, since a resume would run code they could put there"
        )


def _fault(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & 0o022:
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _digits(number: int, count: int) -> str:
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(count)))


def _is_id(name: str) -> bool:
    return len(name) == TIME_DIGITS + RANDOM_DIGITS and set(name) <= set(ALPHABET)
