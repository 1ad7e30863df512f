"""hist2RNA, ridge and kernel on pseudobulks: blocks of 3 x 3 spots of HER2ST C2 to C6, one section held out.

python benchmarks/slides.py [--out docs/benchmark/slides.md] [--encoder morphology imagenet] [--block 3]

No slides with measured bulk expression are at hand, so blocks of spots stand for slides: the features of a block are
the mean over its spots, its expression is the sum of their counts. All sections are of one tumor of one patient.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import hist2scrna as h2s

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS: dict[str, dict[str, Any]] = {
    "ridge": {"model": "ridge"},
    "kernel": {"model": "kernel"},
    "hist2rna, published": {"model": "hist2rna"},
    "hist2rna, no decay": {"model": "hist2rna", "training": {"weight_decay": 0.0}},
    "hist2rna, no decay, 1e-3": {"model": "hist2rna", "training": {"weight_decay": 0.0, "lr": 1e-3}},
}
COLUMNS = {
    "pearson": "Pearson across blocks",
    "pearson_baseline": "mean baseline",
    "pearson_depth": "depth baseline",
    "mse": "squared error",
    "mse_baseline": "mean baseline",
    "within": "Spearman within blocks",
    "within_baseline": "mean baseline",
}


def pseudobulks(adata: ad.AnnData, features_key: str, side: int) -> ad.AnnData:
    """Blocks of `side` x `side` array positions of each section, without those of less than half of their spots."""
    place = adata.obs[["array_row", "array_col"]].round().astype(int) // side
    names = adata.obs["library_id"].astype(str) + "_" + place["array_row"].astype(str) + "_"
    adata.obs["block"] = pd.Categorical(names + place["array_col"].astype(str))
    blocks = h2s.pp.pool_patches(adata, features_key, by="block")
    return blocks[blocks.obs["n_patches"] >= side**2 / 2].copy()


def run(blocks: ad.AnnData, genes: list[str]) -> pd.DataFrame:
    """Hold out one section at a time, and return the scores of each model."""
    rows = []
    for section in blocks.obs["library_id"].cat.categories:
        held_out = blocks.obs["library_id"] == section
        train, test = blocks[~held_out].copy(), blocks[held_out].copy()
        for label, arguments in MODELS.items():
            model = h2s.tl.fit(train, genes=genes, progress=False, **arguments)
            evaluation = h2s.tl.evaluate(test, model, progress=False)
            head, scores = evaluation.headline, evaluation.results["scores"]["log_normalized"]
            rows.append(
                {
                    "model": label,
                    "section": section,
                    "n": test.n_obs,
                    "pearson": head["pearson"],
                    "pearson_baseline": head["mean_baseline"],
                    "pearson_depth": head["depth_baseline"],
                    "mse": scores["model"]["overall"]["mse"],
                    "mse_baseline": scores["mean_baseline"]["overall"]["mse"],
                    "within": head["within_slides_spearman"],
                    "within_baseline": head["within_slides_spearman_mean_baseline"],
                    "epoch": model.training["best_epoch"],
                }
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def as_markdown(tables: dict[str, pd.DataFrame]) -> str:
    """Means over the sections, a row a model and encoder."""
    lines = ["| features | model | " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---:|" * len(COLUMNS)]
    for encoder, table in tables.items():
        means = table.groupby("model", sort=False)[list(COLUMNS)].mean()
        for label, values in means.iterrows():
            lines.append(f"| {encoder} | {label} | " + " | ".join(f"{v:.3f}" for v in values) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmark/slides.md"))
    parser.add_argument("--encoder", nargs="+", default=["morphology", "imagenet"])
    parser.add_argument("--block", type=int, default=3)
    options = parser.parse_args()
    folder = SHARED / "data" / "her2st"
    adata = h2s.datasets.her2st(folder if folder.is_dir() else None)
    panel = (SHARED / "fixtures" / "her_hvg_785.txt").read_text().split()
    genes = [gene for gene in panel if gene in adata.var_names]
    tables = {}
    for encoder in options.encoder:
        h2s.pp.extract_features(adata, encoder, progress=False)
        blocks = pseudobulks(adata, f"X_{encoder}", options.block)
        sizes = np.unique(blocks.obs["library_id"], return_counts=True)[1]
        print(f"{encoder}: {blocks.n_obs} blocks, {sizes.tolist()} of each section, {len(genes)} genes", flush=True)
        tables[encoder] = run(blocks, genes)
    pd.concat(tables, names=["features"]).droplevel(1).to_csv(options.out.with_suffix(".csv"), float_format="%.5g")
    options.out.write_text(as_markdown(tables))
    print(options.out.read_text())


if __name__ == "__main__":
    main()
