"""Optimizer and learning rates, as `Training` says."""

from __future__ import annotations

import pytest

from hist2scrna.fitting.lightning_module import TrainingModule, make_optimizer
from hist2scrna.fitting.objective import Objective
from hist2scrna.models import create_model
from hist2scrna.models.training import DEFAULTS, Training


def test_the_learning_rate_falls_along_a_line_from_epoch_to_epoch() -> None:
    network = create_model("hist2rna", n_genes=3, n_features=2)
    training = Training(schedule="linear", lr=1.0, max_epochs=4).filled_by(DEFAULTS)
    configured = TrainingModule(network, Objective(0.1), training).configure_optimizers()
    rates = []
    for _ in range(4):
        rates.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"].step()
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_biases_decay_where_a_recipe_says_so_and_frozen_weights_are_left_out() -> None:
    network = create_model("hist2rna", n_genes=3, n_features=2)
    network.hidden["1"].weight.requires_grad_(False)
    for offsets, expected in ((False, [(3, 0.01), (4, 0.0)]), (True, [(7, 0.01)])):
        training = Training(decay_offsets=offsets).filled_by(DEFAULTS)
        groups = make_optimizer(network, training).param_groups
        assert [(len(group["params"]), group["weight_decay"]) for group in groups] == expected
