"""Reading for an evaluation: AnnData is read at once, and never after."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from hist2scrna import keys
from hist2scrna.evaluation import evaluate as module
from hist2scrna.tl import evaluate, fit

NAMES = keys.OutputKeys()


class SealableAnnData(ad.AnnData):
    """AnnData that refuses every access once it is sealed."""

    def __getattribute__(self, name: str) -> Any:
        if "sealed" in object.__getattribute__(self, "__dict__"):
            raise AssertionError(f"adata.{name} is read after evaluation/inputs.py")
        return super().__getattribute__(name)

    def __getitem__(self, index: Any) -> Any:
        if "sealed" in object.__getattribute__(self, "__dict__"):
            raise AssertionError("adata is indexed after evaluation/inputs.py")
        return super().__getitem__(index)

    def seal(self) -> None:
        object.__getattribute__(self, "__dict__")["sealed"] = True


@pytest.fixture
def adata(make_section) -> SealableAnnData:
    section = make_section(n_spots=60)
    section.layers[NAMES.layer("mean")] = section.X.toarray() * 0.5 + 1
    section.layers[keys.TRUE_MEAN] = section.X.toarray() + 1.0
    section.obs[NAMES.cell_type] = section.obs["cell_type"]
    section.obs[NAMES.cell_type_confidence] = np.linspace(0.5, 1, section.n_obs)
    section.uns[NAMES.parameters] = {"model": "made up", "likelihood": "poisson"}
    return SealableAnnData(section)


def test_anndata_is_not_touched_after_it_was_read(adata, monkeypatch) -> None:
    expected = evaluate(adata, labels_key="cell_type", progress=False)
    read = module.read_scored_data

    def read_and_seal(*args: Any, **kwargs: Any) -> Any:
        data = read(*args, **kwargs)
        adata.seal()
        return data

    monkeypatch.setattr(module, "read_scored_data", read_and_seal)
    found = evaluate(adata, labels_key="cell_type", progress=False)
    with pytest.raises(AssertionError, match="adata.X is read after"):
        _ = adata.X
    assert found.results == expected.results
    assert found.plot_data == expected.plot_data
    # Nothing was left out: all that is read from AnnData was scored.
    assert found.results["not_scored"] == {}
    assert set(found.plot_data) == {"scatter", "maps", "reliability"}
    assert found.plot_data["maps"]["sections"]["s0"]["image"] is not None


def test_no_function_but_the_readers_takes_anndata() -> None:
    takers = set()
    for file in Path(module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg) and node.annotation is not None and "AnnData" in ast.dump(node.annotation):
                takers.add(file.stem)
    assert takers == {"evaluate", "inputs", "read_prediction", "read_tissue"}


def test_what_cannot_be_scored_is_refused_before_it_is_predicted(make_section, monkeypatch) -> None:
    section = make_section(n_spots=40)
    model = fit(section, model="ridge", encoder="morphology", labels_key="cell_type", progress=False)

    def unasked(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("predicted first")

    monkeypatch.setattr(type(model), "predict", unasked)
    other = make_section("other", n_spots=40)
    other.obs["cell_type"] = other.obs["cell_type"].cat.rename_categories({"tumor": "T-cells"})
    with pytest.raises(ValueError, match="never saw: \\['T-cells'\\].*leave out labels_key="):
        evaluate(other, model, labels_key="cell_type", progress=False)
    other.X = np.log1p(other.X.toarray())
    with pytest.raises(ValueError, match="values that are not whole numbers"):
        evaluate(other, model, progress=False)
