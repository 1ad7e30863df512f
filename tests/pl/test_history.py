"""Losses by epoch: what is drawn is what was recorded, and other things are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hist2scrna import pl, tl


@pytest.fixture
def losses() -> pd.DataFrame:
    return pd.DataFrame(
        {"train_loss": [3.0, 2.0, 1.5, 1.0], "train_nll": [1.0] * 4, "validation_loss": [3.1, 2.2, 2.0, 2.4]},
        index=pd.Index(range(4), name="epoch"),
    )


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_history_draws_losses_and_best_epoch(losses, tmp_path) -> None:
    ax = pl.history(losses, save=tmp_path / "history.pdf")
    found = lines(ax)
    np.testing.assert_array_equal(found["training"], np.column_stack([range(4), losses["train_loss"]]))
    np.testing.assert_array_equal(found["validation"], np.column_stack([range(4), losses["validation_loss"]]))
    np.testing.assert_array_equal(found["best: epoch 2, 2"], [[2, 2.0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert (tmp_path / "history.pdf").stat().st_size > 1000


def test_history_without_validation(losses) -> None:
    ax = pl.history(losses[["train_loss"]])
    assert set(lines(ax)) >= {"training", "best: epoch 3, 1"}
    assert "validation" not in lines(ax)


def test_history_of_a_model_has_its_best_epoch(losses) -> None:
    class Model:
        history, training = losses, {"best_epoch": 1}

    _, ax = plt.subplots()
    assert pl.history(Model(), ax=ax) is ax
    np.testing.assert_array_equal(lines(ax)["best: epoch 1, 2.2"], [[1, 2.2]])


def test_history_of_a_model_in_closed_form_is_its_penalties(make_section) -> None:
    model = tl.fit(
        make_section(), model="kernel", encoder="morphology", training={"augment": False}, progress=False
    )  # fmt: skip
    ax = pl.history(model)
    table = model.history
    np.testing.assert_array_equal(lines(ax)["spots left out"], table[["penalty", "validation_loss"]])
    best = table.loc[table["validation_loss"].idxmin()]
    (label,) = (name for name in lines(ax) if name.startswith("best: "))
    assert label == f"best: penalty {best['penalty']:.3g}, {best['validation_loss']:.4g}"
    assert (ax.get_xlabel(), ax.get_xscale()) == ("penalty", "log")


def test_history_refuses_other_things(losses) -> None:
    with pytest.raises(TypeError, match="TrainedModel or its history, a DataFrame; found list"):
        pl.history([1, 2])
    with pytest.raises(ValueError, match="column 'train_loss', or .*; found 4 rows"):
        pl.history(losses[["train_nll"]])
