"""Every model on another donor, and on serial sections, one held out at a time.

python benchmarks/peers.py [--out benchmarks/results] [--data donors her2st mob] [--model LABEL ...] [--fold NAME ...]
                           [--all-folds] [--publish docs/benchmark]

`donors`: HER2ST C2 to C6 train and B4, of another patient, is predicted; and the other way round. `her2st`: C2 to C6,
serial sections of one tumor. `mob`: MOB1 to MOB3 of mouse olfactory bulb.

Interrupted and started again it goes on. Models that take hours on a CPU run on the folds named in `MODELS` unless
`--all-folds` is given. `hist2st`, `histogene` and `transformerst` train by their published schedules, `stnet` and our
networks until the validation loss stops falling, `ridge` and `kernel` are solved. HER2ST: the 785 genes of Hist2ST and
HisToGene. MOB: the 785 genes of highest variance in the training sections of each fold. The sections of `her2st` and of
`mob` are of one patient, or one mouse strain: they measure transfer between sections, not between patients.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anndata as ad
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

import hist2scrna as h2s

SHARED = Path(__file__).resolve().parents[2] / "shared"
N_GENES = 785
PER_ROW = 3
SERIAL = ["C2", "C3", "C4", "C5", "C6"]
# Of donors: C2 to C6 are of donor C, B4 of donor B.
SPLITS = {"C to B4": (["C"], ["B"]), "B4 to C": (["B"], ["C"])}
OURS = {"preset": "tiny", "training": {"max_epochs": 60, "patience": 20, "lr": 1e-3}}
HALF = {"precision": "bf16-mixed"}
# What there was time for on two CPU cores.
SLOW_FOLDS, SLOWEST_FOLDS = ["C to B4", "C2", "MOB1"], ["C to B4", "C2"]
MODELS: dict[str, dict[str, Any]] = {
    "kernel": {"model": "kernel"},
    "hist2scrna": {"model": "hist2scrna", "patch_px": 96, **OURS, "folds": SLOW_FOLDS},
    "hist2scrna-lightweight (morphology)": {
        "model": "hist2scrna-lightweight",
        "features_key": "X_morphology",
        **OURS,
    },
    "ridge (morphology)": {"model": "ridge", "features_key": "X_morphology"},
    "stnet": {"model": "stnet", "training": HALF},
    "histogene": {"model": "histogene", "training": HALF},
    # As published, only the head learns; full trains all weights.
    "transformerst": {"model": "transformerst", "training": HALF, "folds": SLOW_FOLDS},
    "transformerst, full": {"model": "transformerst", "preset": "full", "training": HALF, "folds": SLOW_FOLDS},
    "hist2st": {"model": "hist2st", "training": HALF, "folds": SLOWEST_FOLDS},
    # Four sections make an eighth of the published steps: ten times the rate, until validation is best.
    "hist2st, 10 x rate": {
        "model": "hist2st",
        "training": {**HALF, "lr": 1e-4, "validation": 0.25, "patience": 30},
        "folds": SLOWEST_FOLDS,
    },
}


def her2st(sections: Sequence[str] = SERIAL) -> tuple[ad.AnnData, dict[str, Any]]:
    folder = SHARED / "data" / "her2st"
    adata = h2s.datasets.her2st(folder if folder.is_dir() else None, sections=sections)
    panel = (SHARED / "fixtures" / "her_hvg_785.txt").read_text().split()
    return adata, {"genes": [gene for gene in panel if gene in adata.var_names]}


def donors() -> tuple[ad.AnnData, dict[str, Any]]:
    adata, panel = her2st(["B4", *SERIAL])
    return adata, {**panel, "group_key": "donor", "splits": SPLITS}


def mob() -> tuple[ad.AnnData, dict[str, Any]]:
    sections = {path.stem: ad.read_h5ad(path) for path in sorted((SHARED / "data" / "mob").glob("MOB*.h5ad"))}
    adata = ad.concat(sections, label="library_id", index_unique="_", uns_merge="unique", merge="same")
    return adata, {"n_genes": N_GENES}


DATA: dict[str, Callable[[], tuple[ad.AnnData, dict[str, Any]]]] = {"donors": donors, "her2st": her2st, "mob": mob}


def publish(results: Path, name: str, pages: Path) -> None:
    """Put the table, the rows, the picture and the learning curves of a data set where the documentation shows them."""
    pages.mkdir(parents=True, exist_ok=True)
    for source, target in (("table.md", f"{name}.md"), ("jobs.csv", f"{name}.csv"), ("benchmark.png", f"{name}.png")):
        shutil.copyfile(results / source, pages / target)
    jobs = pd.read_csv(results / "jobs.csv")
    curves = []
    complete = jobs[(jobs["kind"] == "model") & (jobs["status"] == "complete")]
    # A given split is fitted once for all of its test sections.
    complete = complete.assign(fold=complete["split"].where(complete["split"].isin(SPLITS), complete["fold"]))
    for row in complete.drop_duplicates(["fold", "model", "seed"]).itertuples():
        path = results / name / row.fold / quote(row.model, safe=" +=,()") / str(int(row.seed)) / "history.csv"
        curves.append(pd.read_csv(path).assign(fold=row.fold, model=row.model, seed=int(row.seed)))
    history = pd.concat(curves, ignore_index=True)
    history.to_csv(pages / f"{name}_curves.csv", index=False, float_format="%.5g")
    draw_curves(history, pages / f"{name}_curves.png")


def draw_curves(history: pd.DataFrame, path: Path) -> None:
    """Draw the losses by epoch of each model that is trained by gradient."""
    trained = [model for model, own in history.groupby("model", sort=False) if "penalty" not in own.dropna(axis=1)]
    colors = {fold: f"C{i}" for i, fold in enumerate(sorted(history["fold"].unique()))}
    n_rows = -(-len(trained) // PER_ROW)
    figure, axes = plt.subplots(
        n_rows, PER_ROW, figsize=(3.2 * PER_ROW, 2.8 * n_rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(trained) :]:
        ax.set_visible(False)
    for ax, model in zip(axes.flat, trained, strict=False):
        for (fold, _), own in history[history["model"] == model].groupby(["fold", "seed"]):
            ax.plot(own["epoch"], own["train_expression"], lw=1, color=colors[fold])
            if own["validation_expression"].notna().any():
                ax.plot(own["epoch"], own["validation_expression"], ls="--", lw=1, color=colors[fold])
        ax.set_title(model, fontsize=8)
        ax.set(xlabel="epoch")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("expression loss\n(training; dashed: validation)")
    lines = [Line2D([], [], color=color, lw=1) for color in colors.values()]
    axes.flat[len(trained) - 1].legend(lines, colors, fontsize="small", frameon=False, title="held out")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--fold", nargs="+", help="hold out these sections alone, or run these splits alone")
    parser.add_argument("--all-folds", action="store_true", help="run slow models on every fold too")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    for name in options.data:
        adata, asked = DATA[name]()
        sections = list(adata.obs["library_id"].astype("category").cat.categories)
        splits = asked.pop("splits", None)
        folds = [one for one in splits or sections if options.fold is None or one in options.fold]
        if not folds:
            continue
        given = {"folds": folds} if splits is None else {"splits": {split: splits[split] for split in folds}}
        h2s.pp.morphology_features(adata, library_key="library_id")
        models = {}
        for label in options.model:
            model = dict(MODELS[label])
            own = folds if options.all_folds else [fold for fold in model.pop("folds", folds) if fold in folds]
            model.pop("folds", None)
            if own:
                models[label] = {**model, "folds": own}
        h2s.tl.benchmark({name: adata}, models, folder=options.out / name, seeds=options.seed, **given, **asked)
        h2s.pl.benchmark(options.out / name, save=options.out / name / "benchmark.png")
        if options.publish is not None:
            publish(options.out / name, name, options.publish)
        print((options.out / name / "table.md").read_text())


if __name__ == "__main__":
    main()
