"""What each part of the kernel model is worth: one part changed at a time, on HER2ST and on the olfactory bulb.

python benchmarks/kernel_parts.py [--out benchmarks/results/kernel_parts] [--data her2st mob] [--fold NAME ...]
                                  [--publish docs/benchmark]

The features of the three fields of view are computed once; each row is then the model `kernel` on features
with one thing changed: in the first three rows what is made of the counts, in
the others what log-normalized expression is estimated from, which does not depend on the counts' distribution. With
fewer spots than landmarks it is solved exactly, and the seed changes nothing: intervals are over the sections held out.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import peers
import torch

import hist2scrna as h2s
from hist2scrna.encoders.efficientnet import VARIANTS
from hist2scrna.encoders.imagenet import FIELDS_OF_VIEW, NETWORKS, STATISTICS, imagenet_encoder

KERNEL: dict[str, Any] = {"model": "kernel", "features_key": "X_imagenet"}
# Log-normalized expression is estimated as well as the counts, in the same way: without them it is as good, and sooner.
EXPRESSION: dict[str, Any] = {**KERNEL, "likelihood": "mse"}
WHOLE = "kernel, whole"
MODELS: dict[str, dict[str, Any]] = {
    WHOLE: KERNEL,
    "negative binomial": {**KERNEL, "likelihood": "nb"},
    "Poisson": {**KERNEL, "likelihood": "poisson"},
    "expression alone": EXPRESSION,
    "patch on the spot alone": {**EXPRESSION, "features_key": "X_spot"},
    "without the widest view": {**EXPRESSION, "features_key": "X_narrow"},
    "widest view alone": {**EXPRESSION, "features_key": "X_wide"},
    "the last stage alone": {**EXPRESSION, "features_key": "X_last_stage"},
    "means alone": {**EXPRESSION, "features_key": "X_means"},
    "the smaller network alone": {**EXPRESSION, "features_key": "X_lite0"},
    "the larger network alone": {**EXPRESSION, "features_key": "X_lite2"},
    "random weights": {**EXPRESSION, "features_key": "X_random"},
    "features by hand": {**EXPRESSION, "features_key": "X_morphology"},
    "features by hand joined": {**EXPRESSION, "features_key": "X_joined"},
    "1 program": {**EXPRESSION, "n_programs": 1},
    "3 programs": {**EXPRESSION, "n_programs": 3},
    "30 programs": {**EXPRESSION, "n_programs": 30},
    "100 landmarks": {**EXPRESSION, "n_landmarks": 100},
    "ridge by gene": {"model": "ridge", "features_key": "X_imagenet"},
    "network on the features": {"model": "hist2scrna-lightweight", "features_key": "X_imagenet", **peers.OURS},
}


def add_features(adata: ad.AnnData) -> None:
    """Write the features of all rows to `.obsm`."""
    for key, pretrained in (("X_imagenet", True), ("X_random", False)):
        torch.manual_seed(0)
        encoder = imagenet_encoder(pretrained=pretrained)
        h2s.pp.extract_features(adata, encoder, key_added=key, library_key="library_id", batch_size=64)
    h2s.pp.morphology_features(adata, library_key="library_id")
    of = pd.DataFrame(
        [
            (view, network, stage, statistic)
            for view in FIELDS_OF_VIEW
            for network in NETWORKS
            for stage, channels in enumerate(VARIANTS[network].channels[-2:], start=4)
            for statistic in range(len(STATISTICS))
            for _ in range(channels)
        ],
        columns=["view", "network", "stage", "statistic"],
    )
    imagenet = adata.obsm["X_imagenet"]
    for key, kept in {
        "X_spot": of["view"] == FIELDS_OF_VIEW[0],
        "X_narrow": of["view"] < FIELDS_OF_VIEW[-1],
        "X_wide": of["view"] == FIELDS_OF_VIEW[-1],
        "X_last_stage": of["stage"] == 5,
        "X_means": of["statistic"] < 2,
        "X_lite0": of["network"] == "lite0",
        "X_lite2": of["network"] == "lite2",
    }.items():
        adata.obsm[key] = imagenet[:, kept.to_numpy()]
    adata.obsm["X_joined"] = np.concatenate([imagenet, adata.obsm["X_morphology"]], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernel_parts"))
    parser.add_argument("--data", nargs="+", default=["her2st", "mob"], choices=["her2st", "mob"])
    parser.add_argument("--fold", nargs="+", help="hold out these sections alone")
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    for name in options.data:
        adata, panel = {"her2st": peers.her2st, "mob": peers.mob}[name]()
        sections = list(adata.obs["library_id"].astype("category").cat.categories)
        folds = [fold for fold in sections if options.fold is None or fold in options.fold]
        add_features(adata)
        h2s.tl.benchmark({name: adata}, MODELS, folder=options.out / name, folds=folds, **panel)
        if options.publish is not None:
            shutil.copyfile(options.out / name / "table.md", options.publish / f"few_{name}.md")
            shutil.copyfile(options.out / name / "jobs.csv", options.publish / f"few_{name}.csv")
        print((options.out / name / "table.md").read_text())


if __name__ == "__main__":
    main()
