"""Cells of Xenium lie on the H&E image, whatever the alignment."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from platform_files import N, colors, counts_of, middle, places, write_10x

from hist2scrna.io import read_xenium

ALIGNMENTS = {
    "same": np.eye(3),
    "scaled and moved": np.array([[1.7, 0, 31.0], [0, 1.7, -12.0], [0, 0, 1]]),
    "turned": np.array([[0, -1.3, 500.0], [1.3, 0, 20.0], [0, 0, 1]]),
    "mirrored": np.array([[-1.0, 0, 600.0], [0, 1.0, 0.0], [0, 0, 1]]),
    "sheared": np.array([[1.2, 0.4, 3.0], [-0.1, 0.9, 7.0], [0, 0, 1]]),
}


def write_xenium(folder: Path, matrix: np.ndarray, *, parquet: bool = True, area: bool = True) -> Path:
    """Cells at the squares of the image, which the matrix maps to the morphology image of 0.2 um a pixel."""
    folder.mkdir()
    names = [f"cell{i}-1" for i in range(N)]
    controls = ["Gene Expression", "Gene Expression", "Gene Expression", "Negative Control Probe"]
    write_10x(folder / "cell_feature_matrix.h5", names, controls)
    microns = (np.column_stack([places(), np.ones(N)]) @ matrix.T)[:, :2] * 0.2
    cells = pd.DataFrame(
        {"cell_id": names, "x_centroid": microns[:, 0], "y_centroid": microns[:, 1], "total_counts": 7}
    )
    if area:
        cells["cell_area"] = np.pi * 25.0
    cells = cells.iloc[::-1]
    if parquet:
        cells.to_parquet(folder / "cells.parquet", index=False)
    else:
        with gzip.open(folder / "cells.csv.gz", "wt") as file:
            cells.to_csv(file, index=False)
    experiment = {"pixel_size": 0.2, "region_name": "R1", "run_name": "run"}
    (folder / "experiment.xenium").write_text(json.dumps(experiment))
    return folder


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_xenium_cells_are_on_the_image(kind, image_file, tmp_path):
    matrix = ALIGNMENTS[kind]
    folder = write_xenium(tmp_path / "outs", matrix, parquet=kind != "same")
    np.savetxt(tmp_path / "alignment.csv", matrix, delimiter=",")
    adata = read_xenium(folder, source_image_path=image_file, alignment=tmp_path / "alignment.csv")
    np.testing.assert_allclose(adata.obsm["spatial"], places(), atol=1e-9)
    assert list(adata.var_names) == ["A", "B", "B-1"]
    np.testing.assert_array_equal(adata.X.toarray(), counts_of(list(adata.obs_names))[:, :3])
    assert adata.obs["library_id"].unique().tolist() == ["R1_run"]
    assert adata.obs["total_counts"].tolist() == [7] * N
    np.testing.assert_array_equal(middle(adata, patch_um=2), colors())
    factors = adata.uns["spatial"]["R1_run"]["scalefactors"]
    area = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    assert factors["mpp"] == pytest.approx(0.2 * area**0.5)
    assert factors["spot_diameter_fullres"] * factors["mpp"] == pytest.approx(10.0)


def test_xenium_without_image(image_file, tmp_path):
    folder = write_xenium(tmp_path / "outs", np.eye(3), area=False)
    adata = read_xenium(folder, library_id="mine")
    assert adata.uns["spatial"]["mine"]["scalefactors"] == {"mpp": 0.2}
    np.testing.assert_array_equal(middle(adata, image=image_file, patch_um=2), colors())
    with pytest.raises(ValueError, match=r"together.*numpy.eye\(3\)"):
        read_xenium(folder, source_image_path=image_file)
    for matrix, message in ((np.zeros((3, 3)), "last row"), (np.diag([1, 0, 1]), "cannot be inverted")):
        with pytest.raises(ValueError, match=message):
            read_xenium(folder, source_image_path=image_file, alignment=matrix)
    (tmp_path / "words.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="words.csv' is no matrix"):
        read_xenium(folder, source_image_path=image_file, alignment=tmp_path / "words.csv")
    (folder / "experiment.xenium").write_text("{}")
    with pytest.raises(ValueError, match="does not tell the size of a pixel"):
        read_xenium(folder)
    (folder / "cells.parquet").unlink()
    (folder / "experiment.xenium").write_text('{"pixel_size": 0.2}')
    with pytest.raises(FileNotFoundError, match="No table of cells"):
        read_xenium(folder)
