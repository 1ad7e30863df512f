"""Every model tells tissue unlike its training, and blurred pictures: on features, on pixels, on tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import fast
from scipy.ndimage import gaussian_filter

from hist2scrna import TrainedModel, settings, tl
from hist2scrna.datasets import simulate
from hist2scrna.io import concat
from hist2scrna.keys import TISSUE, OutputKeys

NAMES = OutputKeys()


@pytest.fixture(scope="module")
def sections() -> list[Any]:
    """Three to train on and a further one, each stained a little otherwise."""
    return simulate("small", n_sections=4, n_spots=40, n_genes=12, seed=2)


def altered(section: Any, change: Any) -> Any:
    """Return the section with another picture."""
    other = section.copy()
    (name, entry), *_ = section.uns["spatial"].items()
    picture = change(np.asarray(entry["images"]["hires"])).astype(np.uint8)
    other.uns["spatial"] = {name: {**entry, "images": {"hires": np.ascontiguousarray(picture)}}}
    return other


def blurred(section: Any) -> Any:
    return altered(section, lambda picture: gaussian_filter(picture.astype(float), 3, axes=(0, 1)))


def inverted(section: Any) -> Any:
    return altered(section, lambda picture: 255 - picture)


def distances(section: Any, model: Any, **how: Any) -> np.ndarray:
    """Return how far the tissue is; that the category says the same is seen on the way."""
    obs = tl.predict(section, model, copy=True, progress=False, **how).obs
    far = obs[NAMES.tissue_distance].to_numpy()
    np.testing.assert_array_equal(obs[NAMES.unlike_training] == TISSUE[1], far > 1)
    return far


def fit_kernel(sections: Any) -> TrainedModel:
    how = {"encoder": "morphology", "training": {"augment": False}}
    return tl.fit(concat(sections[:3]), model="kernel", library_key="library_id", progress=False, **how)


def fit_network(sections: Any, **options: Any) -> TrainedModel:
    return tl.fit(concat(sections[:3]), **fast(library_key="library_id", **options))


@pytest.fixture(scope="module")
def on_features(sections) -> TrainedModel:
    return fit_kernel(sections)


@pytest.fixture(scope="module")
def network(sections) -> TrainedModel:
    return fit_network(sections)


@pytest.fixture(scope="module")
def larger_network(sections) -> TrainedModel:
    return fit_network(sections, patch_px=64)


@pytest.mark.filterwarnings("ignore:.*are unlike the training tissue")
@pytest.mark.parametrize(
    ("fixture", "source"),
    [
        ("on_features", "features"),
        ("network", "encoding"),
        pytest.param("larger_network", "imagenet", marks=pytest.mark.slow),
    ],
)
def test_a_further_section_is_like_the_training_and_what_is_not_is_told(
    sections, fixture, source, request, tmp_path
) -> None:
    model = request.getfixturevalue(fixture)
    assert model.tissue.source == source
    assert len(model.tissue.kept) <= 256 and model.tissue.kept.dtype == np.float16
    further = sections[3]
    plain = distances(further, model)
    assert (plain > 1).mean() <= 0.05
    assert (distances(blurred(further), model) > 1).mean() > 0.9
    # ImageNet features of 64 pixels tell colors less than edges.
    assert np.median(distances(inverted(further), model)) > (1 if source != "imagenet" else 1.2 * np.median(plain))
    again = TrainedModel.load(model.save(tmp_path / "model"))
    np.testing.assert_allclose(distances(further, again), plain, rtol=1e-4)


def test_features_that_come_from_the_cache_are_as_sharp(sections, on_features, tmp_path) -> None:
    expected = distances(sections[3], on_features)
    before = settings.cache_dir
    try:
        settings.cache_dir = tmp_path
        for _ in range(2):
            cached = fit_kernel(sections)
            found = distances(sections[3], cached)
            np.testing.assert_allclose(found, expected, rtol=1e-4)
    finally:
        settings.cache_dir = before
    limits = [(model.tissue.sharp, model.tissue.blurred) for model in (cached, on_features)]
    assert limits[0] == pytest.approx(limits[1])


def test_a_stored_prediction_says_the_same(sections, network, tmp_path) -> None:
    """Encodings that are kept on the way to a store do not pass the alarm; it reads what it missed."""
    plain = distances(sections[3], network)
    stored = tl.predict(sections[3], network, store=tmp_path / "p.zarr", progress=False).obs[NAMES.tissue_distance]
    np.testing.assert_allclose(stored, plain, rtol=1e-4)


def test_fewer_than_ten_spots_tell_nothing(sections) -> None:
    model = tl.fit(sections[0][:9].copy(), **fast(validation=0))
    assert model.tissue is None
    assert NAMES.unlike_training not in tl.predict(sections[3].copy(), model, progress=False).obs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*are unlike the training tissue", "ignore:.*have no nucleus")
def test_nuclei_are_compared_by_the_tile_that_shows_them() -> None:
    cells = simulate(n_sections=3, n_spots=150, n_genes=12, level="cell", mpp=1.0, seed=3)
    nuclei = [section.uns["simulation"]["nuclei"] for section in cells]
    train = concat(cells[:2])
    how = {"tile_px": 64, "tile_um": 64.0, "labels_key": "cell_type", "library_key": "library_id"}
    training = {"max_epochs": 1, "batch_size": 4, "accelerator": "cpu", "validation": 0}
    model = tl.fit(
        train, model="ghist", preset="tiny", nuclei=train.uns["simulation"]["nuclei"], training=training,
        progress=False, **how,
    )  # fmt: skip
    assert model.tissue.source == "imagenet"
    plain, soft, other = (
        distances(change(cells[2]), model, nuclei=nuclei[2]) for change in (lambda same: same, blurred, inverted)
    )
    assert (plain > 1).mean() < 0.1
    assert (soft > 1).mean() > 0.9
    assert np.median(other) > 1.2 * np.median(plain)


@pytest.fixture(scope="module")
def untold(sections) -> Any:
    """Sections whose counts no picture tells."""
    train = concat(sections)
    train.X = np.random.default_rng(0).poisson(3.0, train.shape).astype(np.float32)
    return train


def test_a_network_that_explains_nothing_is_warned_of_and_says_so(untold, tmp_path) -> None:
    with pytest.warns(UserWarning, match=r"explains nothing of .* no better than the mean .* Check that"):
        model = tl.fit(untold, **fast(library_key="library_id", validation=0.34))
    again = TrainedModel.load(model.save(tmp_path / "model"))
    assert again.training["variance_explained"] == model.training["variance_explained"] < 0.01
    assert "WARNING     The fit explains" in repr(again)


def test_without_validation_nobody_knows_what_a_network_explains(untold) -> None:
    assert "variance_explained" not in tl.fit(untold, **fast(validation=0)).training
