"""Models by name: a model of a user's own is one like ours; what a model does not have is refused by name."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hist2scrna as h2s
from hist2scrna import models
from hist2scrna.models import registry
from hist2scrna.models.create import check_uses, model_options
from hist2scrna.models.registry import model_entry, model_names
from hist2scrna.models.training import DEFAULTS, Training, as_training

MODULE = """
import torch
from torch import nn
import hist2scrna as h2s


class Colors(h2s.models.SpotModel):
    needs = "patches"
    likelihood = "mse"

    def __init__(self, n_genes, n_classes=0, *, patch_px=16, width=4):
        super().__init__()
        self.context = h2s.models.Context("spot")
        self.hidden, self.out = nn.Linear(3, width), nn.Linear(width, n_genes)

    def start_at(self, statistics):
        with torch.no_grad():
            self.out.bias.copy_(statistics.mean_log_normalized)

    def encode(self, batch):
        return self.hidden(batch.patches.float().mean(dim=(2, 3)) / 255).relu()

    def decode(self, tokens, batch):
        return h2s.models.Prediction(tokens[: batch.n_core], value=self.out(tokens[: batch.n_core]))


h2s.models.register(
    "colors", Colors, training=h2s.Training(max_epochs=2, lr=1e-3), presets={"small": {}, "wide": {"width": 8}}
)
"""


@pytest.fixture
def colors(tmp_path, monkeypatch):
    """A module that registers a model of a user's own; forgotten afterwards."""
    (tmp_path / "my_colors.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import my_colors

    yield my_colors
    del sys.modules["my_colors"], registry._entries["colors"]


def test_a_model_of_a_users_own_fits_predicts_and_loads_where_it_is_imported(colors, make_section, tmp_path) -> None:
    section = make_section()
    model = h2s.tl.fit(section, model="colors", preset="wide", progress=False)
    assert (model.name, model.options) == ("colors", {"patch_px": 16, "width": 8})
    assert len(model.history) == 2
    assert model.parameters["training"]["lr"] == 1e-3
    out = model.predict(section.copy(), progress=False)
    folder = model.save(tmp_path / "model")
    section.write_h5ad(tmp_path / "section.h5ad")
    script = f"""
import sys, numpy, anndata
sys.path.insert(0, {str(tmp_path)!r})
import hist2scrna
try:
    hist2scrna.TrainedModel.load({str(folder)!r})
except ValueError as error:
    print(error)
import my_colors
model = hist2scrna.TrainedModel.load({str(folder)!r})
out = model.predict(anndata.read_h5ad({str(tmp_path / "section.h5ad")!r}), progress=False)
numpy.save({str(tmp_path / "mean.npy")!r}, out.layers["hist2scrna_mean"])
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert "'colors', which is not registered here. Import the module that registers it" in run.stdout
    assert "'my_colors'" in run.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "mean.npy"), out.layers["hist2scrna_mean"])


def test_what_cannot_be_registered_says_why(colors) -> None:
    with pytest.raises(TypeError, match="subclass of SpotModel"):
        h2s.models.register("mine", dict)
    with pytest.raises(ValueError, match="'ridge' is a model of hist2scrna"):
        h2s.models.register("ridge", colors.Colors)
    with pytest.raises(ValueError, match="preset 'odd' of mine 'wdth'. Did you mean 'width'"):
        h2s.models.register("mine", colors.Colors, presets={"odd": {"wdth": 3}})
    with pytest.raises(ValueError, match="name in `uses` 'learning'"):
        h2s.models.register("mine", colors.Colors, uses=["learning"])
    assert "mine" not in model_names()


@pytest.mark.parametrize("name", model_names())
def test_every_model_of_ours_is_complete(name) -> None:
    entry = model_entry(name)
    assert entry.default in entry.presets
    assert callable(entry.load_fitter())
    assert (entry.patch_option in entry.options) == (entry.model.needs == "patches")
    unknown = {field for field in DEFAULTS.given if field not in entry.defaults.given}
    assert unknown == set()


def test_what_a_model_does_not_have_is_refused_with_those_that_have_it() -> None:
    with pytest.raises(ValueError, match="Models that have `n_landmarks`: kernel."):
        model_options("hist2scrna", n_landmarks=5)
    with pytest.raises(ValueError, match="Did you mean 'depth'"):
        model_options("hist2scrna", dpth=5)
    with pytest.raises(ValueError, match="'ridge' is fitted without the training argument `lr`. Models that have `lr`"):
        check_uses("ridge", ["validation", "lr"])
    check_uses("stnet", ["lr", "losses"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_epochs": 0}, "`max_epochs` to be a whole number of at least 1, found 0"),
        ({"lr": 0.0}, "`lr` to be a positive number, found 0"),
        ({"clip": -1.0}, "`clip` to be a number of at least 0, found -1"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"optimizer": "sgd"}, "Unknown `optimizer` 'sgd'"),
        ({"precision": "64-true"}, "Unknown `precision` '64-true'"),
    ],
)
def test_training_values_out_of_range_are_refused(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        Training(**fields)


def test_training_is_filled_by_defaults() -> None:
    assert as_training({"lr": 0.5}) == Training(lr=0.5)
    assert as_training(None).given == {}
    filled = Training(lr=0.5, validation=0.0).filled_by(Training(lr=1.0, patience=3))
    assert filled == Training(lr=0.5, validation=0.0, patience=3)
    with pytest.raises(TypeError, match="a Training or a dictionary, found int"):
        as_training(3)


def names_in(file: Path) -> set[str]:
    """Everything that the code of a file uses or imports, by name."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    return used | {node.name for node in nodes if isinstance(node, ast.alias)}


def test_a_class_is_named_in_its_own_file_and_where_it_is_fitted_alone() -> None:
    root = Path(h2s.__file__).parent
    names = {file: names_in(file) for file in root.rglob("*.py")}
    for name in model_names():
        entry = model_entry(name)
        home = Path(sys.modules[entry.model.__module__].__file__)
        fitter = Path(sys.modules[entry.load_fitter().__module__].__file__)
        # Closed forms have a room of their own.
        fitters = set(fitter.parent.glob("*.py")) if fitter.parent.name == "closed_form" else {fitter}
        others = set(names) - {home, root / "models" / "__init__.py"} - fitters
        naming = {str(file.relative_to(root)) for file in others if entry.model.__name__ in names[file]}
        assert naming == set(), entry.model.__name__


@pytest.mark.parametrize("name", registry.OUR_MODELS)
def test_every_option_is_explained_where_a_user_looks(name) -> None:
    entry = registry.model_entry(name)
    assert getattr(models, entry.model.__name__) is entry.model and entry.model.__name__ in dir(models)
    _, _, parameters = inspect.getdoc(entry.model).partition("Parameters\n----------\n")
    explained = {
        option.strip() for names in re.findall(r"^(\w[\w, ]*)\n    \S", parameters, re.M) for option in names.split(",")
    }
    assert set(entry.options) <= explained
    page = Path(models.__file__).parents[2] / "docs" / "models" / f"{name}.md"
    if not page.is_file():
        pytest.skip("docs/models is not beside the package: installed without the repository")
    # The width of features is told by the data.
    options = set(entry.options) - {"n_features"}
    assert options <= set(re.findall(r"`(\w+)[`=]", page.read_text(encoding="utf-8")))
