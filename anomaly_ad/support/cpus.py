"""How many processors this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


_limit: int | None = None  # of this process, as `limit_cpus` has set it


def limit_cpus(count: int) -> None:
    """Let this process use so many processors at most: others next to it use the rest."""
    global _limit
    _limit = count


def cpu_count(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """Number of processors that this process may use: a container's share, not the machine's.

    The processors that it may run on (`taskset`), or the share of their time that its control
    groups allow (``docker run --cpus``), rounded to whole ones; the smaller of both.

    Parameters
    ----------
    cgroups, own : Path
        Where Linux mounts control groups, and where it says which ones the process is in.
    """
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    shares = [round(share) for share in _shares(cgroups, own)]
    limits = [] if _limit is None else [_limit]
    return max(1, min([allowed, *shares, *limits]))


def _shares(cgroups: Path, own: Path) -> Iterator[float]:
    """The limits of each control group on the way to the process, in processors."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, ValueError):  # no Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":  # version 2: one hierarchy
            roots = [cgroups]
        elif "cpu" in controllers.split(","):  # version 1
            roots = [cgroups / controllers, cgroups / "cpu"]
        else:
            continue
        root = next((folder for folder in roots if folder.is_dir()), cgroups)
        # In a container the path may be the host's, which is not there: then its root counts.
        inner = Path(path.lstrip("/"))
        for folder in (root / inner, *(root / parent for parent in inner.parents), root):
            with suppress(OSError, ValueError, ZeroDivisionError):
                if (quota := _quota(folder)) is not None:
                    yield quota


def _quota(folder: Path) -> float | None:
    """Processors' worth of time that a control group allows; None for any."""
    both = folder / "cpu.max"
    if both.is_file():
        quota, period = both.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    quota = (folder / "cpu.cfs_quota_us").read_text()
    period = (folder / "cpu.cfs_period_us").read_text()
    return None if int(quota) < 0 else int(quota) / int(period)
