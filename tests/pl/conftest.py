"""What tests of plots share: figures are closed."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from hist2scrna import keys


@pytest.fixture(autouse=True)
def close_figures():
    mpl.use("Agg")
    yield
    plt.close("all")


@pytest.fixture
def predicted(make_section):
    adata = make_section(n_spots=40)
    adata.layers[keys.OutputKeys().layer("mean")] = adata.X.toarray() * 0.5 + 1
    return adata
