"""Spooled rows: what was put is taken, in memory or in a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hist2scrna.fitting import spool


@pytest.mark.parametrize("in_memory", [0, 2**28])
def test_rows_come_back_in_the_order_that_is_asked(in_memory, monkeypatch, tmp_path):
    monkeypatch.setattr(spool, "MOST_IN_MEMORY", in_memory)
    monkeypatch.setattr(spool, "MOST_TOUCHED", 200)
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    table = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    rows = spool.Spool(50, 7)
    assert isinstance(rows.rows, np.memmap) == (in_memory == 0)
    for start in (20, 0, 40):
        rows.put(start, table[start : start + 20])
    for seed in range(3):
        index = np.random.default_rng(seed).integers(0, 50, 30)
        torch.testing.assert_close(rows.take(index), table[torch.from_numpy(index)], rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == [], "the file has no name, and goes with the process whatever happens"
