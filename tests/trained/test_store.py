"""A streamed prediction that is killed goes on from what it has encoded, and ends as if nothing had happened."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from builders import fast
from forks import in_fork, killed
from sections import section

from hist2scrna.fitting.feature_store import FEATURES, FeatureStore
from hist2scrna.tl import fit, predict

KINDS = {"network": fast(labels_key="cell_type"), "encoder": {"model": "kernel", "encoder": "morphology"}}


@pytest.fixture(scope="module", params=["network", pytest.param("encoder", marks=pytest.mark.slow)])
def model(request):
    return fit(section(), **KINDS[request.param] | {"progress": False})


def predict_to(store, model, **changed):
    return predict(section(), model, store=store, progress=False, accelerator="cpu", **{"batch_size": 8} | changed)


def kill_while_encoding(store, model):
    write, written = FeatureStore.write, []

    def count(self, index, values):
        if len(written) == 2:
            killed()
        write(self, index, values)
        written.append(index)

    def act():
        FeatureStore.write = count
        predict_to(store, model)

    assert in_fork(act) == -signal.SIGKILL


def test_a_killed_prediction_goes_on(model, tmp_path, monkeypatch):
    whole = predict_to(tmp_path / "whole.h5ad", model)
    store = tmp_path / "x.h5ad"
    kill_while_encoding(store, model)
    assert not store.exists() and (tmp_path / "x.h5ad.partial" / FEATURES).is_file()
    write, written = FeatureStore.write, []

    def note(self, index, values):
        written.extend(index if self.folder else [])
        write(self, index, values)

    monkeypatch.setattr(FeatureStore, "write", note)
    out = predict_to(store, model)
    assert sorted(written) == list(range(16, 40))
    for name in whole.layers:
        np.testing.assert_array_equal(out.layers[name].compute(), whole.layers[name].compute())
    assert out.obs.equals(whole.obs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.h5ad", "x.h5ad"]


def test_what_another_model_has_left_is_not_taken(model, tmp_path):
    store = tmp_path / "x.h5ad"
    kill_while_encoding(store, model)
    left = {path: path.read_bytes() for path in (tmp_path / "x.h5ad.partial").iterdir()}
    other = fit(section(seed=1), **KINDS["network"])
    with pytest.raises(ValueError, match="begun with other settings, .*model .* there"):
        predict_to(store, other)
    assert not store.exists() and {path: path.read_bytes() for path in left} == left
