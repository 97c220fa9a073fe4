"""The kernel's count of kills for want of memory: where it is found, and which of them count."""

from __future__ import annotations

from pathlib import Path

import pytest

from skybatch.worker import oom

ALONE = """\
29 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
30 1 8:1 / / rw - ext4 /dev/sda1 rw
"""
CONTAINER = """\
610 600 0:31 /docker/4f2a /sys/fs/cgroup/cpu ro,nosuid - cgroup cgroup rw,cpu,cpuacct
611 600 0:32 /docker/4f2a /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory
612 600 0:33 /docker/4f2a /sys/fs/cgroup/systemd ro,nosuid - cgroup cgroup rw,name=systemd
"""
HYBRID = """\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("groups", "mounts", "files"),
    [
        ("0::/user.slice/job.scope\n", ALONE, ["/sys/fs/cgroup/user.slice/job.scope/memory.events"]),
        ("0::/\n", ALONE, ["/sys/fs/cgroup/memory.events"]),
        ("5:cpu:/docker/4f2a\n4:memory:/docker/4f2a\n", CONTAINER, ["/sys/fs/cgroup/memory/memory.oom_control"]),
        ("4:memory:/docker/4f2a/a b\n", CONTAINER, ["/sys/fs/cgroup/memory/a b/memory.oom_control"]),
        (
            "9:name=systemd:/\n4:memory:/job\n0::/\n",
            HYBRID,
            ["/sys/fs/cgroup/memory/job/memory.oom_control", "/sys/fs/cgroup/unified/memory.events"],
        ),
        ("", "", []),
    ],
)
def test_counter_is_that_of_the_memory_cgroup(groups: str, mounts: str, files: list[str]) -> None:
    assert list(oom._of_cgroup(groups, mounts)) == files


def test_kill_since_the_start_counts_by_the_first_file_that_has_a_count(tmp_path: Path) -> None:
    without, count = tmp_path / "memory.events", tmp_path / "vmstat"
    without.write_text("low 0\n")
    count.write_text("pgfault 7\noom_kill 3\n")
    kills = oom.OomKills((str(tmp_path / "none"), str(without), str(count)))
    assert not kills.happened()
    count.write_text("pgfault 9\noom_kill 4\n")
    kills.look()  # too soon for it to be the past
    assert kills.happened()


def test_kill_of_long_ago_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = tmp_path / "memory.events"
    count.write_text("oom 0\noom_kill 0\noom_group_kill 0\n")
    kills = oom.OomKills((str(count),))
    count.write_text("oom 1\noom_kill 1\noom_group_kill 0\n")
    monkeypatch.setattr(oom, "GENERATION_S", 0.0)
    kills.look()
    assert kills.happened()
    kills.look()
    assert not kills.happened()
