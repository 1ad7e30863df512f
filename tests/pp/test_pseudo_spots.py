"""Sums of single cells: they vary as spots do, and cells do not."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import hist2scrna as h2s
from hist2scrna.fitting.closed_form.donors import Donors
from hist2scrna.fitting.closed_form.programs import Programs

GENES, TYPES, CAPTURE = 60, 3, 0.3
WORLD = np.random.default_rng(11)
# What cells of a type express; and a program that is on in some cells of every type, and says nothing of tissue.
PROFILES = np.exp(WORLD.normal(0.5, 1.0, GENES) + 1.5 * WORLD.normal(size=(TYPES, GENES)))
WITHIN = 0.8 * WORLD.normal(size=GENES)


def cells_of(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    return rng.poisson(PROFILES[label] * np.exp(rng.normal(size=(len(label), 1)) * WITHIN - WITHIN**2 / 2))


def reference(donors: int = 3, n: int = 400) -> ad.AnnData:
    """Annotated single cells; each donor has a composition of its own."""
    parts = []
    for number in range(donors):
        rng = np.random.default_rng(100 + number)
        label = rng.choice(TYPES, n, p=rng.dirichlet(np.full(TYPES, 20.0)))
        part = ad.AnnData(sparse.csr_matrix(cells_of(rng, label).astype(np.float32)))
        part.obs_names = [f"d{number}_{i}" for i in range(n)]
        part.obs["type"] = pd.Categorical([f"t{k}" for k in label])
        part.obs["donor"] = f"d{number}"
        parts.append(part)
    joined = ad.concat(parts)
    joined.obs["type"] = joined.obs["type"].astype("category")
    return joined


def tissue(n: int = 400, concentration: float = 6.0) -> ad.AnnData:
    """Spots of another donor: their proportions vary more than by default, and so does the number of cells."""
    rng = np.random.default_rng(1)
    rows = []
    for proportions in rng.dirichlet(np.full(TYPES, concentration / TYPES), n):
        label = rng.choice(TYPES, 5 + rng.poisson(20), p=proportions)
        rows.append(rng.binomial(cells_of(rng, label).sum(axis=0), CAPTURE))
    spots = ad.AnnData(sparse.csr_matrix(np.array(rows, dtype=np.float32)))
    spots.obs_names = [f"s{i}" for i in range(n)]
    spots.obs["donor"] = "s"
    return spots


def programs(adata: ad.AnnData) -> np.ndarray:
    """Axes of as many programs as there are differences between types, `(programs, genes)`."""
    donors = Donors(pd.factorize(adata.obs["donor"])[0].astype(np.int64))
    loadings = Programs.fit(sparse.csr_array(adata.X), TYPES - 1, np.arange(adata.n_obs), donors).log_loadings[1:]
    return np.linalg.qr(loadings.T)[0].T


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Mean squared cosine of the principal angles: 1 for the same space."""
    return float(np.square(one @ other.T).sum() / len(one))


def test_their_programs_are_those_of_spots_and_those_of_cells_are_not() -> None:
    cells, spots = reference(), tissue(1000)
    truth = programs(spots)
    sums = h2s.pp.pseudo_spots(cells, spots, "type", group_key="donor")
    alike = h2s.pp.pseudo_spots(cells, spots, "type", group_key="donor", concentration=1e6)
    ours = agreement(programs(sums), truth)
    assert ours > 0.9
    assert ours > agreement(programs(cells), truth) + 0.3
    # Cells drawn at random, all spots of one composition, are not enough.
    assert ours > agreement(programs(alike), truth) + 0.2


def test_they_are_as_deep_as_spots_and_as_many_as_asked() -> None:
    cells, spots = reference(), tissue(100)
    sums = h2s.pp.pseudo_spots(cells, spots, "type", group_key="donor", n_spots=80)
    assert sums.shape == (240, GENES)
    assert sums.obs["donor"].value_counts().to_dict() == {"d0": 80, "d1": 80, "d2": 80}
    assert (sums.obs["pseudo_spot_cells"] == 20).all()
    depths = [np.quantile(np.asarray(table.X.sum(axis=1)), (0.1, 0.5, 0.9)) for table in (sums, spots)]
    np.testing.assert_allclose(*depths, rtol=0.15)
    assert (sums.X.data == np.round(sums.X.data)).all()
    # The shares of genes are, on the mean, those of the cells of the donor.
    own = cells[cells.obs["donor"] == "d1"]
    shares = [np.asarray(t.X.sum(axis=0)).ravel() / t.X.sum() for t in (sums[sums.obs["donor"] == "d1"], own)]
    assert np.corrcoef(*shares)[0, 1] > 0.99


@pytest.mark.parametrize("concentration", [2.0, 20.0])
def test_proportions_vary_as_the_dirichlet_distribution_says(concentration) -> None:
    """Each type has one gene of its own, and each cell one count: the shares of genes are the proportions."""
    label = np.repeat([0, 1], [150, 50])
    cells = ad.AnnData(sparse.csr_matrix(np.eye(2, dtype=np.float32)[label]))
    cells.obs["type"] = pd.Categorical([f"t{k}" for k in label])
    spots = ad.AnnData(np.full((10, 2), 100, dtype=np.float32))
    sums = h2s.pp.pseudo_spots(cells, spots, "type", n_spots=4000, cells_per_spot=100, concentration=concentration)
    first = sums.X.toarray()[:, 0]
    law = stats.betabinom(100, concentration * 0.75, concentration * 0.25)
    assert first.mean() == pytest.approx(law.mean(), rel=0.02)
    assert first.var() == pytest.approx(law.var(), rel=0.1)


def test_the_same_seed_draws_the_same() -> None:
    cells, spots = reference(1, 100), tissue(20)
    one, two, other = (h2s.pp.pseudo_spots(cells, spots, "type", n_spots=10, seed=seed).X for seed in (1, 1, 2))
    assert (one != two).nnz == 0
    assert (one != other).nnz > 0


def test_genes_are_those_of_both_and_what_cannot_be_summed_is_refused(caplog) -> None:
    cells, spots = reference(2, 100), tissue(20)
    sums = h2s.pp.pseudo_spots(cells, spots[:, ::2].copy(), "type", n_spots=10)
    assert list(sums.var_names) == list(spots.var_names[::2])
    few = cells[: 100 + 10].copy()
    sums = h2s.pp.pseudo_spots(few, spots, "type", group_key="donor", n_spots=10)
    assert set(sums.obs["donor"]) == {"d0"}
    assert "d1 (10)" in caplog.text
    with pytest.raises(ValueError, match=r"No donor has 101 cells .* d0 \(100\), d1 \(10\)"):
        h2s.pp.pseudo_spots(few, spots, "type", group_key="donor", cells_per_spot=101)
    with pytest.raises(ValueError, match="Expected `concentration` to be a positive number, found 0"):
        h2s.pp.pseudo_spots(cells, spots, "type", concentration=0)
    other = spots.copy()
    other.var_names = [f"other{i}" for i in range(GENES)]
    with pytest.raises(KeyError, match="share no gene"):
        h2s.pp.pseudo_spots(cells, other, "type")
    with pytest.raises(KeyError, match="'kind' not found"):
        h2s.pp.pseudo_spots(cells, spots, "kind")
