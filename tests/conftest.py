"""What holds in every test: a `$SKYBATCH_HOME` of its own, and no process left over from it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.tools.bench import bury
from tests.tools.processes import belonging_to, describe, wait_for_none
from tests.tools.servers import SECRET_KEY, fake_gcs, gcs_bucket, moto, moto_bucket, seaweedfs, seaweedfs_bucket

__all__ = ["fake_gcs", "gcs_bucket", "moto", "moto_bucket", "seaweedfs", "seaweedfs_bucket"]

LEFT_OVER_S = 10.0

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background: engines would ignore it as well
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes any example slow, and that is no finding.
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("skybatch", settings.get_profile("thorough"), max_examples=50)
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=20)
settings.load_profile("skybatch")


@pytest.fixture(autouse=True)
def skybatch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This test's `$SKYBATCH_HOME`; processes started with it or below it must be gone soon after the test."""
    home = tmp_path / "home"
    monkeypatch.setenv("SKYBATCH_HOME", str(home))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)  # a canary: see below
    yield home
    try:
        wait_for_none(tmp_path, LEFT_OVER_S)
    except AssertionError:
        left = belonging_to(tmp_path)
        told = list(map(describe, left))
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        pytest.fail(f"left over after the test: {told}")
    finally:
        bury()


LONG = (
    "test_engine_random_kills",
    "test_every_boundary",
    "test_clusters",
    "test_engine_crashes",
    "test_simulation",
    "test_core_simulation",
    "test_conformance",
    "test_ssh",
    "test_benchmarks",
    "test_suites",
    "test_retry",
    "test_publish_stores",
)
"""Files that take minutes: they come first, as files are given out one by one, and none may be left to run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order that has all of them done soonest."""
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing that any job has written, journals and logs included, may hold the secret that all of them were given."""
    if not hasattr(session.config, "workerinput"):
        base = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        leaks = files_with_the_secret(base)
        if leaks:
            raise AssertionError(f"the canary was written to {leaks}")


def files_with_the_secret(folder: Path) -> list[str]:
    """Files below a folder that have it; but for what tells a server what it is, and that source itself."""
    allowed = ["--exclude=s3.json", "--exclude-dir=data", "--exclude=servers.py"]
    command = ["grep", "-rlaF", *allowed, "--", SECRET_KEY, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
