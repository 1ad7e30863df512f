"""The figure of every plot: its size, showing it, and the arguments that all plots share."""

from __future__ import annotations

import inspect

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hist2scrna import pl


@pytest.fixture
def losses() -> pd.DataFrame:
    return pd.DataFrame({"train_loss": [3.0, 2.0]}, index=pd.Index(range(2), name="epoch"))


def test_every_plot_takes_the_same_arguments_for_its_figure() -> None:
    expected = {"ax": None, "figsize": None, "save": None, "show": False}
    for name in pl.__all__:
        parameters = inspect.signature(getattr(pl, name)).parameters
        assert {k: p.default for k, p in parameters.items() if k in expected} == expected, name
        assert list(parameters)[-4:] == list(expected), name


def test_size_of_the_figure_and_showing_it(predicted, losses, monkeypatch) -> None:
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    one = pl.history(losses, figsize=(7, 2))
    assert shown == []
    many = pl.spatial_compare(predicted, ["g1", "g2"], figsize=(7, 2), show=True)
    assert shown == [many[0, 0].get_figure()]
    for ax in (one, many[0, 0]):
        assert tuple(ax.get_figure().get_size_inches()) == (7, 2)
    with pytest.raises(ValueError, match=r"`ax` or `figsize`, not both.*found \(7, 2\)"):
        pl.history(losses, ax=one, figsize=(7, 2))
    with pytest.raises(ValueError, match="`ax` or `figsize`, not both"):
        pl.spatial_compare(predicted, ["g1", "g2"], ax=many, figsize=(7, 2))
