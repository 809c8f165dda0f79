import os
from pathlib import Path

import pytest

from anomaly_ad.support import cpu_count


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("220000 100000", 2),
        ("20000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_the_share_of_a_container(tmp_path, limit, expected):
    write(tmp_path / "own", "0::/\n")
    write(tmp_path / "fs" / "cpu.max", limit + "\n")
    assert cpu_count(tmp_path / "fs", tmp_path / "own") == expected


def test_the_smallest_limit_on_the_way_counts(tmp_path):
    write(tmp_path / "own", "0::/system.slice/watch.service\n")
    write(tmp_path / "fs" / "system.slice" / "cpu.max", "300000 100000\n")
    write(tmp_path / "fs" / "system.slice" / "watch.service" / "cpu.max", "max 100000\n")
    assert cpu_count(tmp_path / "fs", tmp_path / "own") == 3


def test_control_groups_of_version_1(tmp_path):
    write(tmp_path / "own", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n")
    write(tmp_path / "fs" / "cpu,cpuacct" / "cpu.cfs_quota_us", "200000\n")
    write(tmp_path / "fs" / "cpu,cpuacct" / "cpu.cfs_period_us", "100000\n")
    assert cpu_count(tmp_path / "fs", tmp_path / "own") == 2
    write(tmp_path / "fs" / "cpu,cpuacct" / "cpu.cfs_quota_us", "-1\n")
    assert cpu_count(tmp_path / "fs", tmp_path / "own") == 8


def test_without_control_groups_the_processors_that_it_may_run_on(tmp_path, monkeypatch):
    assert cpu_count(tmp_path, tmp_path / "own") == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert cpu_count(tmp_path, tmp_path / "own") == 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu_count(tmp_path, tmp_path / "own") == 8
