"""The loss: each term against an independent formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import log_loss

from hist2scrna.fitting.objective import Objective
from hist2scrna.models import Prediction, SpotBatch

pytestmark = pytest.mark.numeric


RNG = np.random.default_rng(0)
N, G = 12, 5


def case(likelihood="zinb"):
    counts = torch.from_numpy(RNG.poisson(3, (N, G)).astype(np.float32))
    counts[:, 0] += 1
    edges = torch.tensor([[0, 1, 2, 3, 11, 13], [1, 0, 3, 2, 13, 11]])
    batch = SpotBatch(
        n_core=N,
        xy=torch.zeros(N + 2, 2),
        edge_index=edges,
        section=torch.zeros(N + 2, dtype=torch.long),
        counts=counts,
        log_library=counts.sum(dim=1).log(),
        label=torch.tensor([0, 1, 2] * 4),
    )
    prediction = Prediction(
        embedding=torch.zeros(N, 2),
        log_library=batch.log_library + 0.5,
        label_logits=torch.randn(N, 3, generator=torch.Generator().manual_seed(1)),
    )
    level = torch.randn(N, G, generator=torch.Generator().manual_seed(2))
    if likelihood == "mse":
        prediction.value = level
        return prediction, batch
    prediction.log_mu = level
    if likelihood != "poisson":
        prediction.log_dispersion = torch.linspace(-1, 1, G)
    if likelihood == "zinb":
        prediction.dropout_logits = level.flip(0)
    return prediction, batch


def test_zinb_term_is_scipys():
    prediction, batch = case("zinb")
    mu, theta = prediction.log_mu.exp().numpy(), prediction.log_dispersion.exp().numpy()
    pi, x = prediction.dropout.numpy(), batch.counts.numpy()
    density = pi * (x == 0) + (1 - pi) * stats.nbinom.pmf(x, theta, theta / (theta + mu))
    assert Objective()(prediction, batch)["expression"].item() == pytest.approx(-np.log(density).mean(), rel=1e-5)


def test_nb_and_poisson_terms_are_scipys():
    prediction, batch = case("nb")
    mu, theta, x = prediction.log_mu.exp().numpy(), prediction.log_dispersion.exp().numpy(), batch.counts.numpy()
    expected = -stats.nbinom.logpmf(x, theta, theta / (theta + mu)).mean()
    assert Objective()(prediction, batch)["expression"].item() == pytest.approx(expected, rel=1e-5)
    prediction, batch = case("poisson")
    expected = -stats.poisson.logpmf(batch.counts.numpy(), prediction.log_mu.exp().numpy()).mean()
    assert Objective()(prediction, batch)["expression"].item() == pytest.approx(expected, rel=1e-5)


def test_mse_term_is_on_scanpys_log_normalized_values():
    import anndata
    import scanpy as sc

    prediction, batch = case("mse")
    adata = anndata.AnnData(batch.counts.numpy().copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    expected = ((adata.X - prediction.value.numpy()) ** 2).mean()
    assert Objective()(prediction, batch)["expression"].item() == pytest.approx(expected, rel=1e-5)


def test_cell_type_term_is_scikit_learns_and_skips_missing_labels():
    prediction, batch = case()
    batch.label[[0, 5]] = -1
    known = batch.label.numpy() >= 0
    probability = prediction.label_logits.softmax(dim=1).numpy()[known]
    expected = log_loss(batch.label.numpy()[known], probability, labels=[0, 1, 2])
    assert Objective()(prediction, batch)["cell_type"].item() == pytest.approx(expected, rel=1e-5)
    batch.label[:] = -1
    assert Objective()(prediction, batch)["cell_type"].item() == 0


def test_total_is_the_weighted_sum():
    prediction, batch = case()
    own = lambda prediction, batch: prediction.mean.mean()  # noqa: E731
    terms = Objective(alpha=0.3, losses={"smoothness": 2.0, "pearson": 0.5, "mine": (own, 4.0), "bare": own})(
        prediction, batch
    )
    mean = prediction.mean.mean()
    expected = terms["expression"] + 0.3 * terms["cell_type"] + 0.5 * terms["library"]
    expected = expected + 2 * terms["smoothness"] + 0.5 * terms["pearson"] + 5 * mean
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["library"].item() == pytest.approx(0.25, rel=1e-5)


def test_smoothness_compares_seeds_at_equal_depth():
    prediction, batch = case()
    level = (prediction.log_mu - batch.log_library[:, None]).numpy()
    expected = np.mean([(level[0] - level[1]) ** 2, (level[2] - level[3]) ** 2])
    terms = Objective(losses={"smoothness": 1.0})(prediction, batch)
    assert terms["smoothness"].item() == pytest.approx(expected, rel=1e-5)


def test_pearson_term_is_scipys():
    prediction, batch = case()

    def normalized(x):
        return np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1))

    truth, guess = normalized(batch.counts.numpy()), normalized(prediction.mean.numpy())
    expected = 1 - np.mean([stats.pearsonr(truth[:, g], guess[:, g])[0] for g in range(G)])
    terms = Objective(losses={"pearson": 1.0})(prediction, batch)
    assert terms["pearson"].item() == pytest.approx(expected, rel=1e-4)


def test_reserved_names_are_refused():
    with pytest.raises(ValueError, match="'cell_type' is always there"):
        Objective(losses={"cell_type": 1.0})
