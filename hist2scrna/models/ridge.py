"""Ridge regression on the principal components of features: the floor that every network must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from hist2scrna.models.contract import Context, Likelihood, Prediction, SpotBatch, SpotModel
from hist2scrna.models.registry import register
from hist2scrna.models.training import Training


class Ridge(SpotModel):
    """Ridge regression on principal components of features, fitted in closed form.

    The features are standardized, rotated to their principal components, and every gene is a linear function of these.
    Cell types, where there are any, are a multinomial logistic regression on the same components. A spot is predicted
    from its own features alone: context `spot`. Nothing keeps a prediction above zero. This is how HEST-Bench compares
    encoders: Jaume et al., HEST-1k, NeurIPS 2024.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0: none are predicted).
    n_features
        Width of the features.
    n_components
        Most principal components. With as many as features this is ridge regression on the standardized features;
        fewer make wide features (1,000 and more) fast and less apt to overfit.
    penalty
        Weight of the squared coefficients of expression, as `alpha` of :class:`sklearn.linear_model.Ridge`; None:
        chosen by cross-validation. That of the cell types is always chosen.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> h2s.models.Ridge(20, n_features=64, n_components=16).components.shape
    torch.Size([16, 64])
    """

    needs = "features"
    likelihood: Likelihood = "mse"

    feature_mean: Tensor
    feature_scale: Tensor
    components: Tensor
    coefficients: Tensor
    intercept: Tensor
    label_coefficients: Tensor
    label_intercept: Tensor
    chosen_penalty: Tensor
    chosen_label_penalty: Tensor

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        n_features: int,
        n_components: int = 256,
        penalty: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_features", n_features), ("n_components", n_components)):
            if value < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, found {value}.")
        if penalty is not None and not 0 < penalty < float("inf"):
            raise ValueError(f"Expected `penalty` to be a positive number, found {penalty}.")
        self.context = Context("spot")
        self.n_classes = n_classes
        self.penalty = penalty
        width = min(n_components, n_features)
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        self.register_buffer("components", torch.zeros(width, n_features))
        self.register_buffer("coefficients", torch.zeros(n_genes, width))
        self.register_buffer("intercept", torch.zeros(n_genes))
        self.register_buffer("label_coefficients", torch.zeros(n_classes, width))
        self.register_buffer("label_intercept", torch.zeros(n_classes))
        self.register_buffer("chosen_penalty", torch.tensor(float("nan")))
        self.register_buffer("chosen_label_penalty", torch.tensor(float("nan")))

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the principal components of the features, `(n, min(n_components, n_features))`."""
        if batch.features is None:
            raise ValueError("ridge reads features, but the batch holds none.")
        # Least squares has no noise to hide the rounding of half precision in.
        with torch.autocast(batch.features.device.type, enabled=False):
            return (batch.features.float() - self.feature_mean) / self.feature_scale @ self.components.T

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict log-normalized expression and cell types of the core spots from their components."""
        core = tokens[: batch.n_core].float()
        with torch.autocast(core.device.type, enabled=False):
            return Prediction(
                embedding=core,
                value=core @ self.coefficients.T + self.intercept,
                label_logits=core @ self.label_coefficients.T + self.label_intercept if self.n_classes else None,
            )


register(
    "ridge",
    Ridge,
    # Its penalty is chosen by cross-validation over sections: no validation of its own.
    training=Training(validation=0.0),
    fitter="hist2scrna.fitting.closed_form.ridge:fit_ridge",
    uses=("batch_size", "validation", "accelerator"),
)
