"""The number of cores, in a made-up /proc; and how the threads of OpenMP wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reslight.cores import WAITING, available_cores, cpu_quotas


@pytest.fixture
def sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)


def process(folder: Path, groups: str, *mounts: str) -> Path:
    """Write the files that describe a process in these control groups."""
    proc = folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text("22 1 0:20 / /proc rw - proc proc rw\n" + "".join(f"{mount}\n" for mount in mounts))
    return proc


def v2(folder: Path, root: str = "/", **quotas: str) -> str:
    """Write the groups of version 2 with these quotas, `_` for a slash; return the line of the mount."""
    for name, quota in quotas.items():
        group = folder / "v2" / name.replace("_", "/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.max").write_text(quota + "\n")
    return f"30 23 0:26 {root} {folder / 'v2'} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"


def v1(folder: Path, **quotas: int) -> str:
    for name, quota in quotas.items():
        group = folder / "v1" / name.replace("_", "/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")
    return f"31 23 0:27 / {folder / 'v1'} rw,relatime - cgroup cgroup rw,cpu,cpuacct"


@pytest.mark.usefixtures("sixty_four_cores")
@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"": "200000 100000"}, 2),
        ({"": "max 100000"}, 64),
        ({"": "150000 100000"}, 2),  # a part of a core is worth a thread
        ({"": "20000 100000"}, 1),
        ({"slice": "300000 100000", "slice_job": "max 100000"}, 3),  # a group above limits those below
        ({"slice": "300000 100000", "slice_job": "100000 50000"}, 2),
        ({"slice_job": "9900000 100000"}, 64),  # more than there are
        ({"other": "100000 100000"}, 64),
        ({"slice_job": "nonsense"}, 64),
    ],
)
def test_the_smallest_quota_of_all_groups_counts(tmp_path, quotas, cores):
    proc = process(tmp_path, "0::/slice/job\n", v2(tmp_path, **quotas))
    assert available_cores(proc=proc) == cores


@pytest.mark.usefixtures("sixty_four_cores")
def test_groups_of_version_1(tmp_path):
    proc = process(tmp_path, "3:cpuset:/\n2:cpu,cpuacct:/job\n0::/\n", v1(tmp_path, job=250_000))
    assert cpu_quotas(proc) == [2.5]
    assert available_cores(proc=proc) == 3
    v1(tmp_path, job=-1)
    assert cpu_quotas(proc) == []


@pytest.mark.usefixtures("sixty_four_cores")
def test_a_container_sees_its_own_part_of_the_groups(tmp_path):
    mount = v2(tmp_path, "/docker/abc", **{"": "400000 100000", "inner": "200000 100000"})
    assert available_cores(proc=process(tmp_path, "0::/docker/abc/inner\n", mount)) == 2
    (tmp_path / "proc" / "cgroup").write_text("0::/elsewhere\n")  # of another namespace: only what is mounted is known
    assert available_cores(proc=tmp_path / "proc") == 4


@pytest.mark.usefixtures("sixty_four_cores")
def test_processes_share_the_cores(tmp_path):
    proc = process(tmp_path, "0::/\n", v2(tmp_path, **{"": "600000 100000"}))
    assert [available_cores(count, proc) for count in (1, 2, 4, 100)] == [6, 3, 1, 1]


def test_without_control_groups_the_bound_cores_count(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert available_cores(proc=tmp_path) == 3
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert available_cores(proc=tmp_path) == 1


PRINT = "import os, sys; {}; from reslight.cores import shorten_active_waiting as f; f(); print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("before", "variables", "expected"),
    [
        ("pass", {}, "50000"),
        ("pass", {"GOMP_SPINCOUNT": "1000"}, "1000"),
        ("pass", {"OMP_WAIT_POLICY": "active"}, "None"),
        ("sys.modules['torch'] = os", {}, "None"),  # OpenMP has read its variables already
    ],
)
def test_threads_wait_actively_for_a_short_time_only_unless_the_user_decides(before, variables, expected):
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | variables
    done = subprocess.run([sys.executable, "-c", PRINT.format(before)], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
