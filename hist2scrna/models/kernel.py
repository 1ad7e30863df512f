r"""Kernel regressions of a few gene programs on features, decoded to counts; fitted in closed form.

Features :math:`x` of a spot are standardized on the training spots and clipped at three standard deviations,
:math:`x' = \mathrm{clip}((x - m) / s, \pm 3)`; those of the encoder are rotated to their principal components and,
where each patch was encoded twice, whitened by how the two encodings differ, :math:`z = M P x'_e`. Log library size
:math:`\ell` and the scores :math:`s` of :math:`p` gene programs are each the mean of ridge regressions, every one with
a penalty of its own:

.. math:: (\hat\ell - \bar\ell, \hat s) = A^\top k(z) + B^\top z + C^\top x'_h + a, \qquad
   k_j(z) = \exp(-\lVert z - z_j \rVert^2 / b),

a Gaussian kernel with landmarks :math:`z_1, ..., z_m` among the training spots and the median squared distance
:math:`b`; a line in :math:`z`; and, where features by hand :math:`x_h` are joined, a line in these. Depth is the mean
of the two lines, which go on where a kernel falls back to the mean; programs are the mean of all. Each is

.. math:: A_t = K^{-1/2} (S^\top S + \lambda_t I)^{-1} S^\top y_t, \quad S = k(Z) K^{-1/2},

and a line the same with :math:`S = z / \sqrt{\overline{\lVert z \rVert^2}}`. The mean of the count component of gene
:math:`g` is

.. math:: \log \mu_g = w_{0g} (\ell - \bar\ell) + \sum_q w_{qg} s_q + b_g.

Programs are the leading axes of log-normalized expression once :math:`\ell` is regressed out of it; :math:`w` is
estimated from true scores, and :math:`b_g`, dispersion and dropout from those that were predicted for spots left out.

On tissue of another donor than those of the training nobody knows how deep a section was sequenced. All means of the
section are off by a factor :math:`\gamma` of mean 1 and variance :math:`v`, so that :math:`1/\theta_g` becomes
:math:`1/\theta_g + v`. It has a Gamma distribution, whose median lies below 1; the means are so much higher that a new
donor is as likely deeper than those at hand as it is shallower. Log-normalized expression is read one standard
deviation of :math:`\log\gamma` below that median. Where one donor was trained on, most programs tell less there, and
each is shrunk by :math:`u_q / (u_q + c \max u)`, where :math:`u_q = \lVert w_q \rVert^2 \mathrm{var}(\hat s_q)` is what
it moves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hist2scrna.models.contract import LIKELIHOODS, Context, Likelihood, Prediction, SpotBatch
from hist2scrna.models.heads import LOG_MU_BOUNDS
from hist2scrna.models.kernel_parameters import KernelParameters
from hist2scrna.models.registry import register
from hist2scrna.models.training import Training

NEAREST = 5
# Spots whose distances to all landmarks are held at once.
BLOCK = 4096
# Features beyond so many standard deviations of the training are taken as so far.
CLIP = 3.0


class KernelRegression(KernelParameters):
    """Kernel regressions of library size and gene programs on features, decoded to counts; fitted in closed form.

    With a few hundred spots, a network that is trained from random weights learns little. Here everything that is
    learned is small, and every penalty is chosen by cross-validation over sections (or donors). The log library size
    and the scores of a few gene programs are predicted by the mean of a Gaussian kernel regression and a line on the
    components of the encoder's features, and a line on features by hand; a log-linear decoder turns these into the
    mean of each count. Dispersion and dropout are estimated about the means that were predicted for sections left out:
    so the predicted distribution holds the error of the prediction itself, and its intervals are those of unseen
    sections. On tissue of another donor they are wider by a stated amount (`depth_variance`). The formulas stand at the
    head of `hist2scrna.models.kernel`.

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
    n_morphology
        How many of them, the last, are features by hand; told by the encoder.
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

    Examples
    --------
    >>> h2s.models.KernelRegression(20, n_features=64, n_programs=2).context.kind
    'spot'
    """

    needs = "features"
    estimates_log = True

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        n_features: int,
        n_morphology: int = 0,
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
        if not 0 <= n_morphology < n_features:
            raise ValueError(f"Expected `n_morphology` to be from 0 to {n_features - 1}, found {n_morphology}.")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"Expected `likelihood` to be one of {list(LIKELIHOODS)}, found {likelihood!r}.")
        self.context = Context("spot")
        self.likelihood = likelihood
        self.n_classes = n_classes
        self.n_programs = n_programs
        self.n_landmarks = n_landmarks
        self.n_morphology = n_morphology
        self.n_components = min(n_components, n_features - n_morphology)
        self._register_parameters(
            n_genes=n_genes,
            n_classes=n_classes,
            n_features=n_features,
            n_morphology=n_morphology,
            n_programs=n_programs,
        )

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the features, `(n, n_features)`."""
        if batch.features is None:
            raise ValueError("kernel reads features, but the batch holds none.")
        return batch.features.float()

    def standardize(self, features: Tensor) -> Tensor:
        """Return features in standard deviations of the training, `(n, n_features)`."""
        return (features.float() - self.feature_mean) / self.feature_scale

    def rotate(self, standard: Tensor) -> Tensor:
        """Return the principal components of standardized features, `(n, k)`."""
        return standard[:, : self.components.shape[1]] @ self.components.T

    def distances(self, rotated: Tensor) -> Tensor:
        """Return the squared distances to the landmarks, `(n, m)`: how unlike the tissue is."""
        return _squares(rotated, self.landmarks)

    def kernel_distances(self, whitened: Tensor) -> Tensor:
        """Return the squared distances of whitened components to those of the landmarks, `(n, m)`."""
        return _squares(whitened, self.landmarks @ self.metric)

    def regress(self, standard: Tensor) -> Tensor:
        """Return depth, program scores and classes, `(n, 1 + n_programs + n_classes)`, from standardized features."""
        clipped = standard.clamp(-CLIP, CLIP)
        whitened = self.rotate(clipped) @ self.metric
        kernel = torch.exp(-self.kernel_distances(whitened) / self.bandwidth)
        by_hand = clipped[:, clipped.shape[1] - self.n_morphology :]
        return kernel @ self.dual + whitened @ self.slopes + by_hand @ self.morphology_slopes + self.offset

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the core spots from their features."""
        # Closed forms have no noise to hide the rounding of half precision in.
        with torch.autocast(tokens.device.type, enabled=False):
            standard = self.standardize(tokens[: batch.n_core])
            regressed = self.regress(standard)
            depth, scores = regressed[:, :1], regressed[:, 1 : 1 + self.n_programs]
            donor = torch.zeros_like(batch.section[: batch.n_core]) if batch.donor is None else batch.donor
            elsewhere = (donor < 0)[:, None].float()
            scores = scores * (1 - elsewhere * (1 - self.program_shares))
            prediction = Prediction(embedding=scores)
            if self.n_classes:
                classes = regressed[:, 1 + self.n_programs :]
                prediction.label_logits = classes @ self.label_weights.T + self.label_intercept
            if self.likelihood != "mse":
                level = torch.where(donor < 0, self.log_library_shift, self.levels[donor.clamp(min=0)])
                depth = depth + level[:, None]
                prediction.log_library = depth.squeeze(1) + self.log_library_mean
                if batch.log_library is not None:
                    depth = batch.log_library[:, None] - self.log_library_mean
            scores = torch.cat([depth, scores], dim=1)
            if self.likelihood == "mse":
                prediction.value = scores @ self.log_loadings + self.log_intercept
                return prediction
            rates = torch.where(elsewhere > 0, self.rate_shift, self.donor_rates[donor.clamp(min=0)])
            log_mu = scores @ self.loadings + self.intercept + rates
            prediction.log_mu = log_mu.clamp(*LOG_MU_BOUNDS)
            # Where the library size is known, no factor is left open.
            variance = elsewhere * self.depth_variance * (batch.log_library is None)
            if self.likelihood != "poisson":
                prediction.log_dispersion = self.log_dispersion
                if batch.donor is not None:
                    prediction.depth_variance = variance.squeeze(1)
                    # One for all spots where these are all of one kind.
                    variance = variance[0] if bool((variance == variance[0]).all()) else variance
                    prediction.log_dispersion = -torch.log(torch.exp(-self.log_dispersion) + variance)
            if self.likelihood == "zinb":
                prediction.dropout_logits = self.dropout_logits.expand_as(prediction.log_mu)
            return prediction

    def farther_than_sections(self, tokens: Tensor, section: Tensor) -> Tensor | None:
        """See :class:`SpotModel`; all are, where the training was one section."""
        blocks = [self._distance(self.rotate(self.standardize(block))) for block in tokens.split(BLOCK)]
        distance = torch.cat(blocks)
        far = torch.zeros_like(section, dtype=torch.bool)
        for code in section.unique():
            far[section == code] = distance[section == code].mean() > self.section_distance
        return far

    def _distance(self, rotated: Tensor) -> Tensor:
        """Return how far spots are from the landmarks, `(n,)`; 99 % of the training spots are within 1."""
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
    encoder="imagenet+morphology",
    adapter="hist2scrna.fitting.closed_form.adapt_kernel:adapt_kernel",
    uses=("batch_size", "augment", "validation", "accelerator", "expression"),
)
