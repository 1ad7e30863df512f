"""The page of a prediction: its numbers, its maps, and what it refuses."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import hist2scrna
from hist2scrna import keys
from hist2scrna.cli import app
from hist2scrna.reporting.prediction import predicted_sections

NAMES = keys.OutputKeys()
N_SPOTS, GENES = 30, ["low", "<b>high</b>", "flat", "unmodeled"]


@pytest.fixture
def prediction() -> ad.AnnData:
    """Two sections of a made-up model, of which the last spot has no prediction and no coordinates."""
    rng = np.random.default_rng(0)
    rates = [rng.gamma(2, 0.5, N_SPOTS), rng.gamma(4, 0.25, N_SPOTS), np.ones(N_SPOTS)]
    mu = np.array([1.0, 8.0, 3.0]) * np.stack(rates, axis=1)
    values = {"mean": 0.8 * mu, "dropout": np.full(mu.shape, 0.2), "log_normalized": np.log1p(mu)}
    unmodeled = np.full((N_SPOTS, 1), np.nan)
    layers = {NAMES.layer(name): np.hstack([v, unmodeled]).astype(np.float32) for name, v in values.items()}
    xy = np.column_stack([np.arange(N_SPOTS) % 6, np.arange(N_SPOTS) // 6]) * 50.0
    for matrix in (*layers.values(), xy):
        matrix[-1] = np.nan
    obs = pd.DataFrame(
        {
            "library_id": pd.Categorical(np.repeat(["one", "two"], N_SPOTS // 2)),
            NAMES.library_size: np.arange(N_SPOTS, dtype=np.float32) + 100,
            NAMES.cell_type: pd.Categorical(["tumor"] * 20 + ["stroma"] * 10),
            NAMES.unlike_training: pd.Categorical.from_codes([0] * 27 + [1] * 3, keys.TISSUE),
        },
        index=[f"s{i}" for i in range(N_SPOTS)],
    )
    obs.loc["s29", [NAMES.library_size, NAMES.cell_type, NAMES.unlike_training]] = np.nan
    var = pd.DataFrame({NAMES.modeled: [True] * 3 + [False], NAMES.dispersion: [0.5, 2.0, 10.0, np.nan]}, index=GENES)
    about = {"model": "made up", "likelihood": "zinb", "scale": "counts", "another_donor": np.array(["two"])}
    return ad.AnnData(obs=obs, var=var, layers=layers, obsm={"spatial": xy}, uns={NAMES.parameters: about})


def test_numbers_are_those_of_the_prediction(prediction) -> None:
    _, (one, two) = predicted_sections(prediction, keys.KEY_ADDED)
    assert (one.name, len(one.rows), one.n_left_out) == ("one", 15, 0)
    assert (two.name, len(two.rows), two.n_left_out) == ("two", 14, 1)
    assert one.unlike.sum() == 0 and two.unlike.sum() == 2
    np.testing.assert_array_equal(two.columns["library_size"], np.arange(115, 129))
    assert dict(two.cell_type.value_counts()) == {"stroma": 9, "tumor": 5}
    logs = prediction.layers[NAMES.layer("log_normalized")][15:29, :3].astype(float)
    expected = pd.Series(logs.std(axis=0), index=GENES[:3]).sort_values(ascending=False)
    pd.testing.assert_series_equal(two.genes["spread"], expected, check_names=False, rtol=1e-6)
    assert two.genes.loc["low", "highest_in"] == ("tumor" if logs[:5, 0].mean() > logs[5:, 0].mean() else "stroma")


def test_uncertainty_is_the_deviation_of_the_distribution(prediction) -> None:
    _, (one, _) = predicted_sections(prediction, keys.KEY_ADDED)
    mean = prediction.layers[NAMES.layer("mean")][:15, :3].astype(float)
    theta, dropout = np.array([0.5, 2.0, 10.0]), 0.2
    count = stats.nbinom(theta, theta / (theta + mean / (1 - dropout)))
    variance = (1 - dropout) * (count.var() + count.mean() ** 2) - mean**2
    np.testing.assert_allclose(one.columns["uncertainty"], np.median(np.sqrt(variance) / mean, axis=1), rtol=1e-5)
    prediction.layers[NAMES.layer("uncertainty")] = 3 * prediction.layers[NAMES.layer("mean")]
    _, (one, _) = predicted_sections(prediction, keys.KEY_ADDED)
    np.testing.assert_allclose(one.columns["uncertainty"], 3, rtol=1e-6)


def test_a_prediction_that_is_no_distribution_has_no_uncertainty(prediction) -> None:
    prediction.uns[NAMES.parameters] |= {"likelihood": "mse", "scale": "log_normalized"}
    for column in (NAMES.library_size, NAMES.cell_type, NAMES.unlike_training):
        del prediction.obs[column]
    _, (one, _) = predicted_sections(prediction, keys.KEY_ADDED)
    assert one.columns == {} and one.cell_type is None and one.unlike is None


def test_the_page_shows_each_section_and_fetches_nothing(prediction, tmp_path) -> None:
    before = prediction.obs.copy()
    path = hist2scrna.report(prediction, tmp_path / "new" / "page.html", title="<i>mine</i>")
    text = path.read_text(encoding="utf-8")
    assert "<i>mine" not in text and "<b>high" not in text and "&lt;b&gt;high&lt;/b&gt;" in text
    assert re.findall(r'<h2 id="section-\d-title">(.*?)</h2>', text) == ["one", "two"]
    maps = re.findall(r'id="figure-\d-([^"]*)"', text)
    assert maps[:3] == ["cell_type", "library_size", "uncertainty"] and len(maps) == 12
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources and all(source.startswith(("data:image/", "#")) for source in sources)
    assert "<script" not in text
    assert "7% of 29 spots are unlike the training" in text
    assert "two: taken for tissue of a donor that the model does not know" in text
    pd.testing.assert_frame_equal(prediction.obs, before)


def test_what_is_no_prediction_is_refused_before_a_file_is_touched(prediction, tmp_path) -> None:
    out = tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(KeyError, match=r"Pass key=, one of \['hist2scrna'\]"):
        hist2scrna.report(prediction, out, key="other")
    with pytest.raises(ValueError, match="`history` belongs to the page of an evaluation"):
        hist2scrna.report(prediction, out, history=pd.DataFrame())
    with pytest.raises(ValueError, match="`key` belongs to the page of a prediction"):
        hist2scrna.report(tmp_path / "e.json", out, key="other")
    prediction.layers[NAMES.layer("mean")][:] = np.nan
    with pytest.raises(ValueError, match="No spot has a prediction"):
        hist2scrna.report(prediction, out)
    del prediction.uns[NAMES.parameters]
    with pytest.raises(KeyError, match=r"Call tl.predict\(adata, model\) first"):
        hist2scrna.report(prediction, out)
    assert out.read_text() == "mine"


def test_from_the_shell(prediction, tmp_path) -> None:
    prediction[:15].write_h5ad(tmp_path / "p.h5ad")
    result = CliRunner().invoke(app, ["report", str(tmp_path / "p.h5ad"), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
    assert "made up on one<" in (tmp_path / "r.html").read_text(encoding="utf-8")
