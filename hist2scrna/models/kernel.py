"""The model for few sections: a pretrained encoder, kernel regression of a few expression programs, counts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hist2scrna.encoders.efficientnet import COLORS, STRIDE
from hist2scrna.encoders.encoder import Encoder
from hist2scrna.encoders.imagenet import AT_ONCE, FIELDS_OF_VIEW, WIDTH, ImageNetPair
from hist2scrna.models.contract import LIKELIHOODS, Context, Likelihood, Prediction, SpotBatch, SpotModel
from hist2scrna.models.heads import LOG_MU_BOUNDS
from hist2scrna.models.layers import PatchNormalization

NEAREST = 5


class FewFeatures(SpotModel):
    """Kernel regression of expression programs on features, decoded to counts; solved at once, not trained.

    With a few hundred spots a network that is trained from random weights learns little. Here everything that is
    learned is small, and every strength is chosen on sections left out: features are standardized and rotated to their
    principal components; a Gaussian kernel regression predicts the log library size and the scores of a few expression
    programs (the leading axes of log-normalized expression once depth is taken out), each with a penalty of its own;
    a log-linear decoder turns these into the mean of each count,

        log mu = b + a (log library - its mean) + sum over programs of w x score,

    with `a` and `w` estimated from the true scores, and `b`, dispersion and dropout from the scores that were predicted
    for sections left out. So the predicted distribution holds the error of the prediction itself, and its intervals are
    those of unseen sections. Expected log-normalized expression, which is linear in the same scores, is predicted
    beside. A spot is predicted from its own features alone: context `spot`.

    Sources: kernel ridge regression, Saunders et al., ICML 1998; by landmarks, Williams and Seeger, NIPS 2000; reduced
    rank regression, Izenman 1975.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0: none are predicted).
    n_features
        Width of the features.
    n_programs
        Most expression programs. Those that cannot be told from the picture are shrunk to nothing by their penalty.
    n_components
        Most principal components of the features.
    n_landmarks
        Most training spots that the kernel compares with. Up to so many, the regression is exact.
    likelihood
        `"zinb"`, `"nb"`, `"poisson"`, or `"mse"`: log-normalized expression alone.

    Raises
    ------
    ValueError
        If a number is out of range, or the likelihood is not known.
    """

    needs: Literal["patches", "features"] = "features"
    estimates_log = True

    feature_mean: Tensor
    feature_scale: Tensor
    components: Tensor
    landmarks: Tensor
    n_used: Tensor
    bandwidth: Tensor
    dual: Tensor
    offset: Tensor
    log_library_mean: Tensor
    loadings: Tensor
    intercept: Tensor
    log_dispersion: Tensor
    dropout_logits: Tensor
    value_loadings: Tensor
    value_intercept: Tensor
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
        width, n_scores = min(n_components, n_features), 1 + n_programs
        shapes: dict[str, tuple[int, ...]] = {
            "feature_mean": (n_features,),
            "feature_scale": (n_features,),
            "components": (width, n_features),
            "landmarks": (n_landmarks, width),
            "dual": (n_landmarks, n_scores + n_classes),
            "offset": (n_scores + n_classes,),
            "log_library_mean": (),
            "loadings": (n_scores, n_genes),
            "intercept": (n_genes,),
            "log_dispersion": (n_genes,),
            "dropout_logits": (n_genes,),
            "value_loadings": (n_scores, n_genes),
            "value_intercept": (n_genes,),
            "label_weights": (n_classes, n_classes),
            "label_intercept": (n_classes,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("n_used", torch.tensor(0))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("distance_limit", torch.ones(()))
        self.feature_scale.fill_(1.0)

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the features, `(n, n_features)`."""
        if batch.features is None:
            raise ValueError("This model reads features, but the batch holds none.")
        return batch.features.float()

    def rotate(self, features: Tensor) -> Tensor:
        """Return the principal components of features, `(n, width)`."""
        return (features.float() - self.feature_mean) / self.feature_scale @ self.components.T

    def distances(self, rotated: Tensor) -> Tensor:
        """Return the squared distances to the landmarks in use, `(n, n_used)`: how unlike the tissue is."""
        return _squares(rotated, self.landmarks[: int(self.n_used)])

    def kernel_distances(self, rotated: Tensor) -> Tensor:
        """Return the squared distances to the landmarks in use that the kernel takes, `(n, n_used)`."""
        return self.distances(rotated)

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the core spots from their features."""
        # Closed forms have no noise to hide the rounding of half precision in.
        with torch.autocast(tokens.device.type, enabled=False):
            rotated = self.rotate(tokens[: batch.n_core])
            kernel = torch.exp(-self.kernel_distances(rotated) / self.bandwidth)
            found = kernel @ self.dual[: kernel.shape[1]] + self.offset
            depth, scores = found[:, :1], found[:, 1 : 1 + self.n_programs]
            prediction = Prediction(embedding=scores)
            squares = self.distances(rotated)
            nearest = squares.topk(min(NEAREST, squares.shape[1]), largest=False).values.mean(dim=1)
            prediction.tissue_distance = nearest.sqrt() / self.distance_limit
            if self.n_classes:
                own = found[:, 1 + self.n_programs :]
                prediction.label_logits = own @ self.label_weights.T + self.label_intercept
            if self.likelihood != "mse":
                prediction.log_library = depth.squeeze(1) + self.log_library_mean
                if batch.log_library is not None:
                    depth = batch.log_library[:, None] - self.log_library_mean
            scores = torch.cat([depth, scores], dim=1)
            expected = scores @ self.value_loadings + self.value_intercept
            if self.likelihood == "mse":
                prediction.value = expected
                return prediction
            prediction.log_normalized = expected
            prediction.log_mu = (scores @ self.loadings + self.intercept).clamp(*LOG_MU_BOUNDS)
            if self.likelihood != "poisson":
                prediction.log_dispersion = self.log_dispersion
            if self.likelihood == "zinb":
                prediction.dropout_logits = self.dropout_logits.expand_as(prediction.log_mu)
            return prediction


def _squares(one: Tensor, other: Tensor) -> Tensor:
    square = one.square().sum(dim=1, keepdim=True) + other.square().sum(dim=1) - 2 * one @ other.T
    return square.clamp(min=0)


class FewSections(FewFeatures):
    """The model for few sections on a picture, by the first stages of networks that were trained on ImageNet.

    What :class:`~hist2scrna.models.FewFeatures` does with features, on those of two networks, an EfficientNet-Lite0 and
    a Lite2, which together tell more than either. Three views of each spot, the patch on it, one twice and one four
    times as wide, pass through both, frozen, in bfloat16 on a processor that computes in it. Of each map of their
    fourth and fifth stages the mean over the view, the mean over its central half, and the standard deviation over the
    view are the features. Weights of the networks are part of the model once it is fitted. Each training patch is seen
    twice (:func:`hist2scrna.tl.fit`, `augment`): stained otherwise; and stained otherwise, turned, mirrored and, every
    other one, out of focus. The regression learns from the mean of the two, in components of the features that are
    whitened by how these differ: so the prediction hangs less on the stain, the focus, and how the tissue lies. That is
    learned without a count.

    Parameters
    ----------
    n_genes, n_classes, n_programs, n_components, n_landmarks, likelihood
        See :class:`~hist2scrna.models.FewFeatures`.
    patch_px
        Side of the widest view in pixels, a multiple of 64; each view is seen at a quarter of it.
    """

    needs = "patches"
    frozen_encoder = True

    metric: Tensor

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        patch_px: int = 896,
        n_programs: int = 10,
        n_components: int = 256,
        n_landmarks: int = 2000,
        likelihood: Likelihood = "zinb",
    ) -> None:
        unit = FIELDS_OF_VIEW[-1] * STRIDE
        if patch_px < 4 * unit or patch_px % unit:
            raise ValueError(f"Expected `patch_px` to be a multiple of {unit}, {4 * unit} or more; found {patch_px}.")
        super().__init__(
            n_genes,
            n_classes,
            n_features=WIDTH,
            n_programs=n_programs,
            n_components=n_components,
            n_landmarks=n_landmarks,
            likelihood=likelihood,
        )
        self.register_buffer("metric", torch.eye(len(self.components)))
        self.side = patch_px // FIELDS_OF_VIEW[-1]
        # The color at which the first layer reads zero, for saliency.
        self.normalize = PatchNormalization()
        self.normalize.mean.fill_(COLORS[0][0])
        self.pair = ImageNetPair()

    def load_imagenet(self) -> None:
        """Take the ImageNet weights, from the packages that carry them.

        Raises
        ------
        ImportError
            If one is not installed.
        ValueError
            If a file is not the published one.
        """
        self.pair.load_imagenet()

    def kernel_distances(self, rotated: Tensor) -> Tensor:
        """Return the squared distances to the landmarks in use by what changes little between looks, `(n, n_used)`."""
        return _squares(rotated @ self.metric, self.landmarks[: int(self.n_used)] @ self.metric)

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the features of three views by both networks, `(n, 3600)`."""
        if batch.patches is None:
            raise ValueError("hist2scrna reads patches, but the batch holds none.")
        encoder = Encoder(
            "imagenet", self.pair.eval(), colors=COLORS, fields_of_view=FIELDS_OF_VIEW, width=WIDTH, at_once=AT_ONCE
        )
        return encoder.encode(batch.patches)
