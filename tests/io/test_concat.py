"""Sections that are joined keep what is theirs."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from platform_files import N, barcodes, colors, middle, write_section

from hist2scrna.datasets import simulate
from hist2scrna.io import concat, read_visium


def test_sections_keep_what_is_theirs(image_file, tmp_path):
    import squidpy as sq

    folders = [write_section(tmp_path / name, barcodes()) for name in ("one", "two")]
    parts = [read_visium(f, library_id=f.name, source_image_path=image_file) for f in folders]
    parts[1].obsm["spatial"] = parts[1].obsm["spatial"][::-1].copy()
    for part in parts:
        sq.gr.spatial_neighbors_knn(part, n_neighs=3)
    both = concat(parts)
    assert both.obs_names.is_unique
    assert both.obs_names[0] == f"{parts[0].obs_names[0]}-one"
    assert list(both.obs["library_id"].cat.categories) == ["one", "two"]
    assert list(both.uns["spatial"]) == ["one", "two"]
    for part in parts:
        (name,) = part.uns["spatial"]
        assert both.uns["spatial"][name]["images"]["hires"] is part.uns["spatial"][name]["images"]["hires"]
        assert not part.obs_names[0].endswith(name)
    graph = both.obsp["spatial_connectivities"].toarray()
    assert graph[:N, :N].sum() == parts[0].obsp["spatial_connectivities"].sum() > 0
    assert graph[:N, N:].sum() == graph[N:, :N].sum() == 0
    with pytest.warns(UserWarning, match="covers only"):
        seen = middle(both, library_key="library_id")
    np.testing.assert_array_equal(seen, np.concatenate([colors(), colors()[::-1]]))


def test_joining_simulated_sections_changes_no_patch():
    parts = simulate("small", n_sections=3, n_genes=20)
    both = concat(parts)
    assert list(both.obs_names) == [name for part in parts for name in part.obs_names]
    assert list(both.obs["cell_type"].cat.categories) == list(parts[0].obs["cell_type"].cat.categories)
    assert set(both.layers) == set(parts[0].layers)
    alone = np.concatenate([middle(part) for part in parts])
    np.testing.assert_array_equal(middle(both, library_key="library_id"), alone)


def test_sections_of_the_same_name(make_section):
    a, b = make_section("s", seed=1), make_section("s", seed=2, n_spots=30)
    with pytest.raises(ValueError, match=r"Section 's' occurs in more than one.*dictionary"):
        concat([a, b])
    both = concat({"p1": a, "p2": b})
    assert both.obs["library_id"].value_counts().to_dict() == {"p1": 40, "p2": 30}
    assert both.uns["spatial"]["p2"]["images"]["hires"] is b.uns["spatial"]["s"]["images"]["hires"]
    np.testing.assert_array_equal(both.X.toarray(), np.vstack([a.X.toarray(), b.X.toarray()]))
    with pytest.raises(ValueError, match="more than one library"):
        concat({"x": both})


def test_joining_what_does_not_fit(make_section):
    a, b = make_section("a"), make_section("b")
    with pytest.raises(ValueError, match="No section"):
        concat([])
    wrong = b.copy()
    wrong.obs["library_id"] = "c"
    with pytest.raises(ValueError, match=r"names \['c'\].*holds \['b'\]"):
        concat([a, wrong])
    nameless = b.copy()
    del nameless.obs["library_id"]
    assert concat([a, nameless]).obs["library_id"].tolist() == ["a"] * 40 + ["b"] * 40
    del nameless.uns["spatial"]
    with pytest.raises(KeyError, match="section 1"):
        concat([a, nameless])
    b.obs_names = ["x"] * b.n_obs
    with pytest.raises(ValueError, match="within section 1"):
        concat([a, b])
    few = make_section("c", n_genes=5)
    assert concat([a, few]).n_vars == 5
    outer = concat([a, few], join="outer")
    absent = [g for g in a.var_names if g not in few.var_names]
    assert outer[40:, absent].X.nnz == 0
    np.testing.assert_array_equal(outer[:40, a.var_names].X.toarray(), a.X.toarray())
    del a.X, few.X
    assert concat([a, few]).X is None


def predicted(section, **facts):
    """As predict leaves it, but for the values."""
    section.layers["p_mean"] = section.X.toarray() + 0.5
    section.uns["p"] = {"model": "kernel", "trained_on": np.array(["s8", "s9"]), "graph": np.array(["square"]), **facts}
    return section


def test_predictions_of_two_models_are_not_mixed_silently(make_section):
    a, b = predicted(make_section("a")), predicted(make_section("b"), model="ridge", trained_on=np.array(["s7"]))
    named = r"under 'p' are not of one model \(a by 'kernel', trained on s8, s9; b by 'ridge', trained on s7\)"
    with pytest.warns(UserWarning, match=named + ".*differ in model, trained_on.*key_added=") as said:
        both = concat([a, b])
    assert [w.filename for w in said] == [__file__]
    assert both.layers["p_mean"].shape == both.shape


def test_predictions_of_one_model_are_joined_without_a_word(make_section, tmp_path):
    a, b = predicted(make_section("a")), predicted(make_section("b"), graph=np.array(["hexagonal"]))
    b.write_h5ad(tmp_path / "b.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = concat([a, read_h5ad(tmp_path / "b.h5ad")])
        concat([a, make_section("c")])
    assert both.uns["p"]["model"] == "kernel"


def test_what_is_joined_is_left_as_it_was(make_section):
    parts = [make_section(name) for name in "ab"]
    for part in parts:
        part.obs_names = [f"spot{i}" for i in range(part.n_obs)]
        part.obsm["table"] = pd.DataFrame({"x": np.arange(part.n_obs)}, index=part.obs_names)
    both = concat(parts)
    assert list(both.obsm["table"].index) == list(both.obs_names) and both.obs_names.is_unique
    for part in parts:
        assert list(part.obs_names) == list(part.obsm["table"].index) == [f"spot{i}" for i in range(part.n_obs)]
        assert part[:3].copy().n_obs == 3


def test_categories_keep_their_colors(make_section):
    a, b = make_section("a"), make_section("b")
    b = b[b.obs["cell_type"] == "tumor"].copy()
    a.uns["cell_type_colors"], b.uns["cell_type_colors"] = ["#111111", "#222222"], ["#222222"]
    for parts in ([a, b], [b, a]):
        both = concat(parts)
        shown = dict(zip(both.obs["cell_type"].cat.categories, both.uns["cell_type_colors"], strict=True))
        assert shown == {"stroma": "#111111", "tumor": "#222222"}
    del a.uns["cell_type_colors"]
    assert "cell_type_colors" not in concat([b, a]).uns
