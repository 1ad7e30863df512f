"""Published models on patches as users meet them: fit, predict, evaluate, save, and what broke the originals."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import hist2scrna as h2s
from hist2scrna.fitting import lightning_module
from hist2scrna.fitting.objective import Objective, distillation_loss
from hist2scrna.metrics.scales import log_normalize_tensor
from hist2scrna.models import SpotBatch, create_model
from hist2scrna.models.array_position import ArrayPosition
from hist2scrna.models.registry import model_entry

SMALL = {
    "hist2st": {"fig_size": 28, "channel": 8, "depth1": 1, "depth2": 1, "depth3": 2, "heads": 2, "bake": 2},
    "histogene": {"patch_size": 28, "dim": 32, "n_layers": 1},
    "stnet": {"patch_px": 32},
    "transformerst": {"patch_size": 28, "dim": 32, "n_layers": 1},
}


@pytest.fixture(scope="module")
def sections():
    parts = h2s.datasets.simulate("small", n_sections=3, seed=3)
    adata = ad.concat(parts, uns_merge="unique", merge="same")[:, :40].copy()
    return adata


def network(name="hist2st", **options):
    torch.manual_seed(0)
    return create_model(name, n_genes=9, **{**SMALL[name], **options}).eval()


def batch(n=12, grid=None, edges=None, px=28):
    generator = torch.Generator().manual_seed(1)
    return SpotBatch(
        n_core=n,
        xy=torch.zeros(n, 2),
        edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]) if edges is None else edges,
        section=torch.zeros(n, dtype=torch.long),
        patches=torch.randint(0, 256, (n, 3, px, px), generator=generator, dtype=torch.uint8),
        grid=torch.arange(2 * n).view(n, 2).float() if grid is None else grid,
        counts=torch.randint(1, 9, (n, 9), generator=generator).float(),
    )


@pytest.mark.parametrize("name", ["hist2st", "histogene", "stnet", "transformerst"])
def test_fit_predict_evaluate_save(name, sections, tmp_path) -> None:
    given = SMALL[name]
    model = h2s.tl.fit(
        sections,
        model=name,
        labels_key="cell_type",
        library_key="library_id",
        training={"max_epochs": 2},
        progress=False,
        **given,
    )
    assert len(model.history) == 2
    assert model.likelihood == "mse"
    predicted = model.predict(sections, copy=True, progress=False)
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    assert predicted.uns["hist2scrna"]["scale"] == "log_normalized"
    assert set(predicted.obs["hist2scrna_cell_type"].cat.categories) <= set(model.classes)
    found = h2s.tl.evaluate(sections, model, library_key="library_id", progress=False)
    assert np.isfinite(found.headline["pearson"])
    again = h2s.TrainedModel.load(model.save(tmp_path / "model"))
    same = again.predict(sections, copy=True, progress=False)
    np.testing.assert_array_equal(same.layers["hist2scrna_mean"], predicted.layers["hist2scrna_mean"])


def test_published_schedule_is_the_default(sections, monkeypatch) -> None:
    seen = {}

    def caught(model, spots, split, settings):
        seen.update(vars(settings.training), validating=split.validating, objective=settings.objective, spots=spots)
        raise InterruptedError

    monkeypatch.setattr("hist2scrna.fitting.gradient.train", caught)
    with pytest.raises(InterruptedError):
        h2s.tl.fit(sections, model="hist2st", library_key="library_id", progress=False, **SMALL["hist2st"])
    expected = {"max_epochs": 350, "lr": 1e-5, "optimizer": "adam", "schedule": "step", "weight_decay": 0.0, "clip": 0}
    assert {k: seen[k] for k in expected} == expected
    assert not seen["augment"]
    assert len(seen["validating"]) == 0
    assert {k: w for k, (_, w) in seen["objective"].extra.items()} == {"counts": 0.25, "distillation": 0.5}
    spot_px = sections.uns["spatial"]["section_0"]["scalefactors"]["spot_diameter_fullres"]
    assert seen["spots"].patches.side[0] == pytest.approx(spot_px * 112 / 136, rel=1e-4)
    assert seen["spots"].graph.origin == ("array",) * 3
    with pytest.raises(InterruptedError):
        h2s.tl.fit(sections, model="histogene", library_key="library_id", progress=False, **SMALL["histogene"])
    assert (seen["max_epochs"], seen["lr"], seen["schedule"], seen["optimizer"]) == (100, 1e-5, "none", "adam")
    for preset, lr in ((None, 1e-3), ("full", 1e-4)):
        with pytest.raises(InterruptedError):
            h2s.tl.fit(sections, model="transformerst", preset=preset, progress=False, **SMALL["transformerst"])
        assert (seen["max_epochs"], seen["lr"], seen["schedule"], seen["optimizer"]) == (200, lr, "none", "adam")
        assert (seen["weight_decay"], seen["clip"], seen["augment"], len(seen["validating"])) == (0.0, 0.0, False, 0)


def test_learning_rate_falls_by_a_tenth_every_fifty_epochs(sections) -> None:
    training = model_entry("hist2st").defaults
    configured = lightning_module.TrainingModule(network(), Objective(0.1), training).configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]
    assert type(optimizer) is torch.optim.Adam
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose([rates[49], rates[50], rates[100]], [1e-5, 0.9e-5, 0.81e-5])


@torch.no_grad()
@pytest.mark.parametrize("policy", ["mean", "max"])
def test_spots_without_neighbors_are_their_own(policy) -> None:
    model = network(policy=policy)
    alone = model(batch(edges=torch.empty(2, 0, dtype=torch.long)))
    itself = model(batch(edges=torch.arange(12).expand(2, -1)))
    assert torch.isfinite(alone.value).all()
    torch.testing.assert_close(alone.value, itself.value)
    # Only the spots without neighbors are changed: 0, 1 and 2 have one each.
    some = torch.tensor([[1, 0, 3], [0, 1, 2]])
    torch.testing.assert_close(
        model(batch(edges=some)).value,
        model(batch(edges=torch.cat([some, torch.arange(3, 12).expand(2, -1)], dim=1))).value,
    )


@torch.no_grad()
def test_neighbors_are_read_along_the_edges() -> None:
    model = network(depth2=0)
    given = batch(edges=torch.tensor([[1, 2, 3, 4], [0, 0, 5, 6]]))
    before = model(given).embedding
    given.patches[1] = 255 - given.patches[1]
    changed = (model(given).embedding - before).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [True, True] + [False] * 10


@torch.no_grad()
def test_positions_inside_the_table_are_read_as_they_are_and_others_are_fitted_into_it() -> None:
    torch.manual_seed(0)
    position = ArrayPosition(64, 5)
    grid = torch.tensor([[0.0, 63.0], [10.0, 3.0]])
    expected = position.x(grid[:, 0].long()) + position.y(grid[:, 1].long())
    torch.testing.assert_close(position(grid), expected, rtol=0, atol=0)
    # Moved without a change of scale: the same as from 0.
    torch.testing.assert_close(
        position(torch.tensor([[70.0, 5.0], [80.0, 6.0]]))[0], position.x.weight[0] + position.y.weight[5]
    )
    wide = torch.stack([torch.arange(-50, 950.0), torch.zeros(1000)], dim=1)
    read = position(wide)
    assert torch.isfinite(read).all()
    torch.testing.assert_close(read[0], position.x.weight[0] + position.y.weight[0])
    torch.testing.assert_close(read[-1], position.x.weight[63] + position.y.weight[0])
    assert len(torch.unique(read, dim=0)) == 1000


@pytest.mark.parametrize("name", ["hist2st", "histogene"])
def test_any_array_and_pixels_without_one(name, sections) -> None:
    far = sections.copy()
    far.obs["array_col"] = far.obs["array_col"] * 40 - 500
    bare = sections.copy()
    bare.obs = bare.obs[["library_id"]]
    model = h2s.tl.fit(
        sections, model=name, library_key="library_id", training={"max_epochs": 1}, progress=False, **SMALL[name]
    )
    for other in (far, bare):
        predicted = model.predict(other, copy=True, progress=False)
        assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()


def test_training_is_one_section_a_step_with_all_its_spots(sections) -> None:
    seen = []
    model = h2s.tl.fit(
        sections,
        model="histogene",
        library_key="library_id",
        losses={"look": (lambda prediction, batch: seen.append(batch) or prediction.mean.sum() * 0, 1.0)},
        training={"max_epochs": 1, "validation": ["section_1"]},
        progress=False,
        **SMALL["histogene"],
    )
    assert [b.n_core for b in seen] == [50, 50, 50]
    assert sorted(int(b.section[0]) for b in seen[:2]) == [0, 2]
    assert model.training["monitor"] == "validation_loss"


def test_spots_held_out_of_a_section_are_still_seen(sections) -> None:
    seen = []
    h2s.tl.fit(
        sections[sections.obs["library_id"] == "section_0"].copy(),
        model="hist2st",
        library_key="library_id",
        losses={"look": (lambda prediction, batch: seen.append(batch) or prediction.mean.sum() * 0, 1.0)},
        training={"max_epochs": 1, "validation": 0.2},
        progress=False,
        **{**SMALL["hist2st"], "bake": 0},
    )
    assert all(len(b.section) == 50 > b.n_core for b in seen)


def test_large_sections_train_to_the_same_weights(sections, monkeypatch) -> None:
    found = []
    for limit in (10_000, 4):
        monkeypatch.setattr(lightning_module, "LARGE_SECTION", limit)
        model = h2s.tl.fit(
            sections,
            model="hist2st",
            library_key="library_id",
            training={"max_epochs": 2, "lr": 1e-3},
            progress=False,
            **SMALL["hist2st"],
        )
        found.append(model.module.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-7)


def test_count_loss_is_the_published_formula() -> None:
    model, given = network(), batch()
    prediction = model(given)
    x, m, theta, pi = given.counts, prediction.mu, prediction.dispersion, prediction.dropout
    m = m * (x.sum(dim=1) / np.median(x.sum(dim=1)))[:, None]
    eps = 1e-10
    t1 = torch.lgamma(theta + eps) + torch.lgamma(x + 1) - torch.lgamma(x + theta + eps)
    t2 = (theta + x) * torch.log(1 + m / (theta + eps)) + x * (torch.log(theta + eps) - torch.log(m + eps))
    zero = -torch.log(pi + (1 - pi) * (theta / (theta + m + eps)) ** theta + eps)
    expected = torch.where(x <= 1e-8, zero, t1 + t2 - torch.log(1 - pi + eps)).mean()
    assert model.count_loss(prediction, given).item() == pytest.approx(expected.item(), rel=1e-5)
    binomial = network(nb=True)
    prediction = binomial(given)
    hidden = prediction.embedding
    r, p = binomial.heads["total"](hidden), binomial.heads["logit"](hidden)
    ll = torch.lgamma(r.exp() + x) - torch.lgamma(r.exp()) + p * x - torch.log(p.exp() + 1) * (x + r.exp())
    assert binomial.count_loss(prediction, given).item() == pytest.approx(-ll.sum(dim=1).mean().item(), rel=1e-5)


def test_whole_objective_is_the_published_sum() -> None:
    model, given = network(), batch()
    prediction, views = model(given), [model(given) for _ in range(2)]
    views[1].value = views[1].value + 1
    prediction.views = views
    terms = Objective(0.1, model.terms)(prediction, given)
    target = torch.log10(1 + 1e4 * given.counts / given.counts.sum(dim=1, keepdim=True))
    squared = F.mse_loss(prediction.value, target)
    scores = torch.stack([view.view_score for view in views]).softmax(dim=0)
    distilled = (torch.stack([view.value for view in views]) * scores).sum(dim=0)
    expected = squared + 0.25 * model.count_loss(prediction, given) + 0.5 * F.mse_loss(distilled, prediction.value)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(prediction.mean, prediction.value * np.log(10))
    assert F.mse_loss(target * np.log(10), log_normalize_tensor(given.counts)).item() < 1e-10


def test_distillation_of_a_count_model_takes_the_mean_of_its_views() -> None:
    torch.manual_seed(0)
    model = create_model("hist2scrna", n_genes=9, preset="tiny", dropout=0.3)
    given = batch(px=48)
    prediction = model(given)
    prediction.views = [model(given), model(given)]
    level = torch.stack([view.log_mu for view in prediction.views]).mean(dim=0)
    assert distillation_loss(prediction, given).item() == pytest.approx(F.mse_loss(level, prediction.log_mu).item())
    prediction.views = ()
    assert distillation_loss(prediction, given).item() == 0


def test_own_weight_for_a_term_of_the_model(sections) -> None:
    options = {"model": "hist2st", "library_key": "library_id", "progress": False, **SMALL["hist2st"]}
    model = h2s.tl.fit(sections, losses={"counts": 0.5, "distillation": 0}, training={"max_epochs": 1}, **options)
    assert model.parameters["losses"] == {"counts": 0.5, "distillation": 0.0}
    row = model.history.iloc[0]
    assert row["train_loss"] == pytest.approx(row["train_expression"] + 0.5 * row["train_counts"], rel=1e-4)


def test_stnet_starts_at_the_gene_means(sections) -> None:
    model = h2s.tl.fit(
        sections,
        model="stnet",
        library_key="library_id",
        training={"lr": 1e-12, "max_epochs": 1},
        progress=False,
        patch_px=32,
    )
    predicted = model.predict(sections, copy=True, progress=False).layers["hist2scrna_mean"]
    np.testing.assert_allclose(predicted, np.tile(model.baselines.log_mean, (len(predicted), 1)), atol=1e-4)


def test_weights_of_a_densenet_start_stnet(sections, tmp_path) -> None:
    from monai.networks.nets import DenseNet121

    few = sections[::6].copy()
    torch.manual_seed(5)
    original = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1000)
    # Torchvision's names: no `layers`, and a classifier.
    state = {k.replace(".layers.", "."): v for k, v in original.state_dict().items() if k.startswith("features.")}
    state |= {"classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}
    older = {k.replace(".norm1.", ".norm.1.").replace(".conv1.", ".conv.1."): v for k, v in state.items()}
    for number, held in enumerate((state, {"state_dict": older})):
        path = tmp_path / f"densenet{number}.pt"
        torch.save(held, path)
        model = h2s.tl.fit(
            few,
            model="stnet",
            library_key="library_id",
            init_from=path,
            training={"lr": 1e-12, "max_epochs": 1},
            progress=False,
            patch_px=32,
        )
        torch.testing.assert_close(model.module.features.conv0.weight, original.features.conv0.weight)


def test_checkpoints_with_code_in_them_are_never_run(sections, tmp_path) -> None:
    torch.save({"state_dict": {"a": pytest.raises}}, tmp_path / "bad.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"no")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("bad.pt", "cut.safetensors", "list.pt"):
        with pytest.raises(ValueError, match=name):
            h2s.tl.fit(sections, model="stnet", library_key="library_id", init_from=tmp_path / name, patch_px=32)
    torch.save(network().state_dict(), tmp_path / "ours.pt")
    with pytest.raises(ValueError, match="no published implementation"):
        h2s.tl.fit(
            sections,
            model="hist2scrna-lightweight",
            features_key="spatial",
            library_key="library_id",
            init_from=tmp_path / "ours.pt",
        )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hist2st", {"fig_size": 30}, "multiple of `patch_size`"),
        ("hist2st", {"channel": 12}, "multiple of 8"),
        ("hist2st", {"policy": "sum"}, "'mean' or 'max'"),
        ("hist2st", {"depth3": 0}, "depth3"),
        (
            "hist2st",
            {"likelihood": "zinb"},
            "no option `likelihood`. Models that have `likelihood`: hist2scrna, ",
        ),
        ("stnet", {"patch_px": 16}, "at least 32"),
    ],
)
def test_wrong_options_are_refused(name, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, n_genes=9, **{**SMALL[name], **options})


@pytest.mark.parametrize(("name", "expected"), [("hist2st", 75_789_833), ("histogene", 73_061_137)])
def test_default_size_is_the_published_one(name, expected) -> None:
    with torch.device("meta"):
        model = create_model(name, n_genes=785, **({"n_layers": 4} if name == "histogene" else {}))
    assert sum(p.numel() for p in model.parameters()) == expected


@torch.no_grad()
def test_prediction_in_blocks_is_the_forward_pass(sections) -> None:
    model = h2s.tl.fit(
        sections,
        model="hist2st",
        library_key="library_id",
        training={"max_epochs": 1},
        progress=False,
        **SMALL["hist2st"],
    )
    predicted = model.predict(sections, copy=True, progress=False, batch_size=7)
    spots = model.read(sections)
    from hist2scrna.fitting.batches import make_batch

    for code in range(3):
        members = np.flatnonzero(spots.section == code)
        whole, _ = make_batch(spots, members, model.module.context, supervised=False)
        np.testing.assert_allclose(
            predicted.layers["hist2scrna_mean"][members], model.module(whole).mean.detach(), rtol=1e-4, atol=1e-5
        )
    assert spots.graph.origin == ("array",) * 3
