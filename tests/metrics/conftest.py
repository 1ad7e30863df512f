"""What tests of scores share: a table of counts, a prediction of it, and blocks that are small."""

from __future__ import annotations

import numpy as np
import pytest

from hist2scrna.metrics import blocks as blocks_module


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every table fall into several blocks."""
    monkeypatch.setattr(blocks_module.blocks, "__defaults__", (150,))


@pytest.fixture
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.poisson((0.3 + rng.gamma(1, 1, 13)) * rng.gamma(3, 0.5, (60, 1))).astype(float)


@pytest.fixture
def prediction(counts) -> np.ndarray:
    rng = np.random.default_rng(1)
    return 0.3 * counts + rng.gamma(2, 0.5, counts.shape)
