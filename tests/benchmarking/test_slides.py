"""Benchmarks of which the rows are slides: held out by donor, with bulk in any unit, beside the mean baseline."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from hist2scrna import pp, tl
from hist2scrna.benchmarking import execute
from hist2scrna.benchmarking.run import attempt

N_GENES, PER_DONOR, TILES = 12, 6, 4
MODELS = {
    "hist2rna": {"model": "hist2rna", "training": {"max_epochs": 3}},
    "ridge": {"model": "ridge"},
}


@pytest.fixture(autouse=True)
def in_process(monkeypatch) -> None:
    """Jobs run in this process, which saves the imports."""

    def launch(scratch) -> int:
        (scratch / "log.txt").write_text("")
        return attempt(scratch)

    monkeypatch.setattr(execute, "launch", launch)


def make_slides(scale: float = 1.0) -> ad.AnnData:
    """Slides of three donors: the expression of each follows the mean of its features; `scale` makes it bulk."""
    rng = np.random.default_rng(4)
    slides = [f"{donor}{i}" for donor in "abc" for i in range(PER_DONOR)]
    own = np.repeat(rng.normal(size=(len(slides), 5)), TILES, axis=0)
    tiles = ad.AnnData(
        obs=pd.DataFrame(
            {
                "library_id": pd.Categorical(np.repeat(slides, TILES)),
                "donor": pd.Categorical([name[0] for name in np.repeat(slides, TILES)]),
            },
            index=[f"tile{i}" for i in range(len(own))],
        ),
        obsm={"X_f": (own + 0.1 * rng.normal(size=own.shape)).astype(np.float32)},
    )
    means = np.exp(rng.normal(3, 1.5, N_GENES) + 0.6 * own[::TILES] @ rng.normal(size=(5, N_GENES)))
    bulk = pd.DataFrame(scale * rng.poisson(means), index=slides, columns=[f"g{i}" for i in range(N_GENES)])
    return pp.pool_patches(tiles, "X_f", by="library_id", bulk=bulk)


def run(slides: ad.AnnData, folder, models=MODELS, **given) -> pd.DataFrame:
    asked = {"library_key": "donor", "accelerator": "cpu", "progress": False, **given}
    return tl.benchmark({"bulk": slides}, models, folder=folder, **asked)


def test_slides_of_each_donor_are_held_out_together(tmp_path) -> None:
    slides = make_slides()
    table = run(slides, tmp_path).set_index("model")
    assert (table["folds"] == "a, b, c").all() and table["n_failed"].fillna(0).eq(0).all()
    assert table.loc["ridge", "pearson"] > 0.5 > abs(table.loc["mean baseline", "pearson"])
    # That of the mean baseline, by SciPy: the mean of log-normalized slides of the other donors, ranked.
    values = slides.to_df()
    logs = np.log1p(1e4 * values.div(values.sum(axis=1), axis=0))
    donor = slides.obs["donor"].astype(str).to_numpy()
    expected = [
        np.median(
            [spearmanr(logs.to_numpy()[i], logs[donor != name].mean()).statistic for i in np.flatnonzero(donor == name)]
        )
        for name in "abc"
    ]
    assert table.loc["mean baseline", "within_slides_spearman"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert table.loc["ridge", "within_slides_spearman"] > np.mean(expected)
    page = (tmp_path / "table.md").read_text()
    assert "Spearman within slides" in page and f"{np.mean(expected):.3f}" in page


def test_bulk_that_is_not_whole_is_taken_by_the_model_for_it_and_by_no_other(tmp_path) -> None:
    table = run(make_slides(0.37), tmp_path, folds=["b"]).set_index("model")
    assert table.loc["hist2rna", "n_failed"] == 0 and np.isfinite(table.loc["hist2rna", "pearson"])
    assert table.loc["ridge", "n_failed"] == 1
    status = pd.read_csv(tmp_path / "jobs.csv").set_index("model").loc["ridge", "status"]
    assert "values that are not whole numbers" in status
    card = json.loads(next(tmp_path.rglob("job.json")).read_text())
    assert card["validation"] == "held-out slides"


def test_nothing_tells_which_slides_belong_together(tmp_path) -> None:
    slides = make_slides()
    del slides.obs["library_id"]
    with pytest.raises(KeyError, match="which slides of data set 'bulk' belong together.*library_key=.*'donor'"):
        run(slides, tmp_path / "out", library_key=None)
    assert not (tmp_path / "out").exists()


def test_models_on_patches_are_refused_for_slides(tmp_path) -> None:
    table = run(make_slides(), tmp_path, {"stnet": {"model": "stnet"}}, folds=["a"])
    assert table.set_index("model").loc["stnet", "n_failed"] == 1
    (said,) = tmp_path.rglob("*.failed.txt")
    assert pd.read_csv(tmp_path / "jobs.csv")["status"].str.contains("the rows are slides").any()
