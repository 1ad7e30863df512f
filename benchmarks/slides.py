"""hist2RNA, ridge and kernel on pseudobulks: blocks of 3 x 3 spots of HER2ST C2 to C6, one section held out.

python benchmarks/slides.py [--out benchmarks/results/slides] [--encoder morphology imagenet] [--block 3]
                            [--publish docs/benchmark]

No slides with measured bulk expression are at hand, so blocks of spots stand for slides: the features of a block are
the mean over its spots, its expression is the sum of their counts. All sections are of one tumor of one patient.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
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


def pseudobulks(adata: ad.AnnData, features_key: str, side: int) -> ad.AnnData:
    """Blocks of `side` x `side` array positions of each section, without those of less than half of their spots."""
    place = adata.obs[["array_row", "array_col"]].round().astype(int) // side
    names = adata.obs["library_id"].astype(str) + "_" + place["array_row"].astype(str) + "_"
    adata.obs["block"] = pd.Categorical(names + place["array_col"].astype(str))
    blocks = h2s.pp.pool_patches(adata, features_key, by="block")
    return blocks[blocks.obs["n_patches"] >= side**2 / 2].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/slides"))
    parser.add_argument("--encoder", nargs="+", default=["morphology", "imagenet"])
    parser.add_argument("--block", type=int, default=3)
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    folder = SHARED / "data" / "her2st"
    adata = h2s.datasets.her2st(folder if folder.is_dir() else None)
    panel = (SHARED / "fixtures" / "her_hvg_785.txt").read_text().split()
    genes = [gene for gene in panel if gene in adata.var_names]
    blocks = {}
    for encoder in options.encoder:
        h2s.pp.extract_features(adata, encoder)
        blocks[encoder] = pseudobulks(adata, f"X_{encoder}", options.block)
        sizes = blocks[encoder].obs["library_id"].value_counts(sort=False)
        print(f"{encoder}: {sizes.sum()} blocks, {sizes.to_dict()}, {len(genes)} genes", flush=True)
    h2s.tl.benchmark(blocks, MODELS, folder=options.out, genes=genes, library_key="library_id")
    if options.publish is not None:
        for source, target in (("table.md", "slides.md"), ("jobs.csv", "slides.csv")):
            shutil.copyfile(options.out / source, options.publish / target)
    print((options.out / "table.md").read_text())


if __name__ == "__main__":
    main()
