"""GHIST on tiles: what moves with the tile, what does not depend on the batch, and what each option leaves out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hist2scrna.fitting.augment import TileAugmentation
from hist2scrna.fitting.objective import Objective
from hist2scrna.models.contract import SpotBatch, TrainingStatistics
from hist2scrna.models.create import create_model

PX, GENES, TYPES = 32, 6, 3
NAMES = ["B", "Malignant", "stroma"]


def some_batch(n_core: int | None = None) -> SpotBatch:
    """Two tiles, with three nuclei and one."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, PX, PX, dtype=torch.int32)
    masks[0, 2:9, 2:9], masks[0, 2:9, 9:14], masks[0, 20:30, 20:25], masks[1, 5:9, 5:20] = 1, 2, 3, 4
    masks[0, 5, 5] = 0
    n_core = 4 if n_core is None else n_core
    return SpotBatch(
        n_core=n_core,
        xy=torch.zeros(4, 2),
        edge_index=torch.empty(2, 0, dtype=torch.long),
        section=torch.zeros(4, dtype=torch.long),
        tiles=torch.randint(0, 256, (2, 3, PX, PX), generator=generator, dtype=torch.uint8),
        masks=masks,
        tile=torch.tensor([0, 0, 0, 1]),
        counts=torch.randint(0, 9, (n_core, GENES), generator=generator).float(),
        label=torch.tensor([0, 1, -1, 2])[:n_core],
        log_library=torch.zeros(n_core),
    )


def network(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("ghist", n_genes=GENES, n_classes=TYPES, preset="tiny", tile_px=PX, classes=NAMES, **options)


def test_a_nucleus_is_the_mean_over_its_pixels_and_over_its_tile() -> None:
    model, batch = network().eval(), some_batch()
    with torch.no_grad():
        last, first = model.backbone(batch.tiles.float())
        tokens = model.encode(batch)
    for row, tile in enumerate(batch.tile.tolist()):
        inside = batch.masks[tile] == row + 1
        parts = [level[tile][:, inside].mean(dim=1) for level in (last, first)]
        parts += [level[tile].mean(dim=(1, 2)) for level in (last, first)]
        torch.testing.assert_close(tokens[row], torch.cat(parts), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_halo_counts_in_the_composition_alone() -> None:
    model, whole = network().eval(), some_batch()
    some = some_batch(n_core=2)
    all_of_them, first_two = model(whole), model(some)
    torch.testing.assert_close(first_two.value, all_of_them.value[:2])
    torch.testing.assert_close(first_two.composition, all_of_them.composition[:2])
    assert len(first_two.value) == len(first_two.composition) == 2
    torch.testing.assert_close(all_of_them.composition[:3], all_of_them.composition[:1].expand(3, -1))
    torch.testing.assert_close(all_of_them.composition.sum(dim=1), torch.ones(4))


@torch.no_grad()
def test_a_tile_does_not_depend_on_the_others_of_its_batch() -> None:
    model, batch = network().eval(), some_batch()
    alone = replace(
        batch,
        n_core=1,
        tiles=batch.tiles[1:],
        masks=(batch.masks[1:] > 0).int(),
        tile=torch.zeros(1, dtype=torch.long),
        section=batch.section[:1],
        counts=batch.counts[3:],
        label=batch.label[3:],
    )
    torch.testing.assert_close(model(alone).value, model(batch).value[3:], rtol=1e-4, atol=1e-5)


def test_unlabeled_nuclei_and_the_halo_are_left_out_of_the_type_terms() -> None:
    model = network()
    batch = some_batch()
    terms = Objective(1.0, model.terms)(model(batch), batch)
    assert all(torch.isfinite(value) for value in terms.values())
    unlabeled = replace(batch, label=torch.full((4,), -1))
    terms = Objective(1.0, model.terms)(model(unlabeled), unlabeled)
    for name in ("cell_type", "cell_type_expression", "composition_estimated", "composition_classified"):
        assert terms[name] == 0
    assert torch.isfinite(terms["loss"]) and terms["expression"] > 0
    # A tile that a nucleus of unknown type fills has no pixel of known class.
    filled = replace(unlabeled, masks=torch.ones_like(batch.masks), tile=torch.zeros(4, dtype=torch.long))
    assert torch.isfinite(Objective(1.0, model.terms)(model(filled), filled)["loss"])


def test_special_heads_are_those_whose_types_the_data_have() -> None:
    assert set(network().expression) == {"general", "immune", "invasive"}
    assert set(network(special=None).expression) == {"general"}
    assert set(network(special={"glial": ["astrocyte"]}).expression) == {"general"}
    model, batch = network(special={"of_b": ["B"]}), some_batch()
    prediction = model(batch)
    term = model.terms["expression_of_b"][0](prediction, batch)
    truth = 5 * torch.log1p(batch.counts[0])
    expected = (prediction.extras["expression_of_b"][0] - truth).square().mean() / TYPES
    torch.testing.assert_close(term, expected)


@torch.no_grad()
def test_profiles_are_mixed() -> None:
    model, batch = network(n_reference=2).eval(), some_batch()
    model.reference.copy_(torch.tensor([[1.0] * GENES, [3.0] * GENES]))
    for layer in model.expression["general"].refine:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    value = model(batch).value
    assert ((value > 1) & (value < 3)).all() and (value.std(dim=1) < 1e-6).all()


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_counts_have_a_distribution(likelihood) -> None:
    model, batch = network(likelihood=likelihood), some_batch()
    rate = torch.linspace(-3, -1, GENES)
    model.start_at(
        TrainingStatistics(
            rate,
            rate.exp(),
            torch.zeros(GENES),
            (1.0, 0.5),
            color_mean=torch.ones(3),
            color_scale=torch.full((3,), 2.0),
        )
    )
    assert model.color_scale.tolist() == [2.0, 2.0, 2.0]
    prediction = model(batch)
    assert (prediction.dropout_logits is not None) == (likelihood == "zinb")
    torch.testing.assert_close(prediction.log_mu.mean(dim=0), rate, atol=0.3, rtol=0.1)
    terms = Objective(1.0, model.terms)(prediction, batch)
    torch.testing.assert_close(terms["expression"], -prediction.distribution.log_prob(batch.counts).mean())
    terms["loss"].backward()
    weights = [{name: weight for name, (_, weight) in one.terms.items()} for one in (model, network(special=None))]
    lighter = {name for name, weight in weights[1].items() if weights[0][name] == pytest.approx(weight / 15)}
    assert lighter == {"embedding", "logits", "cell_type_expression"}
    assert all(weights[0][name] == weights[1][name] for name in weights[1].keys() - lighter)
    # The agreement with the features of the truth reaches the heads of the counts.
    assert model.heads.rate.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="`reference` goes with likelihood='mse' alone"):
        network(likelihood=likelihood, n_reference=3)


def test_without_types_expression_is_all() -> None:
    model, batch = create_model("ghist", n_genes=GENES, preset="tiny", tile_px=PX), replace(some_batch(), label=None)
    terms = Objective(1.0, model.terms)(model(batch), batch)
    assert set(terms) == {"loss", "expression"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_px": 40}, "multiple of 16, found 40"),
        ({"tile_um": 0.0}, "`tile_um` to be positive"),
        ({"likelihood": "poisson"}, "found 'poisson'"),
    ],
)
def test_options_out_of_range_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("ghist", n_genes=GENES, preset="tiny", **options)


def test_the_mask_is_turned_with_its_tile() -> None:
    batch = some_batch()
    marked = replace(batch, tiles=batch.masks[:, None].expand(-1, 3, -1, -1).to(torch.uint8))
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        turned = TileAugmentation()(marked)
        for channel in range(3):
            assert torch.equal(turned.tiles[:, channel].int(), turned.masks)
        assert torch.equal(turned.masks.flatten(1).sort().values, batch.masks.flatten(1).sort().values)
        seen.add(tuple(turned.masks[0].flatten().tolist()))
    assert len(seen) == 8
    assert torch.equal(marked.masks, batch.masks)
