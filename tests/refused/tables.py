"""Refused counts, genes, features, labels: what stands in the table of AnnData."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from refused.case import counts_of, evaluate, fit, on_features, one_count, predict, slot
from scipy import sparse

NAMES = [f"s0_{i}" for i in range(40)]


def _normalized(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray() / 3)


def _in_raw(adata):
    adata.raw = adata.copy()
    adata.X = np.log1p(adata.X.toarray() / 3)


def _no_x(adata):
    return ad.AnnData(obs=adata.obs, var=adata.var, obsm=dict(adata.obsm), uns=dict(adata.uns))


def _points_outside(adata):
    adata.X = sparse.csr_matrix(adata.X)
    adata.X.indices[3] = 999


def _twice(adata):
    adata.var_names = ["g0", "g0", *adata.var_names[2:]]


def _symbols(adata):
    adata.var["feature_name"] = [f"SYM{i}" for i in range(adata.n_vars)]


def _renamed(adata):
    adata.var_names = [f"other{i}" for i in range(adata.n_vars)]


def _features(function):
    return slot("obsm", "f", function)


def _few_nan(values):
    values[:20, 3] = np.nan
    return values


def _labels(values):
    return slot("obs", "label", values)


def _layer(value):
    def change(adata):
        adata.layers["hist2scrna_mean"] = np.full(adata.shape, value, dtype=np.float32)

    return change


def _with_a_hole(adata):
    _layer(1.0)(adata)
    adata.layers["hist2scrna_mean"][3, 2] = np.nan


def _none_modeled(adata):
    _layer(1.0)(adata)
    adata.var["hist2scrna_modeled"] = False


COUNTS = {
    "fractions": fit(one_count(0.5)),
    "log-normalized, with the counts in a layer": fit(_normalized),
    "log-normalized, with the counts in `.raw`": fit(_in_raw),
    "negative": fit(one_count(-2)),
    "NaN": fit(one_count(np.nan)),
    "infinite": fit(one_count(np.inf)),
    "complex": fit(counts_of(lambda counts: counts.astype(complex)), shell=False),
    "words": fit(counts_of(lambda counts: counts.astype(str)), shell=False),
    "objects": fit(counts_of(lambda counts: counts.astype(object)), shell=False),
    "above 2^24": fit(one_count(2**24 + 1)),
    "far above any count": fit(one_count(1e300)),
    "zero in every spot": fit(counts_of(lambda counts: counts * 0)),
    "no matrix": fit(_no_x),
    "a layer that is missing": fit(None, KeyError, layer="counts"),
    "no spot": fit(lambda adata: adata[:0].copy()),
    "one spot": fit(lambda adata: adata[:1].copy()),
    "a sparse matrix that points outside": fit(_points_outside, shell=False),
    "predictions that are NaN in some genes": evaluate(_with_a_hole, model=None),
    "predictions below zero": evaluate(_layer(-1.0), model=None),
}
GENES = {
    "none in AnnData": fit(lambda adata: adata[:, :0].copy()),
    "an empty list": fit(shell=False, genes=[]),
    "names that are missing": fit(None, KeyError, shell=False, genes=["g1", "ERBB2"]),
    "names that stand in a column of `.var`": fit(_symbols, KeyError, shell=False, genes=["SYM1", "SYM2"]),
    "names that occur twice in AnnData": fit(_twice),
    "a name given twice": fit(shell=False, genes=["g1", "g1"]),
    "a column that is not boolean": fit(slot("var", "chosen", 1), genes="chosen"),
    "a column that selects none": fit(slot("var", "chosen", False), genes="chosen"),
    "a column that is missing": fit(None, KeyError, genes="chosen"),
    "a number": fit(shell=False, genes=3),
    "a single one, for log-normalized expression": on_features(lambda adata: adata[:, :1].copy()),
    "none of those that were predicted": evaluate(_none_modeled, model=None),
}
FEATURES = {
    "missing": on_features(slot("obsm", "f", ...), KeyError),
    "NaN in more than 5 % of the spots": on_features(_features(_few_nan)),
    "words": on_features(_features(lambda values: np.char.add(values.astype(str), " um")), shell=False),
    "complex": on_features(_features(lambda values: values.astype(complex)), shell=False),
    "three dimensions": on_features(_features(lambda values: values[:, :, None])),
    "beyond float32": on_features(_features(lambda values: values.astype(np.float64) * 1e300)),
    "no column": on_features(_features(lambda values: values[:, :0])),
    "of another width than in training": predict(_features(lambda values: values[:, :5]), by_model="ridge", shell=True),
    "missing in prediction": predict(slot("obsm", "f", ...), KeyError, by_model="ridge", shell=True),
    "given to a model that reads patches": on_features(lambda adata: None, model="hist2scrna"),
    "given next to an encoder": on_features(lambda adata: None, encoder="morphology"),
}
LABELS = {
    "a column that is missing": fit(None, KeyError, labels_key="label"),
    "a value of its own in every spot": fit(_labels(np.linspace(0, 1, 40)), labels_key="label"),
    "none in any spot": fit(_labels(np.nan), labels_key="label"),
    "1 and '1'": fit(_labels(pd.Series([1, "1"] * 20, NAMES, dtype=object)), shell=False, labels_key="label"),
    "lists": fit(_labels(pd.Series([["tumor"]] * 40, NAMES)), shell=False, labels_key="label"),
    "a list of columns": fit(None, TypeError, shell=False, labels_key=["cell_type"]),
}
