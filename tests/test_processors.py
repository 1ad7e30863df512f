"""Threads: as many as the process may use, never more than the user chose, and put back afterwards."""

from __future__ import annotations

import math
import os

import pytest
import torch
from threadpoolctl import threadpool_info

from hist2scrna import processors


@pytest.fixture
def control_group(tmp_path, monkeypatch):
    """Return a function that lays out control groups as Linux shows them."""

    def lay_out(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(membership)
        for name, text in files.items():
            (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / name).write_text(text)
        monkeypatch.setattr(processors, "MEMBERSHIP", tmp_path / "cgroup")
        monkeypatch.setattr(processors, "CGROUPS", tmp_path / "fs")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)

    return lay_out


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "400000 100000\n"}, 4),
        # In a container the path is that of the host.
        ("0::/system.slice/docker-1.scope\n", {"cpu.max": "300000 100000\n"}, 3),
        ("4:cpu,x:/j\n1:memory:/j\n", {"cpu/j/cpu.cfs_quota_us": "800000", "cpu/j/cpu.cfs_period_us": "100000"}, 8),
        ("4:cpu,cpuacct:/j\n", {"cpu/j/cpu.cfs_quota_us": "-1", "cpu/j/cpu.cfs_period_us": "100000"}, 64),
        ("", {}, 64),
    ],
)
def test_a_quota_counts(control_group, membership, files, expected):
    control_group(membership, files)
    assert processors.usable_processors() == expected


def test_affinity_counts_and_a_machine_without_control_groups_has_no_quota(monkeypatch, tmp_path):
    monkeypatch.setattr(processors, "MEMBERSHIP", tmp_path / "none")
    assert processors._quota() == math.inf
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6}, raising=False)
    assert processors.usable_processors() == 3


def test_threads_are_limited_within_and_put_back_afterwards(monkeypatch):
    monkeypatch.setattr(processors, "usable_processors", lambda: 2)
    before = torch.get_num_threads()
    try:
        for chosen, most, expected in ((4, None, 2), (4, 1, 1), (1, None, 1), (2, 3, 2)):
            torch.set_num_threads(chosen)
            blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
            with pytest.raises(KeyError), processors.threads(most) as n:
                assert n == torch.get_num_threads() == expected
                limited = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
                assert max(limited) <= expected
                raise KeyError
            assert torch.get_num_threads() == chosen
            assert blas == [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    finally:
        torch.set_num_threads(before)
