"""AnnData of every shape and type that a file may hold, drawn by Hypothesis."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from hypothesis import strategies as st
from scipy import sparse

DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int16", "int64", "uint64", "bool", "complex64"]
FORMS = [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array]
SPOILED = [np.nan, np.inf, -np.inf, -1.0, 0.5, 2.0**24 + 1, 1e30]
FACTORS = [1.0, 0.5, 2.0, 0.0, -1.0, np.nan, 1e-9, 1e9, "1", None, np.array([1.0]), [1, 2]]


@st.composite
def matrices(draw: st.DrawFn, n: int, m: int) -> object:
    """Counts, or what is none, of any type and form."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.poisson(draw(st.sampled_from([0.0, 0.3, 5.0])), (n, m)).astype(np.float64)
    if values.size and draw(st.integers(0, 3)) == 0:
        values.flat[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from(SPOILED))
    with np.errstate(all="ignore"):
        values = values.astype(draw(st.sampled_from(DTYPES[:2] * 4 + DTYPES)))
    form = draw(st.sampled_from(FORMS))
    return form(values) if form is np.asarray or values.dtype != np.float16 else values


@st.composite
def coordinates(draw: st.DrawFn, n: int) -> object:
    """Places on a lattice, or what are none."""
    xy = np.stack([np.arange(n) % 4, np.arange(n) // 4], axis=1) * 30.0 + 30
    match draw(st.integers(0, 9)):
        case 0:
            xy = xy[:, : draw(st.integers(0, 1))]
        case 1:
            xy = np.column_stack([xy, np.zeros(n)])
        case 2 if n:
            xy[draw(st.integers(0, n - 1)), 0] = draw(st.sampled_from([np.nan, np.inf, -1e9, 1e30]))
        case 3:
            xy[:] = 30
        case 4:
            return pd.DataFrame(xy, index=[f"s{i}" for i in range(n)], columns=["x", "y"])
        case 5:
            xy = xy * draw(st.sampled_from([1e-6, 1e6, -1.0]))
    return xy.astype(draw(st.sampled_from(["float64", "float32", "int64", "uint8", "complex128"] + ["float64"] * 6)))


@st.composite
def images(draw: st.DrawFn) -> object:
    """An image of H&E in any array, or what is none."""
    shape = draw(
        st.sampled_from([(150, 170, 3)] * 5 + [(150, 170), (150, 170, 4), (150, 170, 2), (0, 9, 3), (3, 150, 170)])
    )
    pixels = np.random.default_rng(0).integers(0, 255, shape)
    kind = draw(st.sampled_from(["uint8"] * 6 + ["uint16", "float32", "float64", "int32", "bool"]))
    return (pixels / 255).astype(kind) if kind.startswith("float") else pixels.astype(kind)


@st.composite
def anndatas(draw: st.DrawFn) -> ad.AnnData:
    """A section, of which something or other may be wrong."""
    n, m = draw(st.sampled_from([0, 1, 2, 3, 12, 12, 12, 12])), draw(st.sampled_from([0, 1, 2, 5, 5, 5]))
    obs = pd.DataFrame(index=[f"s{i}" for i in range(n)])
    names = draw(st.sampled_from([["a"], ["a"], ["a", "b"], ["", "a"], [1, 2], [None, "a"], [np.nan], [True, False]]))
    obs["library_id"] = pd.Series([names[i % len(names)] for i in range(n)], index=obs.index, dtype=object)
    if draw(st.booleans()):
        obs["library_id"] = obs["library_id"].astype("category")
    types = draw(st.sampled_from([["t", "u"], ["t"], [None], [1, "1"], [1.5, np.nan]]))
    obs["cell_type"] = pd.Series([types[i % len(types)] for i in range(n)], index=obs.index, dtype=object)
    genes = draw(st.sampled_from([[f"g{i}" for i in range(m)], ["g"] * m, [str(i) for i in range(m)]]))
    adata = ad.AnnData(
        X=None if draw(st.integers(0, 9)) == 0 else draw(matrices(n, m)), obs=obs, var=pd.DataFrame(index=genes)
    )
    adata.obsm["spatial"] = draw(coordinates(n))
    adata.obsm["X_f"] = np.random.default_rng(1).normal(size=(n, draw(st.sampled_from([0, 1, 4])))).astype("float32")
    factors = {
        "tissue_hires_scalef": draw(st.sampled_from([1.0] * 12 + FACTORS)),
        "spot_diameter_fullres": draw(st.sampled_from([20.0] * 12 + FACTORS)),
    }
    entry = {"images": {"hires": draw(images())}, "scalefactors": factors}
    libraries = draw(st.sampled_from([["a"], ["a"], ["a", "b"], [], ["is_single"]]))
    adata.uns["spatial"] = {name: True if name == "is_single" else dict(entry) for name in libraries}
    if n and draw(st.integers(0, 5)) == 0:
        weights = np.diag(np.full(n - 1, draw(st.sampled_from([1.0, np.nan, -1.0, 0.0]))), 1)
        adata.obsp["spatial_connectivities"] = sparse.csr_matrix(weights)
    return adata[: max(0, n - 1)] if draw(st.integers(0, 9)) == 0 else adata
