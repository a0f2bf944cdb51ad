"""How many cores this process may use: the cores it is bound to, and the quota of its control groups.

torch counts the cores of the machine, of which a container with a quota may use a few only.
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Environment variables that determine how a thread of OpenMP waits for the others."""
SPIN_COUNT = "50000"
"""How often a waiting thread of OpenMP looks whether it may go on before it sleeps; docs/results/performance.md says why."""


def available_cores(processes: int = 1, proc: Path = Path("/proc/self")) -> int:
    """Return how many cores this process may use, at least 1.

    Args:
        processes: Processes of the same run on this machine, which share the cores.
        proc: The folder in which Linux describes this process.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in cpu_quotas(proc)]
    return max(1, min([bound, *quotas]) // processes)


def cpu_quotas(proc: Path = Path("/proc/self")) -> list[float]:
    """Return the CPU quotas of this process, in cores: those of its control groups and of all groups above them."""
    return [quota for folder in cpu_groups(proc) if (quota := _quota(folder))]


def cpu_groups(proc: Path = Path("/proc/self")) -> list[Path]:
    """Return the folders of the control groups, of both versions, that may limit the CPU time of this process: its own, then those above.

    Args:
        proc: The folder in which Linux describes this process; without the files in it, there are no groups.
    """
    try:
        groups = [line.split(":", 2) for line in (proc / "cgroup").read_text(encoding="utf-8").splitlines()]
        mounts = [line.split() for line in (proc / "mountinfo").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    found: list[Path] = []
    for _, controllers, group in groups:
        for mount in mounts:
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            if (kind == "cgroup2" and not controllers) or (kind == "cgroup" and "cpu" in options and "cpu" in controllers.split(",")):
                found += _levels(Path(mount[4]), mount[3], group)
    return found


def _levels(mounted: Path, root: str, group: str) -> Iterator[Path]:
    """Return the folders of a group and of the groups above it, as far as they are mounted."""
    path = PurePosixPath(group)
    inside = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()  # a container sees its own part only
    for part in (inside, *inside.parents):
        yield mounted / part


def _quota(folder: Path) -> float | None:
    """Return the quota of one group in cores; None if it has none."""
    try:
        if (file := folder / "cpu.max").is_file():
            quota, period = file.read_text(encoding="utf-8").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period"))
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no file, or `max`: no quota
        return None
    return cores if cores > 0 else None


def shorten_active_waiting() -> None:
    """Have the threads of OpenMP wait actively for a short time only, unless the user has set how they wait.

    Without effect once torch is imported. A waiting thread spins, by default for milliseconds, and takes the core from the thread that
    it waits for where there are more threads than cores. One that sleeps at once is slow to start again, and the pauses between two
    operations are short.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
