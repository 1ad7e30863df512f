"""What training leaves out of the dispersion: the error of the mean on tissue that was not trained on."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import softplus

from hist2scrna.fitting.batches import BlockSampler, make_batch
from hist2scrna.fitting.inference import GRAPH_BLOCK, encode_spots, predict_tiles
from hist2scrna.models.heads import LOG_DISPERSION_BOUNDS, ExpressionHeads
from hist2scrna.zinb import NB, ZINB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hist2scrna.models.contract import Prediction, SpotModel
    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Counts, spots x genes, that one number is chosen on: more tell little more, and are held dense.
MOST_VALUES = 2_000_000
# Standard deviation of the relative error of the mean beyond which none is looked for.
LARGEST_ERROR = 3.0


@dataclass
class _Block:
    """Counts of some spots, and what the model says of them; `log_theta` before the heads bound it."""

    counts: Tensor
    log_mu: Tensor
    log_theta: Tensor
    dropout_logits: Tensor | None

    def negative_log_likelihood(self, change: Tensor) -> float:
        """Return the sum over the counts, with `(G,)` `change` added to the logarithms of the inverse dispersion."""
        log_theta = (self.log_theta + change).clamp(*LOG_DISPERSION_BOUNDS)
        logits = self.dropout_logits
        predicted = NB(self.log_mu, log_theta) if logits is None else ZINB(self.log_mu, log_theta, logits)
        return -float(predicted.log_prob(self.counts).sum(dtype=torch.float64))


@torch.no_grad()
def recalibrate_dispersion(
    model: SpotModel,
    spots: Spots,
    validating: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    seed: int,
    progress: bool,
) -> float | None:
    r"""Add one number to the dispersion `1 / theta` of every gene: that which makes the validation counts likeliest.

    Networks are trained at the observed library size and on spots that they come to know, so their dispersion holds
    neither the error of the library size nor that of the mean on other tissue, and intervals are too narrow. A mean
    that is off by a factor of mean 1 and variance `s` makes the variance of the counts about
    `mu + mu^2 (1 / theta + s)`: the same `s` for all genes. It matters most for those that are nearly Poisson, which
    a factor on theta would hardly move. `s` is never negative: spots next to the training tissue are easier than
    another section, and must not narrow what training left.

    The validation spots are predicted as :func:`hist2scrna.tl.predict` does, at the model's own library size. `s` is
    the square of the number in 0..3 that :func:`scipy.optimize.minimize_scalar` finds. It goes into the heads' own
    parameter: `gene_dispersion` exactly; with a dispersion for each spot, the bias of `spot_dispersion` is moved by
    what `s` makes of the mean logarithm of each gene. All other weights stay as they are.

    Parameters
    ----------
    model
        Changed in place; on the CPU and in eval mode afterwards.
    spots
        All spots, with counts.
    validating
        Numbers of the spots that the weights were not fitted on. At most 2,000,000 counts are used: of more, spots are
        drawn.
    batch_size
        Patches encoded at once.
    device
        Where to compute.
    seed
        Of the draw.
    progress
        Show a bar.

    Returns
    -------
    `s`, 0 if no addition makes the counts likelier. None if nothing was done: no validation spots, or no dispersion
    (`poisson`, `mse`, models with other heads), or one of nuclei that only sums over spots tell of.

    Raises
    ------
    ValueError
        If the spots were read without counts.
    """
    heads = getattr(model, "heads", None)
    if not isinstance(heads, ExpressionHeads) or heads.likelihood not in ("zinb", "nb") or len(validating) == 0:
        return None
    if spots.tiles is not None and spots.tiles.by_spot is not None:
        return None
    most = max(1, MOST_VALUES // len(heads.rate.bias))
    if len(validating) > most:
        validating = np.sort(np.random.default_rng(seed).choice(validating, most, replace=False))
    try:
        blocks = _predicted(model, heads, spots, validating, batch_size=batch_size, device=device, progress=progress)
    finally:
        model.cpu()
    if heads.gene_dispersion is not None:
        parameter, typical = heads.gene_dispersion, heads.gene_dispersion.float()
    else:
        assert heads.spot_dispersion is not None
        parameter, typical = heads.spot_dispersion.bias, torch.cat([block.log_theta for block in blocks]).mean(dim=0)

    def change(error: float) -> Tensor:
        """Return `log theta' - log theta` where `1 / theta' = 1 / theta + error^2`."""
        return -softplus(typical + 2 * float(np.log(error)), threshold=40)

    def loss(error: float) -> float:
        return sum(block.negative_log_likelihood(change(error)) for block in blocks) / n_values

    n_values = sum(block.counts.numel() for block in blocks)
    before = sum(block.negative_log_likelihood(torch.zeros_like(typical)) for block in blocks) / n_values
    best = minimize_scalar(loss, bounds=(0, LARGEST_ERROR), method="bounded", options={"xatol": 1e-3})
    shift = float(best.x) ** 2 if best.fun < before else 0.0
    if shift:
        parameter.add_(change(float(best.x)))
    log.info(
        "dispersion: %.3g added to 1/theta of every gene; log-likelihood of a count of %d validation spots %.4f, was "
        "%.4f",
        shift,
        len(validating),
        -min(best.fun, before),
        -before,
    )
    return shift


def _predicted(
    model: SpotModel,
    heads: ExpressionHeads,
    spots: Spots,
    members: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
) -> list[_Block]:
    """Predict some spots at the model's own library size: each encoded once, then read with its exact halo."""
    if spots.counts is None:
        raise ValueError("The dispersion is recalibrated on counts, and these spots were read without.")
    unbounded: list[Tensor] = []
    watch: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if heads.spot_dispersion is not None:
        watch = heads.spot_dispersion.register_forward_hook(lambda _module, _input, output: unbounded.append(output))
    blocks = []
    with watch:
        for core, prediction in predictions(
            model, spots, members, batch_size=batch_size, device=device, progress=progress
        ):
            assert prediction.log_mu is not None
            log_theta = unbounded.pop() if heads.gene_dispersion is None else heads.gene_dispersion
            logits = prediction.dropout_logits
            blocks.append(
                _Block(
                    torch.from_numpy(spots.counts[core].toarray()),
                    prediction.log_mu.cpu(),
                    log_theta.detach().float().cpu(),
                    None if logits is None else logits.cpu(),
                )
            )
    return blocks


def predictions(
    model: SpotModel,
    spots: Spots,
    members: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
) -> Iterator[tuple[NDArray[np.int64], Prediction]]:
    """Yield blocks of some spots with their prediction at the model's own library size, in their exact context."""
    where: dict[str, Any] = {"batch_size": batch_size, "device": device, "progress": progress}
    if model.context.kind == "tile":
        asked = np.isin(np.arange(len(spots)), members)
        yield from predict_tiles(model, spots, asked, log_library=None, **where)
        return
    batches = [
        (core, *make_batch(spots, core, model.context, supervised=False, inputs=False))
        for core in BlockSampler(spots, members, model.context, GRAPH_BLOCK)
    ]
    needed = np.unique(np.concatenate([nodes for _, _, nodes in batches]))
    tokens = encode_spots(model, spots, needed, **where)
    for core, batch, nodes in batches:
        encoded = tokens[torch.from_numpy(np.searchsorted(needed, nodes))]
        yield core, model.decode(encoded.to(device), batch.to(device))
