"""AnnData of any shape and type is taken, or refused in our own words, and stays as it was."""

from __future__ import annotations

import pytest
from builders import fast
from fuzzing.anndatas import anndatas
from fuzzing.children import attempt
from hypothesis import HealthCheck, given, settings

from hist2scrna import pp, tl

CALLS = {
    "ridge": lambda adata: tl.fit(adata, model="ridge", features_key="X_f", progress=False),
    "network": lambda adata: tl.fit(adata, **fast(labels_key="cell_type", library_key="library_id")),
    "features": lambda adata: pp.extract_features(adata, "morphology", library_key="library_id", progress=False),
}


def check(name: str, adata: object) -> None:
    obs = adata.copy().obs
    slots = sorted(adata.obsm), sorted(adata.layers), sorted(adata.uns)
    outcome = attempt(lambda: CALLS[name](adata))
    assert outcome.good, f"{outcome.said}\n{outcome.where}"
    if outcome.kind == "refused":
        assert adata.obs.equals(obs)
        assert (sorted(adata.obsm), sorted(adata.layers), sorted(adata.uns)) == slots


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(adata=anndatas())
def test_any_anndata_is_taken_or_refused(name, adata) -> None:
    check(name, adata)


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(adata=anndatas())
def test_a_few_anndata_are_taken_or_refused(adata) -> None:
    check("ridge", adata)
