"""Small folders as Space Ranger writes them, with an image whose colors tell the spots."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from builders import spots_of
from PIL import Image
from scipy import sparse

pytestmark = pytest.mark.filterwarnings("ignore:A spot of section:UserWarning")


WIDTH, HEIGHT = 420, 260


N, GENES = 12, ("A", "B", "B", "C")


HEADER = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"


def colors(n: int = N) -> np.ndarray:
    """A color of its own for each spot."""
    return np.stack([np.linspace(20, 230, n), np.linspace(230, 20, n), np.arange(n) % 3 * 80 + 20], axis=1).astype(
        np.uint8
    )


def places(n: int = N) -> np.ndarray:
    """Where the spots are, (x, y): four columns, three rows; no two have x and y exchanged."""
    return np.stack([40 + 100 * (np.arange(n) % 4), 30 + 90 * (np.arange(n) // 4)], axis=1) + 0.5


def draw_squares(size: int = 24) -> np.ndarray:
    """A landscape image with a square of its own color at each spot."""
    pixels = np.full((HEIGHT, WIDTH, 3), 250, dtype=np.uint8)
    for (x, y), color in zip(places().astype(int), colors(), strict=True):
        pixels[y - size // 2 : y + size // 2, x - size // 2 : x + size // 2] = color
    return pixels


def middle(adata: ad.AnnData, **options) -> np.ndarray:
    """Color in the middle of each patch, `(n, 3)`."""
    spots = spots_of(adata, **{"library_key": None, "spatial_key": "spatial", "patch_px": 9, **options})
    return spots.patches.read(np.arange(adata.n_obs))[:, :, 4, 4].astype(int)


def counts_of(names: list[str]) -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, (len(names), len(GENES)))


def write_10x(path: Path, names: list[str], types: list[str] | None = None, **attributes) -> None:
    """The HDF5 file of 10x Genomics, version 3: features x barcodes, compressed by column."""
    matrix = sparse.csc_matrix(counts_of(names).T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(names, dtype="S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = matrix.shape
        features = group.create_group("features")
        features["id"] = np.array([f"ENS{i}" for i in range(len(GENES))], dtype="S")
        features["name"] = np.array(GENES, dtype="S")
        features["feature_type"] = np.array(types or ["Gene Expression"] * len(GENES), dtype="S")
        features["genome"] = np.array(["GRCh38"] * len(GENES), dtype="S")
        features["_all_tag_keys"] = np.array(["genome"], dtype="S")
        for key, value in attributes.items():
            file.attrs[key] = value


def barcodes() -> list[str]:
    return [f"{c}-1" for c in np.random.default_rng(3).permutation([f"BARCODE{i:02d}" for i in range(N)])]


def positions(names: list[str]) -> pd.DataFrame:
    x, y = places().T
    table = pd.DataFrame(
        dict(zip(HEADER.split(","), (names, 1, np.arange(N) // 4, np.arange(N) % 4 * 2, y, x), strict=True))
    )
    off = table.iloc[[0]].assign(barcode="OFF-1", in_tissue=0)
    return pd.concat([off, table]).sample(frac=1, random_state=0)


def write_section(folder: Path, names: list[str], *, kind: str = "csv", hires: float = 0.5, **factors: float) -> Path:
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    write_10x(
        folder / "filtered_feature_bc_matrix.h5",
        names,
        library_ids=np.array([b"lib"]),
        chemistry_description="Visium V1",
        software_version="3.1.0",
    )
    table = positions(names)
    if kind == "parquet":
        table.to_parquet(spatial / "tissue_positions.parquet", index=False)
    elif kind == "list":
        table.to_csv(spatial / "tissue_positions_list.csv", index=False, header=False)
    else:
        table[table.columns[::-1] if kind == "reversed" else table.columns].to_csv(
            spatial / "tissue_positions.csv", index=False
        )
    whole = Image.fromarray(draw_squares())
    for name, scale in (("hires", hires), ("lowres", hires / 2)):
        whole.resize((round(WIDTH * scale), round(HEIGHT * scale))).save(spatial / f"tissue_{name}_image.png")
        factors[f"tissue_{name}_scalef"] = scale
    (spatial / "scalefactors_json.json").write_text(json.dumps({"spot_diameter_fullres": 20.0, **factors}))
    return folder
