"""Fit the models that the package ships, on all sections at hand.

python benchmarks/published.py [--out hist2scrna/models/published_models]

`her2-breast`: B4 and C2 to C6 of her2st with their images, and the counts of donors D to H. Genes: in a tenth of the
spots of each donor with images. Figures on a donor left out are those of `benchmarks/peers.py --data donors`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import anndata as ad
import numpy as np

import hist2scrna as h2s

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PACKAGE = Path(h2s.__file__).parent
LEAST_DETECTED = 0.1
NOTES = {
    "tissue": "HER2-positive breast cancer, H&E, spots of 100 um (Spatial Transcriptomics)",
    "data": "her2st: Andersson et al., Nature Communications 12:6012 (2021), doi:10.1038/s41467-021-26271-2",
    "data license": "CC BY 4.0",
    "donors": "B and C with images; D to H with counts alone",
    "not for": "diagnosis, treatment, or any decision about a patient; other tissue, stains or species",
}


def folder(name: str) -> Path | None:
    """Return the files at hand, or None to download them."""
    return SHARED / name if (SHARED / name).is_dir() else None


def measured_well(adata: ad.AnnData) -> list[str]:
    """Return the genes that each donor has in a tenth of its spots."""
    kept = np.ones(adata.n_vars, dtype=bool)
    for donor in adata.obs["donor"].cat.categories:
        counts = adata.X[(adata.obs["donor"] == donor).to_numpy()]
        kept &= np.asarray((counts > 0).mean(axis=0)).ravel() >= LEAST_DETECTED
    return list(adata.var_names[kept])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PACKAGE / "models" / "published_models")
    out = parser.parse_args().out
    adata = h2s.datasets.her2st(folder("her2st"), sections=["B4", "C2", "C3", "C4", "C5", "C6"])
    others = h2s.datasets.her2st_counts(folder("her2st_counts"))
    genes = measured_well(adata)
    model = h2s.tl.fit(adata, model="kernel", genes=genes, labels_key="cell_type", group_key="donor", expression=others)
    notes = out / "her2-breast" / "notes.json"
    # A model replaces nothing but a model.
    notes.unlink(missing_ok=True)
    model.save(notes.parent, overwrite=True)
    notes.write_text(json.dumps({**NOTES, "genes": len(genes)}, indent=1) + "\n")
    print(model)


if __name__ == "__main__":
    main()
