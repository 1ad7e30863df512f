"""Single nuclei of an HER2ST section from the counts of its spots: segmentation, spot mode, prediction, a picture.

python benchmarks/spots_to_nuclei.py FOLDER [--section C2] [--epochs 10] [--genes 30] [--held-out 0.3]
    [--tile-px 160] [--nuclei nuclei.h5ad] [--out nuclei.png]

`ghist` (`tiny`, negative binomial) is fitted to the spots on the left of the section, whose nuclei `pp.segment_nuclei`
finds; the spots on the right, which it never saw, are scored beside the baselines. Then the nuclei in a window of them
are predicted, and drawn with their predicted counts of ERBB2 (or of the gene with most counts) on the image.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import anndata as ad
import numpy as np

import hist2scrna as h2s
from hist2scrna.images.open import open_file

SPOT_UM, TILE_UM, WINDOW_UM = 100.0, 112.0, 800.0


def nuclei_of(spots: ad.AnnData, section: str, cache: Path | None) -> ad.AnnData:
    """Return the nuclei of the section, from the cache where there is one."""
    if cache is not None and cache.exists():
        return ad.read_h5ad(cache)
    entry = spots.uns["spatial"][section]
    mpp = SPOT_UM / entry["scalefactors"]["spot_diameter_fullres"]
    nuclei = h2s.pp.segment_nuclei(entry["metadata"]["source_image_path"], mpp=mpp, library_id=section)
    if cache is not None:
        nuclei.write_h5ad(cache)
    return nuclei


def draw(nuclei: ad.AnnData, image: np.ndarray, corner: np.ndarray, gene: str, out: Path) -> None:
    """Draw the window beside the nuclei in it, colored by a predicted count."""
    from matplotlib import pyplot as plt

    values = np.asarray(nuclei[:, gene].layers["hist2scrna_mean"]).ravel()
    figure, axes = plt.subplots(1, 2, figsize=(14, 7), sharex=True, sharey=True)
    for axis in axes:
        axis.imshow(image)
        axis.axis("off")
    xy = nuclei.obsm["spatial"] - corner
    shown = axes[1].scatter(*xy.T, c=values, s=14, cmap="viridis", vmax=np.quantile(values, 0.98))
    figure.colorbar(shown, ax=axes, shrink=0.7, label=f"predicted count of {gene}")
    figure.savefig(out, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--section", default="C2")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--genes", type=int, default=30)
    parser.add_argument("--held-out", type=float, default=0.3)
    parser.add_argument("--tile-px", type=int, default=160)
    parser.add_argument("--nuclei", type=Path, help="File that keeps the nuclei between runs.")
    parser.add_argument("--out", type=Path, default=Path("nuclei.png"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.INFO)
    spots = h2s.datasets.her2st(options.folder, sections=[options.section])
    depth = np.asarray(spots.X.sum(axis=0)).ravel()
    spots = spots[:, np.sort(np.argsort(-depth)[: options.genes])].copy()
    nuclei = nuclei_of(spots, options.section, options.nuclei)
    x = spots.obsm["spatial"][:, 0]
    border = np.quantile(x, 1 - options.held_out)
    train, test = spots[x <= border].copy(), spots[x > border].copy()
    model = h2s.tl.fit(
        train,
        model="ghist",
        preset="tiny",
        nuclei=nuclei,
        likelihood="nb",
        tile_px=options.tile_px,
        tile_um=TILE_UM,
        training={"max_epochs": options.epochs, "validation": 0},
    )
    print(h2s.tl.evaluate(test, model, nuclei=nuclei))
    mpp = SPOT_UM / spots.uns["spatial"][options.section]["scalefactors"]["spot_diameter_fullres"]
    side = int(WINDOW_UM / mpp)
    corner = np.median(test.obsm["spatial"], axis=0).astype(int) - side // 2
    here = ((nuclei.obsm["spatial"] >= corner) & (nuclei.obsm["spatial"] < corner + side)).all(axis=1)
    predicted = h2s.tl.predict(nuclei[here].copy(), model)
    gene = "ERBB2" if "ERBB2" in predicted.var_names else spots.var_names[np.argmax(spots.X.sum(axis=0))]
    path = spots.uns["spatial"][options.section]["metadata"]["source_image_path"]
    image = open_file(path)
    draw(predicted, image.read(0, *corner.tolist(), side, side), corner, gene, options.out)
    print(f"{predicted.n_obs} nuclei of {nuclei.n_obs} drawn in {options.out}")


if __name__ == "__main__":
    main()
