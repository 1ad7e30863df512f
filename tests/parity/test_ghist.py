"""GHIST, number for number: every stored run of its network and its losses in the folder `systems`.

`HIST2SCRNA_FIXTURES` names the folder above it; without it, `../shared/fixtures` is read where it is there.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_rule import unit, weight_by_rule

from hist2scrna.fitting.objective import Objective
from hist2scrna.models import SpotBatch, ghist_checkpoint
from hist2scrna.models.contract import Prediction
from hist2scrna.models.ghist import GHIST, SPECIAL
from hist2scrna.models.ghist_losses import type_map
from hist2scrna.models.ghist_refinement import candidates_of, refine_tile

pytestmark = pytest.mark.parity
NAMED = os.environ.get("HIST2SCRNA_FIXTURES")
FOLDER = (Path(NAMED) if NAMED else Path(__file__).parents[3] / "shared" / "fixtures") / "systems"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
GRADIENTS = {"rtol": 1e-3, "atol": 1e-6}
# Their names, where ours are others.
LOSSES = {"loss": "total", "cell_type": "cell_type_image"}
WEIGHTS = {"embedding": 100.0}
EXTRAS = {
    "expression_immune": "expression_immune",
    "expression_invasive": "expression_invasive",
    "expression_truth": "expression_truth",
    "features_of_prediction": "features_from_expression",
    "features_of_truth": "features_from_truth",
    "logits_of_prediction": "cell_type_logits_from_expression",
    "logits_of_truth": "cell_type_logits_from_truth",
    "map_logits": "map_logits",
}


def runs_with(field: str) -> list[Any]:
    stored = {path.stem: torch.load(path, weights_only=True) for path in sorted(FOLDER.glob("ghist*.pt"))}
    return [pytest.param(run, id=name) for name, run in stored.items() if field in run]


def shapes_at_full_size() -> dict[str, tuple[int, ...]]:
    lines = (FOLDER / "ghist_state_dict.txt").read_text().splitlines()
    shapes = dict(line.split(" ", 1) for line in lines)
    return {name: tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for name, shape in shapes.items()}


def published_state(stored: dict) -> dict[str, torch.Tensor]:
    if "state_dict" in stored:
        return stored["state_dict"]
    shapes = shapes_at_full_size()
    state = {name: weight_by_rule(name, shape) for name, shape in shapes.items() if shape}
    return state | {name: torch.tensor(0) for name, shape in shapes.items() if not shape}


def restored(stored: dict) -> GHIST:
    about, inputs = stored["init_args"], stored["inputs"]
    profiles = inputs.get("reference")
    if profiles is None:
        n = about["n_ref"] * about["n_genes"]
        profiles = torch.from_numpy(7 * unit("reference", n).astype(np.float32)).view(about["n_ref"], -1)
    network = GHIST(
        about["n_genes"],
        len(about["classes"]),
        width=about["base"],
        embedding=about["emb_dim"],
        n_reference=about["n_ref"],
        classes=about["classes"],
        special=SPECIAL,
    )
    network.load_reference_state_dict(published_state(stored))
    network.reference.copy_(profiles / 5)
    return network


def batch_of(stored: dict) -> SpotBatch:
    """The stored tiles, with nuclei numbered by row, tile by tile in ascending label order."""
    inputs = stored["inputs"]
    nuclei = inputs["nuclei"]
    tiles = inputs.get("histology")
    if tiles is None:
        pictures = [4 * (unit(f"histology{i}", nuclei[0].numel() * 3) - 0.5) for i in range(len(nuclei))]
        tiles = torch.from_numpy(np.stack(pictures).astype(np.float32)).view(len(nuclei), 3, *nuclei.shape[1:])
    masks, tile = torch.zeros_like(nuclei), []
    for t, mask in enumerate(nuclei):
        for label in mask.unique()[1:]:
            tile.append(t)
            masks[t][mask == label] = len(tile)
    batch = batch_of_nuclei(len(tile), tiles=tiles, masks=masks, tile=torch.tensor(tile))
    if "cell_type" in inputs:
        batch.label, truth = (
            torch.cat([inputs[name][t, : inputs["n_cells"][t, 0]] for t in range(len(nuclei))])
            for name in ("cell_type", "expression")
        )
        batch.counts = torch.expm1(truth / 5)
    return batch


def batch_of_nuclei(n: int, **inputs: Any) -> SpotBatch:
    return SpotBatch(
        n_core=n,
        xy=torch.zeros(n, 2),
        edge_index=torch.empty(2, 0, dtype=torch.long),
        section=torch.zeros(n, dtype=torch.long),
        **inputs,
    )


def check_losses(terms: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    ours = {LOSSES.get(name, name): WEIGHTS.get(name, 1.0) * value for name, value in terms.items()}
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_there_are_reference_outputs_of_ghist() -> None:
    if not FOLDER.is_dir():
        pytest.skip("no folder 'systems' next to the reference outputs")
    assert runs_with("init_args") and runs_with("grad_norms")


@torch.no_grad()
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("stored", runs_with("init_args"))
def test_outputs(stored, mode) -> None:
    if mode not in stored:
        pytest.skip(f"no outputs in {mode} mode stored")
    network, batch, expected = restored(stored).train(mode == "train"), batch_of(stored), stored[mode]["outputs"]
    tokens = network.encode(batch)
    torch.testing.assert_close(tokens, stored[mode]["intermediates"]["cell_features"], **CLOSE)
    network = restored(stored).train(mode == "train")
    prediction = network(batch)
    torch.testing.assert_close(prediction.embedding, stored[mode]["intermediates"]["embeddings"], **CLOSE)
    # A small value is what is left of terms as large as the largest.
    close = {"rtol": 1e-4, "atol": max(1e-5, 2e-6 * float(expected["expression"].max()))}
    torch.testing.assert_close(5 * prediction.value, expected["expression"], **close)
    torch.testing.assert_close(prediction.mean, torch.expm1(expected["expression"] / 5), **close)
    torch.testing.assert_close(prediction.label_logits, expected["cell_type_logits"], **CLOSE)
    torch.testing.assert_close(prediction.composition, expected["composition"][batch.tile], **CLOSE)
    for ours, theirs in EXTRAS.items():
        if theirs in expected and ours in prediction.extras:
            torch.testing.assert_close(prediction.extras[ours], expected[theirs], **close)
    state = network.state_dict()
    after = stored[mode].get("batch_norm_after", {})
    for theirs, ours in our_names(list(after)).items():
        torch.testing.assert_close(state[ours], torch.as_tensor(after[theirs]), **CLOSE)
    for ours in ("expression_immune", "expression_invasive"):
        assert ours in prediction.extras


def test_number_of_parameters() -> None:
    for run in runs_with("n_parameters"):
        stored = run.values[0]
        network, about = restored(stored), stored["init_args"]
        width, genes, types = about["emb_dim"], about["n_genes"], len(about["classes"])
        dead = (types + 1) * width + (genes + 1) * width + 2 * (width + 1) * width
        heads = len(network.expression)
        assert sum(p.numel() for p in network.parameters()) == stored["n_parameters"] - heads * dead


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("stored", runs_with("train"))
def test_losses_and_gradients(stored, mode) -> None:
    network, batch = restored(stored).train(mode == "train"), batch_of(stored)
    assert torch.equal(type_map(batch), stored["inputs"]["type_map"])
    terms = Objective(1.0, network.terms)(network(batch), batch)
    check_losses(terms, stored[mode]["losses"])
    terms["loss"].backward()
    norms, learned = stored[mode]["grad_norms"], 0
    parameters = dict(network.named_parameters())
    for theirs, ours in our_names(list(norms)).items():
        # Of a packed projection, the norm over queries, keys and values is that of the values: the others get none.
        expected = torch.as_tensor(norms[theirs])
        torch.testing.assert_close(parameters[ours].grad.norm(), expected, rtol=1e-3, atol=2e-5)
        learned += 1
    assert learned == len(parameters)


def our_names(published: list[str]) -> dict[str, str]:
    """Our name of each published parameter that is kept."""
    names = {}
    for name in published:
        if any(part in name for part in ghist_checkpoint.QUERY_AND_KEY):
            continue
        pattern, new = next(pair for pair in ghist_checkpoint.NAMES if re.fullmatch(pair[0], name))
        names[name] = re.sub(pattern, new, name)
    return names


@pytest.mark.parametrize("stored", runs_with("grad_norms"))
def test_losses_on_fixed_tensors(stored) -> None:
    given = {name: value.clone() for name, value in stored["inputs"].items()}
    read = set().union(*(set(norms) for norms in stored["grad_norms"].values()))
    for name in read:
        given[name].requires_grad_()
    n, tile = len(given["cell_type"]), torch.repeat_interleave(torch.arange(2), given["n_cells"][:, 0])
    batch = batch_of_nuclei(n, tile=tile, label=given["cell_type"])
    batch.counts = torch.expm1(given["expression_truth"] / 5)
    prediction = Prediction(
        given["features_from_expression"],
        value=given["expression"] / 5,
        label_logits=given["cell_type_logits"],
        target="log_counts",
        target_factor=5.0,
        composition=given["composition"][tile],
        extras={ours: given[theirs] for ours, theirs in EXTRAS.items()},
    )
    classes = stored["classes"]
    network = GHIST(4, len(classes), width=1, embedding=2, special=SPECIAL, classes=classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hist2scrna.models.ghist_losses.type_map", lambda _: given["type_map"])
        terms = Objective(1.0, network.terms)(prediction, batch)
    check_losses(terms, stored["losses"])
    for name, value in terms.items():
        theirs = LOSSES.get(name, name)
        assert value.requires_grad == stored["has_gradient"][theirs]
        if not value.requires_grad:
            continue
        expected = {key: norm for key, norm in stored["grad_norms"][theirs].items() if norm > 0}
        keys = list(expected)
        gradients = torch.autograd.grad(WEIGHTS.get(name, 1.0) * value, [given[key] for key in keys], retain_graph=True)
        for key, gradient in zip(keys, gradients, strict=True):
            torch.testing.assert_close(gradient.norm(), expected[key], **GRADIENTS)


@pytest.mark.parametrize("stored", runs_with("init_std"))
def test_initial_weights_are_as_wide(stored) -> None:
    about = stored["init_args"]
    torch.manual_seed(0)
    network = GHIST(
        about["n_genes"],
        len(about["classes"]),
        width=about["base"],
        embedding=about["emb_dim"],
        n_reference=about["n_ref"],
        classes=about["classes"],
        special=SPECIAL,
    )
    parameters = dict(network.named_parameters())
    ours = our_names([name for name in stored["init_std"] if not name.endswith(("running_mean", "running_var"))])
    # Fewer numbers tell little of the distribution that they are drawn from.
    many = {theirs: parameters[name].detach() for theirs, name in ours.items() if parameters[name].numel() >= 32}
    assert many
    for theirs, value in many.items():
        expected = float(stored["init_std"][theirs])
        assert float(value.std()) == pytest.approx(expected, rel=6 / math.sqrt(value.numel()), abs=1e-7), theirs


@pytest.mark.parametrize("stored", runs_with("state_dict"))
def test_weights_of_another_model_are_refused(stored) -> None:
    network, weights = restored(stored), stored["state_dict"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for broken in (dict(list(weights.items())[1:]), {**weights, "more": torch.zeros(1)}):
        with pytest.raises(ValueError, match="does not fit"):
            network.load_reference_state_dict(broken)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("use", ["immune", "invasive"])
@pytest.mark.parametrize("stored", runs_with("refinement"))
def test_types_refined_with_the_given_noise(stored, use) -> None:
    case = stored["refinement"][use]
    probability, composition, noise = (
        values.double().numpy() for values in (case["logits"].softmax(dim=1), case["composition"], case["noise"])
    )
    types = [case["classes"].index(name) for name in case["targets"]]
    # Those that are ignored are given.
    ignored = np.asarray(case["ignored"]).tolist()
    candidates = np.setdiff1d(candidates_of(probability, types, {}), ignored)
    toward = types[0] if case["is_invasive"] else None
    refined = refine_tile(probability, composition, types, candidates, noise, case["scale"], toward)
    np.testing.assert_array_equal(refined, case["refined"].numpy())
    np.testing.assert_array_equal(np.flatnonzero(refined != probability.argmax(axis=1)), case["changed"].numpy())
    special = [case["classes"].index(name) for name in SPECIAL[use]]
    moved = (refined != probability.argmax(axis=1)) & np.isin(refined, special)
    np.testing.assert_array_equal(np.flatnonzero(moved), case["changed_to_special"].numpy())
