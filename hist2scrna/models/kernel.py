r"""Kernel regression of a few gene programs on features, decoded to counts; fitted in closed form.

With features :math:`x` of a spot, standardized and rotated to their principal components :math:`z = P (x - m) / s`, and
landmarks :math:`z_1, ..., z_m` among the training spots, the Gaussian kernel is

.. math:: k_j(z) = \exp(-\lVert M (z - z_j) \rVert^2 / b),

where :math:`b` is the median over the landmarks, and :math:`M` the metric: the identity, or, where each patch was
encoded twice, what whitens the components by how the two encodings differ. Log library size :math:`\ell` and the
scores :math:`s` of :math:`p` gene programs are linear in it, by kernel ridge regression with a penalty of its own for
each:

.. math:: (\hat\ell - \bar\ell, \hat s) = A^\top k(z) + a, \quad
   A_t = K^{-1/2} (S^\top S + \lambda_t I)^{-1} S^\top y_t, \quad S = k(Z) K^{-1/2}.

The mean of the count component of gene :math:`g`, and expected log-normalized expression, are

.. math:: \log \mu_g = w_{0g} (\ell - \bar\ell) + \sum_q w_{qg} s_q + b_g, \qquad
   E[\log(1 + 10^4 x_g / L)] = v_{0g} (\ell - \bar\ell) + \sum_q v_{qg} s_q + c_g.

Programs are the leading axes of log-normalized expression once :math:`\ell` is regressed out of it; :math:`w` is
estimated from true scores, and :math:`b_g`, dispersion and dropout from those that were predicted for spots left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hist2scrna.models.contract import LIKELIHOODS, Context, Likelihood, Prediction, SpotBatch, SpotModel
from hist2scrna.models.heads import LOG_MU_BOUNDS
from hist2scrna.models.registry import register
from hist2scrna.models.training import Training

NEAREST = 5
# What has as many rows as the training needed, and so a size of its own in each fitted model.
SIZED_BY_FIT = ("components", "metric", "landmarks", "dual")


class KernelRegression(SpotModel):
    """Kernel regression of library size and gene programs on features, decoded to counts; fitted in closed form.

    With a few hundred spots, a network that is trained from random weights learns little. Here everything that is
    learned is small, and every penalty is chosen by cross-validation over sections (or donors). A Gaussian kernel
    regression on the principal components of the features predicts the log library size and the scores of a few gene
    programs; a log-linear decoder turns these into the mean of each count. Dispersion and dropout are estimated about
    the means that were predicted for sections left out: so the predicted distribution holds the error of the prediction
    itself, and its intervals are those of unseen sections. Expected log-normalized expression, which is linear in the
    same scores, is predicted as well. The formulas stand at the head of `hist2scrna.models.kernel`.

    A spot is predicted from its own features alone: context `spot`. With an encoder, each training patch is encoded
    twice (`Training.augment`): with other stains; and with other stains, turned, mirrored and, every other one,
    blurred. The regression learns from the mean of the two, in components of the features that are whitened by how
    these differ. So the prediction depends less on the stain, the focus, and how the tissue lies; that is learned
    without a count.

    Sources: kernel ridge regression, Saunders et al., ICML 1998; by landmarks, Williams and Seeger, NIPS 2000; reduced
    rank regression, Izenman 1975.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0: none are predicted).
    n_features
        Width of the features.
    n_programs
        Largest number of gene programs. Those that the image does not tell are shrunk to nothing by their penalty.
    n_components
        Largest number of principal components of the features.
    n_landmarks
        Largest number of training spots that the kernel compares with. Up to so many, the regression is exact.
    likelihood
        `"zinb"`, `"nb"`, `"poisson"`, or `"mse"`: log-normalized expression alone.

    Raises
    ------
    ValueError
        If a number is out of range, or the likelihood is not known.
    """

    needs = "features"
    estimates_log = True

    feature_mean: Tensor
    feature_scale: Tensor
    components: Tensor
    metric: Tensor
    landmarks: Tensor
    bandwidth: Tensor
    dual: Tensor
    offset: Tensor
    log_library_mean: Tensor
    loadings: Tensor
    intercept: Tensor
    log_dispersion: Tensor
    dropout_logits: Tensor
    log_loadings: Tensor
    log_intercept: Tensor
    label_weights: Tensor
    label_intercept: Tensor
    distance_limit: Tensor

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        n_features: int,
        n_programs: int = 10,
        n_components: int = 256,
        n_landmarks: int = 2000,
        likelihood: Likelihood = "zinb",
    ) -> None:
        super().__init__()
        for name, value in (
            ("n_features", n_features),
            ("n_programs", n_programs),
            ("n_components", n_components),
            ("n_landmarks", n_landmarks),
        ):
            if value < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, found {value}.")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"Expected `likelihood` to be one of {list(LIKELIHOODS)}, found {likelihood!r}.")
        self.context = Context("spot")
        self.likelihood = likelihood
        self.n_classes = n_classes
        self.n_programs = n_programs
        self.n_landmarks = n_landmarks
        self.n_components = min(n_components, n_features)
        n_scores = 1 + n_programs
        shapes: dict[str, tuple[int, ...]] = {
            "feature_mean": (n_features,),
            "components": (0, n_features),
            "metric": (0, 0),
            "landmarks": (0, 0),
            "dual": (0, n_scores + n_classes),
            "offset": (n_scores + n_classes,),
            "log_library_mean": (),
            "loadings": (n_scores, n_genes),
            "intercept": (n_genes,),
            "log_dispersion": (n_genes,),
            "dropout_logits": (n_genes,),
            "log_loadings": (n_scores, n_genes),
            "log_intercept": (n_genes,),
            "label_weights": (n_classes, n_classes),
            "label_intercept": (n_classes,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        for name, shape in {"feature_scale": (n_features,), "bandwidth": (), "distance_limit": ()}.items():
            self.register_buffer(name, torch.ones(shape))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the size of what is sized by the fit from what is loaded."""
        for name in SIZED_BY_FIT:
            if prefix + name in state_dict:
                setattr(self, name, torch.zeros_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the features, `(n, n_features)`."""
        if batch.features is None:
            raise ValueError("kernel reads features, but the batch holds none.")
        return batch.features.float()

    def rotate(self, features: Tensor) -> Tensor:
        """Return the principal components of features, `(n, k)`."""
        return (features.float() - self.feature_mean) / self.feature_scale @ self.components.T

    def distances(self, rotated: Tensor) -> Tensor:
        """Return the squared distances to the landmarks, `(n, m)`: how unlike the tissue is."""
        return _squares(rotated, self.landmarks)

    def kernel_distances(self, rotated: Tensor) -> Tensor:
        """Return the squared distances to the landmarks by the metric of the kernel, `(n, m)`."""
        return _squares(rotated @ self.metric, self.landmarks @ self.metric)

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the core spots from their features."""
        # Closed forms have no noise to hide the rounding of half precision in.
        with torch.autocast(tokens.device.type, enabled=False):
            rotated = self.rotate(tokens[: batch.n_core])
            kernel = torch.exp(-self.kernel_distances(rotated) / self.bandwidth)
            regressed = kernel @ self.dual + self.offset
            depth, scores = regressed[:, :1], regressed[:, 1 : 1 + self.n_programs]
            prediction = Prediction(embedding=scores, tissue_distance=self._tissue_distance(rotated))
            if self.n_classes:
                classes = regressed[:, 1 + self.n_programs :]
                prediction.label_logits = classes @ self.label_weights.T + self.label_intercept
            if self.likelihood != "mse":
                prediction.log_library = depth.squeeze(1) + self.log_library_mean
                if batch.log_library is not None:
                    depth = batch.log_library[:, None] - self.log_library_mean
            scores = torch.cat([depth, scores], dim=1)
            log_normalized = scores @ self.log_loadings + self.log_intercept
            if self.likelihood == "mse":
                prediction.value = log_normalized
                return prediction
            prediction.log_estimate = log_normalized
            prediction.log_mu = (scores @ self.loadings + self.intercept).clamp(*LOG_MU_BOUNDS)
            if self.likelihood != "poisson":
                prediction.log_dispersion = self.log_dispersion
            if self.likelihood == "zinb":
                prediction.dropout_logits = self.dropout_logits.expand_as(prediction.log_mu)
            return prediction

    def _tissue_distance(self, rotated: Tensor) -> Tensor:
        squares = self.distances(rotated)
        nearest = squares.topk(min(NEAREST, squares.shape[1]), largest=False).values.mean(dim=1)
        return nearest.sqrt() / self.distance_limit


def _squares(one: Tensor, other: Tensor) -> Tensor:
    square = one.square().sum(dim=1, keepdim=True) + other.square().sum(dim=1) - 2 * one @ other.T
    return square.clamp(min=0)


register(
    "kernel",
    KernelRegression,
    # Its penalties are chosen, and its dispersion is estimated, on sections left out: no validation of its own.
    training=Training(validation=0.0),
    fitter="hist2scrna.fitting.closed_form.fit_kernel:fit_kernel",
    uses=("batch_size", "augment", "validation", "accelerator"),
)
