"""Leave one section of HER2ST out: fit on the others, predict it without its expression, score beside the nulls.

python benchmarks/her2st.py [--test C2] [--preset tiny] [--patch-px 96] [--epochs 60] [--lr 1e-3] [--out her2st-C2]

C2 to C6 are serial sections of one tumour: this measures transfer between sections of a patient, not between patients.
785 genes, log(1 + 1e4 x / total over them), unsmoothed. Cell types are the arg-max of proportions deconvolved from the
same counts: a weak label.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import scanpy as sc

import hist2scrna as h2s

SHARED = Path(__file__).resolve().parents[2] / "shared"
SECTIONS = ("C2", "C3", "C4", "C5", "C6")


def without_expression(section: ad.AnnData) -> ad.AnnData:
    """Keep the picture, the coordinates and the names of the spots."""
    return ad.AnnData(obs=section.obs[["library_id"]], obsm={"spatial": section.obsm["spatial"]}, uns=section.uns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=SHARED / "data" / "her2st", help="folder with the sections")
    parser.add_argument("--panel", type=Path, default=SHARED / "fixtures" / "her_hvg_785.txt", help="a gene a line")
    parser.add_argument("--test", default="C2", choices=SECTIONS)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--patch-px", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--likelihood", default="zinb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    adata = h2s.datasets.her2st(options.folder if options.folder.is_dir() else None)
    adata = adata[:, [g for g in options.panel.read_text().split() if g in adata.var_names]].copy()
    train = adata[adata.obs["library_id"] != options.test].copy()
    test = adata[adata.obs["library_id"] == options.test].copy()

    start = time.perf_counter()
    model = h2s.tl.fit(
        train,
        preset=options.preset,
        patch_px=options.patch_px,
        labels_key="cell_type",
        library_key="library_id",
        likelihood=options.likelihood,
        max_epochs=options.epochs,
        patience=max(10, options.epochs // 3),
        lr=options.lr,
        graph=not options.no_graph,
        seed=options.seed,
    )
    fitted = time.perf_counter()
    predicted = model.predict(without_expression(test))
    print(model)
    print(f"fit {fitted - start:.0f} s, predict {time.perf_counter() - fitted:.0f} s")

    sc.pp.neighbors(predicted, use_rep="X_hist2scrna")
    sc.tl.leiden(predicted, flavor="igraph", n_iterations=2, resolution=0.5)
    print(f"Leiden on the embedding: {predicted.obs['leiden'].nunique()} clusters")

    evaluation = h2s.tl.evaluate(test, model, labels_key="cell_type")
    print(evaluation)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        model.save(options.out / "model", overwrite=True)
        evaluation.to_json(options.out / "metrics.json")
        scored = model.predict(test)
        best = evaluation.genes["pearson"].nlargest(3).index.tolist()
        h2s.pl.spatial_compare(scored, best, save=options.out / "spatial.png")
        h2s.pl.history(model, save=options.out / "history.png")
        print(f"written to {options.out}/")


if __name__ == "__main__":
    main()
