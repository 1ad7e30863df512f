"""What the caller has switched on in PyTorch changes no number, and is there again afterwards."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from builders import fast

import hist2scrna as h2s

FEATURES = {"model": "kernel", "features_key": "f", "progress": False}


@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def autocast():
    with torch.autocast("cpu", torch.bfloat16):
        yield


AROUND = {
    "autocast": autocast,
    "float64": float64,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def switched_on():
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.fixture(scope="module")
def section(make_section):
    adata = make_section()
    adata.obsm["f"] = np.random.default_rng(0).normal(size=(adata.n_obs, 6)).astype(np.float32)
    return adata


@pytest.fixture(scope="module")
def expected(section, tmp_path_factory):
    """The means of a network and of a kernel model, with nothing around; and the folder of the network."""
    network, kernel = (h2s.tl.fit(section, **how) for how in (fast(), FEATURES))
    folder = network.save(tmp_path_factory.mktemp("model") / "network")
    return [model.predict(section, progress=False, copy=True).X for model in (network, kernel)], folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("around", AROUND)
def test_numbers_are_those_without_it(section, expected, around):
    means, folder = expected
    with AROUND[around]():
        before = switched_on()
        fitted = [h2s.tl.fit(section, **how) for how in (fast(), FEATURES)]
        loaded = h2s.TrainedModel.load(folder)
        found = [model.predict(section, progress=False, copy=True).X for model in (*fitted, loaded)]
        assert switched_on() == before
    for one, other in zip(found, [*means, means[0]], strict=True):
        np.testing.assert_array_equal(one, other)
    # What was loaded inside can be trained on outside.
    assert all(p.dtype == torch.float32 and not p.is_inference() for p in loaded.module.parameters())
