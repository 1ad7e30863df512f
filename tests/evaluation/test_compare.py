"""Two evaluations of the same counts: paired tests against SciPy, and what must not be compared."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from hist2scrna import keys
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.tl import evaluate

NAMES = keys.OutputKeys()
N_GENES = 15


def predicted(noise: float, *, n_sections: int = 3, likelihood: str = "poisson") -> ad.AnnData:
    """The same counts every time, and their means with more or less noise."""
    rng, other = np.random.default_rng(0), np.random.default_rng(int(10 * noise) + 1)
    n_spots = 40 * n_sections
    mean = rng.gamma(2, 3.0, N_GENES) * rng.gamma(3, 1 / 3, (n_spots, N_GENES)) + 0.1
    counts = rng.poisson(mean)
    counts[:, 0] += 1
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {"library_id": np.repeat([f"s{i}" for i in range(n_sections)], 40)}, index=[str(i) for i in range(n_spots)]
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]),
        layers={NAMES.layer("mean"): mean * np.exp(noise * other.standard_normal(mean.shape))},
        uns={NAMES.parameters: {"likelihood": likelihood}},
    )


def run(adata: ad.AnnData) -> Evaluation:
    return evaluate(adata, progress=False)


@pytest.fixture(scope="module")
def sharp() -> Evaluation:
    return run(predicted(0.2))


@pytest.fixture(scope="module")
def blunt() -> Evaluation:
    return run(predicted(0.9))


def row(table: pd.DataFrame, measure: str, level: str) -> pd.Series:
    found = table[(table["measure"] == measure) & (table["level"] == level)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("measure", ["pearson", "depth_partial", "log_likelihood"])
def test_genes_are_compared_as_scipy_does(sharp, blunt, measure) -> None:
    found = row(sharp.compare(blunt), measure, "gene")
    mine, other = sharp.genes[measure].to_numpy(), blunt.genes[measure].to_numpy()
    assert found["n"] == N_GENES
    assert found["difference"] == pytest.approx(np.mean(mine - other))
    assert (found["value"], found["other"]) == pytest.approx((mine.mean(), other.mean()))
    assert found["p_value"] == pytest.approx(stats.wilcoxon(mine, other).pvalue)
    assert found["better"] == np.mean(mine > other)
    assert found["worse"] == np.mean(mine < other)
    # The bootstrap of a mean is close to normal: its width is that of the standard error.
    assert found["low"] < found["difference"] < found["high"]
    error = np.std(mine - other) / np.sqrt(N_GENES)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_sections_are_compared_as_scipy_does(sharp, blunt) -> None:
    found = row(sharp.compare(blunt), "pearson", "section")
    mine, other = ([s["pearson"] for s in e.results["sections"].values()] for e in (sharp, blunt))
    expected = stats.ttest_rel(mine, other)
    assert found["n"] == 3
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found["better"] == 1
    assert found["worse"] == 0


def test_the_other_way_round_is_the_opposite(sharp, blunt) -> None:
    one, other = sharp.compare(blunt), blunt.compare(sharp)
    np.testing.assert_allclose(one["difference"], -other["difference"])
    np.testing.assert_allclose(one["low"], -other["high"], atol=0.05)
    np.testing.assert_allclose(one["p_value"], other["p_value"])
    np.testing.assert_array_equal(one["better"], other["worse"])


def test_nothing_differs_from_itself(sharp) -> None:
    found = sharp.compare(Evaluation.from_json(sharp.to_json()))
    assert len(found) == 5
    for column in ("difference", "low", "high", "better", "worse"):
        np.testing.assert_array_equal(found[column], 0)
    np.testing.assert_array_equal(found["p_value"], 1)


def test_the_interval_is_reproducible(sharp, blunt) -> None:
    pd.testing.assert_frame_equal(sharp.compare(blunt), sharp.compare(blunt))
    assert not sharp.compare(blunt, seed=1)["low"].equals(sharp.compare(blunt)["low"])


def test_one_section_and_no_distribution(blunt) -> None:
    one = predicted(0.2, n_sections=1)
    other = predicted(0.5, n_sections=1, likelihood="unknown")
    found = run(one).compare(run(other))
    assert list(found["measure"]) == ["pearson", "depth_partial"]
    assert set(found["level"]) == {"gene"}


def test_genes_without_a_score_in_one_are_left_out(sharp, blunt) -> None:
    genes = blunt.genes.copy()
    genes.loc["g4", "pearson"] = np.nan
    found = row(sharp.compare(Evaluation(blunt.results, genes)), "pearson", "gene")
    assert found["n"] == N_GENES - 1
    assert found["difference"] == pytest.approx((sharp.genes["pearson"] - genes["pearson"]).mean())


def test_order_of_spots_and_genes_does_not_matter(sharp) -> None:
    adata = predicted(0.9)
    rng = np.random.default_rng(3)
    mixed = adata[rng.permutation(adata.n_obs), rng.permutation(N_GENES)].copy()
    found = sharp.compare(run(mixed))
    expected = sharp.compare(run(adata))
    np.testing.assert_allclose(found["difference"], expected["difference"], rtol=1e-6)
    np.testing.assert_allclose(found["p_value"], expected["p_value"], rtol=1e-6)


def test_what_differs_is_named(sharp) -> None:
    adata = predicted(0.9)
    with pytest.raises(ValueError, match=r"differ in the gene panels \(15 and 14 genes\)"):
        sharp.compare(run(adata[:, 1:].copy()))
    renamed = adata.copy()
    renamed.var_names = [f"h{i}" for i in range(N_GENES)]
    with pytest.raises(ValueError, match=r"the gene panels \(15 and 15 genes, with other names\)"):
        sharp.compare(run(renamed))
    with pytest.raises(ValueError, match=r"the sections and their numbers of scored spots \(.*'s2': 40.*'s2': 39"):
        sharp.compare(run(adata[:-1].copy()))
    counts = adata.X.toarray()
    counts[3, 4] += 1
    adata.layers["other"] = counts
    with pytest.raises(ValueError, match=r"differ in the counts \(layers 'X' and 'other'\)"):
        sharp.compare(evaluate(adata, layer="other", progress=False))
    with pytest.raises(TypeError, match="to be an Evaluation, found dict"):
        sharp.compare(sharp.results)
