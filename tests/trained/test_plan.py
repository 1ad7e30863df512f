"""Arguments out of range: each refused with its value before work begins, in no time and no memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from builders import fast
from PIL import Image

from hist2scrna import Training, pp
from hist2scrna.models import create_model, registry
from hist2scrna.tl import fit

NO_NUMBERS = ["ab", float("nan"), True, [3]]


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "patch_um": [0, -3, 20_000, 1e9, float("inf"), "a", float("nan")],
        "mpp": [0, -1, 1e-6, 1e6, "a", float("nan")],
        "seed": [-1, 2.5, "a", 2**70, True],
        "genes": [3],
        "img_key": [3],
        "image": [3],
        "preset": [3],
        "likelihood": [3],
    }.items(),
)
def test_arguments_out_of_range_are_named(make_section, monkeypatch, name, values):
    monkeypatch.setattr("hist2scrna.trained.fit.fit_and_keep", None)
    for value in values:
        with pytest.raises(ValueError) as said:
            fit(make_section(), **fast(**{name: value}))
        text = str(said.value)
        assert name in text and (str(value) in text or f"{value:g}" in text), text


@pytest.mark.parametrize("name", ["epochs", "max_epochs"])
def test_what_says_how_to_train_is_refused_once_where_the_model_is_not_trained(make_section, name):
    with pytest.raises(ValueError, match=r"odel 'kernel'.*Models that have .*max_epochs.*: hist2scrna, ") as said:
        fit(make_section(), **{name: 5}, progress=False)
    assert "Did you mean" not in str(said.value)
    with pytest.raises(ValueError, match=r"training=.*max_epochs"):
        fit(make_section(), model="hist2scrna", **{name: 5}, progress=False)


@pytest.mark.parametrize("value", [float("nan"), -1, "a", ("x", 2.0)])
def test_weights_of_losses_are_numbers(make_section, value):
    with pytest.raises(ValueError, match="weight of 'smoothness' in `losses`|'smoothness'"):
        fit(make_section(), **fast(losses={"smoothness": value}))


NUMBERS = {
    "whole": ("max_epochs", "batch_size", "accumulate", "devices", "patience"),
    "real": ("lr", "weight_decay", "clip", "alpha"),
    "yes": ("augment", "decay_offsets"),
    "name": ("schedule", "optimizer", "precision", "checkpoint_dir"),
}
WRONG = {
    "whole": [-1, 2.5, *NO_NUMBERS],
    "real": [-1e9, float("inf"), "ab", float("nan")],
    "yes": ["no", 1, 2.0],
    "name": [3, 2.5],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NUMBERS.items() for name in names])
def test_fields_of_training_are_checked(kind, name):
    for value in WRONG[kind]:
        with pytest.raises(ValueError, match=name) as said:
            Training(**{name: value})
        assert str(value) in str(said.value)


@pytest.mark.parametrize("name", registry.OUR_MODELS)
def test_options_of_every_model_are_checked_before_it_is_built(name):
    """Zero heads, negative depth, a width that fills the memory: none reaches torch."""
    entry = registry.model_entry(name)
    needed = {"n_features": 8} if "n_features" in entry.options else {}
    tried = 0
    for option, parameter in entry.options.items():
        kind = str(parameter.annotation)
        wrong = {
            "int": [-1, 2.5, 10**9, *NO_NUMBERS],
            "flo": ["ab", float("nan"), float("inf"), True],
            "boo": [0, "yes"],
            "Seq": ["ab", [0], [2.5], 3, [10**9]],
        }.get(kind[:3], [])
        if kind.startswith("Sequence[str]"):
            continue
        none_allowed = option.startswith(("depth", "n_layers", "bake")) or entry.options[option].default == 0
        if kind.startswith("int") and not none_allowed:
            wrong.append(0)
        if option == "dropout":
            wrong += [2, -0.1, 1]
        for value in wrong:
            tried += 1
            with pytest.raises(ValueError, match=rf"`{option}") as said:
                create_model(name, n_genes=3, **{**needed, option: value})
            assert str(value).strip("[]") in str(said.value)
            assert said.traceback[-1].path.name in ("arguments.py", "option_values.py")
    assert tried or not entry.options.keys() - {"n_features", "target"}


def test_a_path_in_place_of_an_image_is_refused_with_the_way_out(make_section):
    adata = make_section()
    adata.uns["spatial"]["s0"]["images"]["hires"] = "slide.png"
    with pytest.raises(ValueError, match=r"\['images'\]\['hires'\] to be an image.*'slide\.png'.*image="):
        fit(adata, **fast())


def test_labels_that_are_written_alike_are_refused(make_section):
    adata = make_section()
    adata.obs["cell_type"] = pd.Categorical([1, "1"] * 20)
    with pytest.raises(ValueError, match=r"written alike.*\['1'\].*astype\(str\)"):
        fit(adata, **fast(labels_key="cell_type"))


def test_a_lattice_that_fills_the_memory_is_refused(tmp_path):
    Image.fromarray(np.full((60, 90, 3), 180, dtype=np.uint8)).save(tmp_path / "slide.png")
    with pytest.raises(ValueError, match=r"spacing_um=0\.0001 apart would be some .* larger spacing_um="):
        pp.tissue_grid(tmp_path / "slide.png", spacing_um=1e-4, mpp=0.5)


def test_one_gene_is_enough_for_counts_and_says_nothing_once_normalized(make_section):
    adata = make_section()
    adata.obsm["u"] = np.random.default_rng(0).normal(size=(40, 6))
    fitted = fit(adata, model="kernel", features_key="u", genes=["g0"], progress=False)
    assert np.isfinite(fitted.predict(adata, progress=False)[:, "g0"].layers["hist2scrna_mean"]).all()
    with pytest.raises(ValueError, match=r"of a single gene \('g0'\) is the same in every spot.*model='kernel'"):
        fit(adata, model="ridge", features_key="u", genes=["g0"], progress=False)
