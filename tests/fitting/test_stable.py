"""Training that does not blow up: what is not finite is named, what is extreme trains, what is too large is halved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import fast
from scipy import sparse

import hist2scrna as h2s
from hist2scrna.fitting.memory import CPU_IS_FULL
from hist2scrna.models.registry import _entries

GENE, SPOT = 5, "s0_7"
SLOW = pytest.mark.slow


class Fragile(h2s.models.SpotModel):
    """Reads the color of a patch; from the third epoch on, its mean is NaN at one gene of one spot."""

    needs = "patches"
    likelihood = "poisson"
    calls = 0

    def __init__(self, n_genes, n_classes=0, *, patch_px=8):
        super().__init__()
        self.context = h2s.models.Context("spot")
        self.out = torch.nn.Linear(3, n_genes)

    def start_at(self, statistics):
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.copy_(statistics.log_rate)

    def encode(self, batch):
        return batch.patches.float().mean(dim=(2, 3)) / 255

    def decode(self, tokens, batch):
        log_mu = self.out(tokens[: batch.n_core])
        if batch.log_library is not None:
            log_mu = log_mu + batch.log_library[:, None]
        if third_time(type(self), batch) and self.training:
            log_mu = log_mu.masked_fill(place(batch, log_mu), float("nan"))
        return h2s.models.Prediction(tokens[: batch.n_core], log_mu=log_mu)


def third_time(counter, batch) -> bool:
    """Whether the spot was seen twice before."""
    counter.calls += batch.number is not None and 7 in batch.number
    return counter.calls > 2


def place(batch, values) -> torch.Tensor:
    at = torch.zeros_like(values, dtype=torch.bool)
    at[batch.number == 7, GENE] = True
    return at


class SteepTerm:
    """A term of 0, whose gradient is NaN at one gene of one spot from the third epoch on."""

    calls = 0

    def __call__(self, prediction, batch):
        change = prediction.log_mu - prediction.log_mu.detach()
        if not third_time(self, batch):
            return change.sum()
        return change[place(batch, change)].abs().sqrt().sum()


@pytest.fixture
def fragile(monkeypatch):
    h2s.models.register("fragile", Fragile)
    monkeypatch.setattr(Fragile, "calls", 0)
    yield Fragile
    del _entries["fragile"]


@pytest.mark.parametrize("validation", [0, 0.3])
@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_training_stops_with_the_last_good_weights_and_names_the_place(make_section, fragile, broken, validation):
    name, term = ("fragile", "expression") if broken == "loss" else ("hist2scrna", "steep")
    how = fast(model=name, preset=None if broken == "loss" else "tiny", validation=validation, max_epochs=9, patience=0)
    losses = None if broken == "loss" else {"steep": SteepTerm()}
    with pytest.warns(UserWarning, match="Training stops after 2 epochs") as said:
        model = h2s.tl.fit(make_section(), losses=losses, **how)
    text = next(str(w.message) for w in said if "Training stops" in str(w.message))
    assert f"of its term {term!r}, at gene 'g{GENE}' of spot {SPOT!r}" in text and "Lower lr=" in text
    assert ("gradient of parameter" in text) == (broken == "gradient")
    assert model.training["stopped"] in text and len(model.history) == 2
    assert all(torch.isfinite(value).all() for value in model.module.state_dict().values())
    predicted = model.predict(make_section(), progress=False, copy=True)
    assert np.isfinite(predicted.X).all()


def test_without_a_whole_epoch_there_is_nothing_to_keep(make_section, fragile, monkeypatch):
    monkeypatch.setattr(fragile, "calls", 9)
    with pytest.raises(
        FloatingPointError, match=f"train loss is (inf|nan).*gene 'g{GENE}' of spot '{SPOT}'.*Lower lr="
    ):
        h2s.tl.fit(make_section(), **fast(model="fragile", preset=None, validation=0))


def test_a_term_of_the_users_own_is_named(make_section):
    def mine(prediction, batch):
        return prediction.mean.sum() * float("nan")

    with pytest.raises(FloatingPointError, match="its term 'mine'"):
        h2s.tl.fit(make_section(), losses={"mine": mine}, **fast())


def _one_million(counts):
    counts[3, 2] = 1_000_000


def _depths(counts):
    """Totals from 1 to 1e7, evenly on a logarithmic scale."""
    counts[:] = 0
    for spot, depth in enumerate(np.geomspace(1, 1e7, len(counts)).round()):
        counts[spot, : 1 if depth < 12 else 12] = np.floor(depth / (1 if depth < 12 else 12))


def _one_gene_in_one_spot(counts):
    counts[:, 4] = 0
    counts[9, 4] = 2**24


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "extreme", [_depths, *(pytest.param(other, marks=SLOW) for other in (_one_million, _one_gene_in_one_spot))]
)
@pytest.mark.parametrize(
    "how",
    [
        *(fast(likelihood=likelihood, max_epochs=3, lr=1e-3) for likelihood in ("zinb", "nb", "poisson", "mse")),
        {"model": "hist2scrna-lightweight", "features_key": "f", "progress": False, "training": {"max_epochs": 2}},
        {"model": "kernel", "features_key": "f", "progress": False},
        {"model": "ridge", "features_key": "f", "progress": False},
    ],
    ids=lambda how: f"{how['model']}-{how.get('likelihood', '')}",
)
def test_extreme_counts_and_depths_train(make_section, how, extreme):
    adata = make_section()
    counts = adata.X.toarray()
    extreme(counts)
    adata.X = sparse.csr_matrix(counts)
    adata.obsm["f"] = np.random.default_rng(0).normal(size=(adata.n_obs, 6)).astype(np.float32)
    model = h2s.tl.fit(adata, **how)
    assert "stopped" not in model.training
    losses = model.history.filter(like="_loss").to_numpy()
    assert np.isfinite(losses).all()
    predicted = model.predict(adata, progress=False, copy=True)
    assert np.isfinite(predicted.X).all()


def _full_above(size, error):
    """A loss that runs out of memory in batches of more than `size` spots."""

    def loss(prediction, batch):
        if batch.n_core > size:
            raise error
        return prediction.mean.sum() * 0

    return loss


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        *(pytest.param(e, marks=SLOW) for e in (RuntimeError(f"{CPU_IS_FULL}: 12"), MemoryError("full"))),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(make_section, error):
    section = make_section(n_spots=16)
    how = {"losses": {"size": _full_above(4, error)}}
    with pytest.warns(UserWarning, match="starts again with batch_size=4") as said:
        model = h2s.tl.fit(section, **how, **fast(batch_size=16, validation=0))
    assert [str(w.message).count("does not fit") for w in said].count(1) == 2
    assert model.training["batch_size"] == 4
    small = h2s.tl.fit(section, **how, **fast(batch_size=4, validation=0))
    for name, value in small.module.state_dict().items():
        assert torch.equal(value, model.module.state_dict()[name]), name


def test_other_errors_are_no_lack_of_memory(make_section):
    with pytest.raises(RuntimeError, match="something else"):
        h2s.tl.fit(make_section(), losses={"size": _full_above(0, RuntimeError("something else"))}, **fast())


def test_batches_of_one_that_do_not_fit_are_an_error(make_section):
    full = _full_above(0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.warns(UserWarning, match="batch_size=1;"), pytest.raises(MemoryError, match="does not fit.*preset="):
        h2s.tl.fit(make_section(), losses={"size": full}, **fast(batch_size=2))
