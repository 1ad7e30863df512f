"""Models of single cells on simulated nuclei, or on a Xenium section, beside the mean, depth and type-mean baselines.

python benchmarks/single_cells.py [--cells 400] [--genes 60] [--epochs 20] [--xenium OUTS --image HE --alignment CSV]
                                  [--publish docs/benchmark]

Simulated: three sections train, a fourth is predicted. Xenium: the cells on the left of the section train, those on the
right, beyond a gap of 100 um, are predicted, which flatters every model. The type-mean baseline is the mean, over the
training cells of a type, of log-normalized expression: of the type that each model predicts, and of the true one.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import hist2scrna as h2s

TYPE, PREDICTED_TYPE = "cell_type", "hist2scrna_cell_type"
GAP_UM, CELL_UM = 100.0, 20.0


@dataclass
class Cells:
    """Cells to train on and to predict, their nuclei, and what they are, in words."""

    train: ad.AnnData
    test: ad.AnnData
    nuclei: tuple[Any, Any]
    what: str


def simulated(n_cells: int, n_genes: int) -> Cells:
    *train, test = h2s.datasets.simulate(n_sections=4, n_spots=n_cells, n_genes=n_genes, level="cell", mpp=0.5, seed=1)
    for section in (*train, test):
        for layer in list(section.layers):
            del section.layers[layer]
    together = h2s.io.concat(train)
    masks = tuple(adata.uns["simulation"]["nuclei"] for adata in (together, test))
    return Cells(together, test, masks, f"simulated: 3 x {n_cells} cells train, {n_cells} of a fourth are predicted")


def xenium(outs: Path, image: Path | None, alignment: Path | None, n_cells: int, n_genes: int) -> Cells:
    cells = h2s.io.read_xenium(outs, source_image_path=image, alignment=alignment)
    x = cells.obsm["spatial"][:, 0]
    (entry,) = cells.uns["spatial"].values()
    border, gap = np.median(x), GAP_UM / entry["scalefactors"]["mpp"]
    rng = np.random.default_rng(0)
    sides = [np.flatnonzero(x < border - gap), np.flatnonzero(x > border)]
    rows = [np.sort(rng.choice(side, min(n_cells * number, len(side)), replace=False))
            for side, number in zip(sides, (3, 1), strict=True)]  # fmt: skip
    often = np.asarray(cells[rows[0]].X.sum(axis=0)).ravel()
    genes = np.sort(np.argsort(-often)[:n_genes])
    train, test = (cells[side][:, genes].copy() for side in rows)
    polygons = outs / "nucleus_boundaries.parquet"
    return Cells(train, test, (polygons, polygons), f"Xenium: {len(train)} cells train, {len(test)} are predicted")


def models(epochs: int, nuclei: Any) -> dict[str, dict[str, Any]]:
    training = {"max_epochs": epochs, "validation": 0}
    return {
        "ghist": {
            "model": "ghist",
            "preset": "tiny",
            "likelihood": "nb",
            "nuclei": nuclei,
            "tile_px": 128,
            "tile_um": 64.0,
            "training": {**training, "batch_size": 4},
        },
        "hist2scrna": {
            "model": "hist2scrna",
            "preset": "tiny",
            "patch_px": 40,
            "patch_um": CELL_UM,
            "neighbors": {"kind": "delaunay", "radius_um": 30.0},
            "training": {**training, "lr": 1e-3},
        },
        "kernel": {"model": "kernel", "patch_um": CELL_UM},
        "ridge": {"model": "ridge", "encoder": "morphology", "patch_um": CELL_UM},
    }


def pearson_of_type_means(cells: Cells, types: pd.Series) -> float:
    """Return the mean over genes of the correlation of the truth with the mean of each cell's type."""
    own = [h2s.metrics.log_normalize(adata.X.toarray().astype(float)) for adata in (cells.train, cells.test)]
    means = pd.DataFrame(own[0]).groupby(cells.train.obs[TYPE].astype(str).to_numpy()).mean()
    known = types.notna().to_numpy()
    guess = means.loc[types[known].astype(str)].to_numpy()
    return float(np.nanmean(h2s.metrics.pearson_by_gene(own[1][known], guess)))


def score(cells: Cells, label: str, options: dict[str, Any]) -> dict[str, Any]:
    """Fit, predict and evaluate one model."""
    has_types = TYPE in cells.train.obs
    labels = {"labels_key": TYPE} if has_types else {}
    model = h2s.tl.fit(cells.train, **labels, **options)
    masks = {"nuclei": cells.nuclei[1]} if "nuclei" in options else {}
    predicted = h2s.tl.predict(cells.test.copy(), model, layers=["mean", "log_normalized"], **masks)
    evaluation = h2s.tl.evaluate(predicted, model, **labels, **masks)
    head, results = evaluation.headline, evaluation.results
    likelihood = {name: scores["log_likelihood"] for name, scores in results["counts"].items()}
    row = {
        "model": label,
        "Pearson": head["pearson"],
        "depth baseline": head["depth_baseline"],
        "noise ceiling": head["noise_ceiling"],
        "log-likelihood": likelihood.get("model", np.nan),
        "of the mean baseline": likelihood.get("mean_baseline", np.nan),
    }
    if has_types:
        types = predicted.obs[PREDICTED_TYPE]
        row |= {
            "types right": results["cell_types"]["accuracy"],
            "type-mean baseline": pearson_of_type_means(cells, types),
            "of the true type": pearson_of_type_means(cells, cells.test.obs[TYPE]),
        }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=400)
    parser.add_argument("--genes", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--model", nargs="+", help="run these alone")
    parser.add_argument("--xenium", type=Path, help="folder that Xenium writes")
    parser.add_argument("--image", type=Path, help="its H&E image")
    parser.add_argument("--alignment", type=Path, help="the alignment that Xenium Explorer exports")
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.xenium is None:
        cells = simulated(options.cells, options.genes)
    else:
        cells = xenium(options.xenium, options.image, options.alignment, options.cells, options.genes)
    chosen = models(options.epochs, cells.nuclei[0])
    rows = [score(cells, label, chosen[label]) for label in options.model or chosen]
    table = pd.DataFrame(rows).set_index("model")
    text = f"{cells.what}; {options.genes} genes.\n\n{table.to_markdown(floatfmt='.3f')}\n"
    if options.publish is not None:
        (options.publish / "single_cells.md").write_text(text)
        table.to_csv(options.publish / "single_cells.csv", float_format="%.5g")
    print(text)


if __name__ == "__main__":
    main()
