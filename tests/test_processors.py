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


@pytest.mark.parametrize(
    ("own", "all_busy", "expected"),
    [(0.0, 0.0, 4), (4.0, 4.0, 4), (0.0, 1.0, 3), (2.0, 3.6, 2), (1.0, 5.0, 1), (1.0, 9.0, 1), (3.0, 3.2, 4)],
)
def test_what_others_take_is_what_is_busy_and_not_our_own(tmp_path, monkeypatch, own, all_busy, expected):
    """Seconds of ten, by the columns of /proc/stat: user, nice, system, idle, waiting, interrupts, steal."""

    def write(busy: float) -> None:
        # A fifth each; processor 7 is none that this process may use.
        columns = [round(20 * busy)] * 3 + [999999, 999999] + [round(20 * busy)] * 2 + [0]
        rest = " ".join(["0"] * 8)
        lines = [f"cpu  {rest}", f"cpu0 {' '.join(map(str, columns))}", *(f"cpu{i} {rest}" for i in (1, 2, 3))]
        lines.append("cpu7 " + " ".join([str(round(100000 * busy))] * 8))
        (tmp_path / "stat").write_text("\n".join([*lines, "intr 1 2", "ctxt 5"]))

    clock = {"process": 0.0, "wall": 0.0}
    monkeypatch.setattr(processors, "STATISTICS", tmp_path / "stat")
    monkeypatch.setattr(processors, "usable_processors", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    monkeypatch.setattr(processors.time, "process_time", lambda: clock["process"])
    monkeypatch.setattr(processors.time, "perf_counter", lambda: clock["wall"])
    write(0.0)
    neighbors = processors.Neighbors()
    write(all_busy)
    clock |= {"process": own, "wall": 1.0}
    assert neighbors.left() == expected
    (tmp_path / "stat").unlink()
    assert neighbors.left() == 4


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_threads_follow_the_others_within_and_are_put_back_afterwards(monkeypatch):
    for name in processors.CHOSEN_BY:
        monkeypatch.delenv(name, raising=False)
    left = iter([2, 1, 3, 9])
    monkeypatch.setattr(processors.Neighbors, "left", lambda self: next(left))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    blas = blas_threads()
    try:
        with pytest.raises(KeyError), processors.threads() as look_again:
            assert torch.get_num_threads() == 2 and max(blas_threads()) <= 2
            look_again()
            assert torch.get_num_threads() == 2, "not yet"
            monkeypatch.setattr(processors, "NEXT_LOOK", 0.0)
            for expected in (1, 3, 4):
                look_again()
                assert torch.get_num_threads() == expected
            raise KeyError
        assert torch.get_num_threads() == 4 and blas_threads() == blas
    finally:
        torch.set_num_threads(before)


def test_what_the_user_chose_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(processors.Neighbors, "left", lambda self: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with processors.threads() as look_again:
            look_again()
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
