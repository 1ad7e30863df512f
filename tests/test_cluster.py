"""Sections as tasks of a cluster: what one process gives, whichever worker a section goes to, and if one is killed."""

from __future__ import annotations

import os
import signal

import anndata as ad
import numpy as np
import pytest
from builders import fast
from scipy import sparse

import hist2scrna as h2s

distributed = pytest.importorskip("distributed", reason="dask.distributed, an extra, is not installed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def three_sections(make_section):
    """Their rows are mixed, and one spot has no place."""
    joined = ad.concat([make_section(f"s{i}", seed=i, n_spots=24 + 8 * i) for i in range(3)], uns_merge="unique")
    mixed = joined[np.random.default_rng(0).permutation(joined.n_obs)].copy()
    mixed.obs["depth"] = np.linspace(50, 500, mixed.n_obs)
    return mixed


def assert_same(one, other):
    """Every slot agrees, numbers to rounding."""
    assert list(one.obs) == list(other.obs) and set(one.uns) == set(other.uns)
    for column in one.obs:
        left, right = one.obs[column], other.obs[column]
        if left.dtype == "category":
            assert left.astype(str).tolist() == right.astype(str).tolist()
            assert list(left.cat.categories) == list(right.cat.categories)
        elif left.dtype.kind == "f":
            np.testing.assert_allclose(left, right, rtol=1e-4)
    assert set(one.obsm) == set(other.obsm) and set(one.layers) == set(other.layers)
    for slot in ("obsm", "layers"):
        for key, value in getattr(one, slot).items():
            np.testing.assert_allclose(dense(value), dense(getattr(other, slot)[key]), rtol=1e-4, atol=1e-5)


def dense(values):
    if hasattr(values, "compute"):
        values = values.compute()
    return np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float64)


@pytest.mark.parametrize(
    ("fitted", "predicted"),
    [
        ({"model": "kernel", "encoder": "morphology"}, {"library_size": "depth"}),
        (fast(labels_key="cell_type"), {"layers": ["mean", "uncertainty"]}),
        ({"model": "ridge", "features_key": "X_here"}, {}),
    ],
    ids=["kernel", "network", "features"],
)
def test_a_prediction_is_that_of_one_process(client, three_sections, fitted, predicted):
    here = three_sections.copy()
    here.obsm["X_here"] = np.random.default_rng(1).normal(size=(here.n_obs, 5)).astype(np.float32)
    model = h2s.tl.fit(here, **{"progress": False, **fitted})
    alone = h2s.tl.predict(here.copy(), model, progress=False, **predicted)
    there = h2s.tl.predict(here.copy(), model, progress=False, client=client, **predicted)
    assert_same(alone, there)
    assert alone.uns["hist2scrna"].keys() == there.uns["hist2scrna"].keys()


def test_a_prediction_is_streamed_to_a_store(client, three_sections, tmp_path):
    model = h2s.tl.fit(three_sections, model="ridge", encoder="morphology", progress=False)
    alone = h2s.tl.predict(three_sections.copy(), model, progress=False)
    there = h2s.tl.predict(three_sections, model, progress=False, client=client, store=tmp_path / "there.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["there.zarr"]
    assert_same(alone, there)


def test_features_are_those_of_one_process(client, three_sections, tmp_path):
    alone = h2s.pp.extract_features(three_sections, "morphology", progress=False, copy=True)
    store = {"store": tmp_path / "features", "progress": False}
    for _ in range(2):
        there = h2s.pp.extract_features(three_sections, "morphology", client=client, copy=True, **store)
        assert_same(alone, there)
        assert {k: str(v) for k, v in alone.uns["X_morphology"].items()} == {
            k: str(v) for k, v in there.uns["X_morphology"].items()
        }


def test_a_worker_that_is_killed_loses_nothing(client, three_sections, tmp_path):
    killed = tmp_path / "killed"

    def encoder(patches):
        """The first worker that comes here is killed in the middle of its section."""
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return patches.flatten(1)[:, ::40]

    killed.touch()
    here = {"encoder": encoder, "progress": False}
    extracted = {"patch_px": 16, "key_added": "X_own", "copy": True, **here}
    alone = h2s.pp.extract_features(three_sections, **extracted)
    model = h2s.tl.fit(three_sections, model="ridge", **here)
    predicted = h2s.tl.predict(three_sections.copy(), model, progress=False)
    killed.unlink()
    assert_same(alone, h2s.pp.extract_features(three_sections, client=client, **extracted))
    assert killed.exists()
    killed.unlink()
    assert_same(predicted, h2s.tl.predict(three_sections.copy(), model, client=client, **here))
    assert killed.exists()


def test_errors_of_workers_are_those_of_one_process(client, three_sections):
    def broken(patches):
        return patches

    for where in ({}, {"client": client}):
        with pytest.raises(ValueError, match=r"to return \(\d+, d\) for \d+ patches"):
            h2s.pp.extract_features(three_sections, broken, patch_px=16, progress=False, **where)


def test_what_is_no_client_is_refused(three_sections):
    model = h2s.tl.fit(three_sections, model="ridge", encoder="morphology", progress=False)
    with pytest.raises(TypeError, match="to be a dask.* found int"):
        h2s.tl.predict(three_sections, model, client=3)
    with pytest.raises(TypeError, match=r"to be a dask\.distributed\.Client, found str\. Make one"):
        h2s.pp.extract_features(three_sections, "morphology", client="localhost:8786")


def test_models_on_tiles_are_not_sent(client, three_sections):
    model = h2s.tl.fit(three_sections, model="ridge", encoder="morphology", progress=False)
    model.module.needs = "tiles"
    with pytest.raises(ValueError, match="model 'ridge' reads tiles with nuclei"):
        h2s.tl.predict(three_sections, model, client=client)
