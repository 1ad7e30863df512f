"""From whole-slide files and a table of bulk expression to a fitted model, in Python and in the shell."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

import hist2scrna as h2s
from hist2scrna.cli import app
from hist2scrna.images.open import open_file

NAMES = ["CMU-1-Small-Region", "lower", "upper"]
GENES = ["ESR1", "ERBB2", "MKI67", "TP53", "KRT5"]
QUICK = {"max_epochs": 3, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def folder(shared_data, tmp_path_factory) -> Path:
    """A whole slide as a scanner wrote it, and its two halves as TIFF."""
    place = tmp_path_factory.mktemp("slides")
    source = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    (place / source.name).symlink_to(source)
    image = open_file(source)
    width, height = image.size()
    per_cm = (1e4 / image.mpp, 1e4 / image.mpp)
    for name, top in (("upper", 0), ("lower", height // 2)):
        pixels = image.read(0, 0, top, width, height // 2)
        tifffile.imwrite(
            place / f"{name}.tif",
            pixels,
            photometric="rgb",
            tile=(256, 256),
            resolution=per_cm,
            resolutionunit="CENTIMETER",
        )
    return place


@pytest.fixture(scope="module")
def bulk(tmp_path_factory) -> Path:
    values = np.random.default_rng(0).gamma(2.0, 300.0, (len(NAMES), len(GENES)))
    path = tmp_path_factory.mktemp("bulk") / "bulk.csv"
    pd.DataFrame(values, index=NAMES[::-1], columns=GENES).to_csv(path)
    return path


@pytest.fixture(scope="module")
def tiles(folder) -> ad.AnnData:
    files = sorted(file for file in folder.iterdir() if file.suffix in (".svs", ".tif"))
    return h2s.io.concat([h2s.pp.tissue_grid(file, library_id=file.stem, spacing_um=300) for file in files])


@pytest.fixture(scope="module")
def pooled(tiles, bulk) -> ad.AnnData:
    """The slides with their bulk expression, pooled in Python."""
    return h2s.pp.pool_patches(tiles, encoder="morphology", bulk=bulk, progress=False)


@pytest.fixture(scope="module")
def pooled_in_the_shell(folder, bulk, tmp_path_factory) -> Path:
    """The same slides, pooled in the shell: with their bulk expression, and unmeasured."""
    place = tmp_path_factory.mktemp("pooled")
    quick = ["--spacing-um", 300, "--encoder", "morphology"]
    run("pool", folder, "--bulk", bulk, *quick, "--out", place / "slides.h5ad")
    run("pool", folder / "upper.tif", *quick, "--out", place / "unmeasured.h5ad")
    return place


def test_from_slides_to_scores_in_python(tiles, bulk, pooled, pooled_in_the_shell, tmp_path) -> None:
    slides = pooled.copy()
    model = h2s.tl.fit(slides, model="hist2rna", training=QUICK, progress=False)
    assert list(slides.obs_names) == NAMES
    np.testing.assert_allclose(slides.to_df().loc["upper"], pd.read_csv(bulk, index_col=0).loc["upper"], rtol=1e-6)
    assert slides.obs["n_patches"].sum() == tiles.n_obs
    assert model.options["target"] == "log_counts"
    unmeasured = ad.read_h5ad(pooled_in_the_shell / "unmeasured.h5ad")
    assert unmeasured.X is None
    predicted = h2s.tl.predict(unmeasured, h2s.TrainedModel.load(model.save(tmp_path / "model")), progress=False)
    assert list(predicted.var_names) == GENES
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    with pytest.warns(UserWarning, match="NOT HELD OUT"):
        found = h2s.tl.evaluate(slides, model, progress=False)
    assert 0 < found.headline["within_slides_spearman_mean_baseline"] <= 1
    slides.write_h5ad(tmp_path / "slides.h5ad")


def run(*arguments, expect: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return " ".join(result.output.split())


@pytest.mark.filterwarnings("ignore:NOT HELD OUT")
def test_the_shell_does_the_same(pooled, pooled_in_the_shell, tmp_path) -> None:
    slides = ad.read_h5ad(pooled_in_the_shell / "slides.h5ad")
    assert list(slides.obs_names) == NAMES
    np.testing.assert_allclose(slides.obsm["X_morphology"], pooled.obsm["X_morphology"], rtol=1e-5)
    np.testing.assert_allclose(slides.X, pooled.X)
    fit = ["--model", "hist2rna", "--max-epochs", 3, "--accelerator", "cpu"]
    said = run("fit", pooled_in_the_shell / "slides.h5ad", *fit, "--out", tmp_path / "model")
    assert "hist2rna" in said
    unmeasured = pooled_in_the_shell / "unmeasured.h5ad"
    run("predict", unmeasured, "--model", tmp_path / "model", "--out", tmp_path / "predicted.h5ad")
    predicted = ad.read_h5ad(tmp_path / "predicted.h5ad")
    assert list(predicted.var_names) == GENES
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    measured = pooled_in_the_shell / "slides.h5ad"
    evaluate = ["evaluate", measured, "--model", tmp_path / "model", "--out", tmp_path / "e.json"]
    assert "within slides" in run(*evaluate)


@pytest.mark.parametrize(
    ("rows", "columns", "more", "message"),
    [
        (["upper", "lower"], GENES, [], "1 slides have no row in --bulk"),
        ([*NAMES, "another"], GENES, [], "1 rows of --bulk are of no slide in adata"),
        ([*NAMES, "upper"], GENES, [], "names of slides occur more than once"),
        (NAMES, [*GENES[:-1], "ESR1"], [], "names of genes occur more than once"),
        (GENES, NAMES, [], "Slides are its columns: pass bulk.T"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(folder, tmp_path, rows, columns, more, message) -> None:
    values = np.random.default_rng(0).gamma(2.0, 300.0, (len(rows), len(columns)))
    pd.DataFrame(values, index=rows, columns=columns).to_csv(tmp_path / "bulk.csv")
    out = tmp_path / "slides.h5ad"
    said = run("pool", folder, "--bulk", tmp_path / "bulk.csv", *more, "--out", out, expect=1)
    assert message in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bulk.csv"]


def test_genes_under_old_names_and_one_slide_alone_are_refused(pooled_in_the_shell, tmp_path) -> None:
    (tmp_path / "genes.txt").write_text("ESR1\nHRASLS\nWISP1\n")
    fit = ["fit", pooled_in_the_shell / "slides.h5ad", "--model", "hist2rna", "--out", tmp_path / "model"]
    said = run(*fit, "--genes", tmp_path / "genes.txt", expect=1)
    assert "2 of 3 genes not found" in said and "HRASLS" in said and "WISP1" in said
    ad.read_h5ad(pooled_in_the_shell / "slides.h5ad")[:1].copy().write_h5ad(tmp_path / "one.h5ad")
    said = run("fit", tmp_path / "one.h5ad", *fit[2:], expect=1)
    assert "Too few slides to train on: 1 of 1" in said
    assert not (tmp_path / "model").exists()
