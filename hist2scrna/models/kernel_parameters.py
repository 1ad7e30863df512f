"""What a kernel regression learns: every array of a fitted model by name and shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hist2scrna.models.contract import SpotModel

# What has as many rows as the training needed, and so a size of its own in each fitted model.
SIZED_BY_FIT = ("components", "metric", "landmarks", "dual", "slopes", "levels", "donor_rates")


class KernelParameters(SpotModel):
    """The buffers of :class:`hist2scrna.models.KernelRegression`, as saved; the head of its file has the formulas."""

    # Of features: how they are standardized, rotated and whitened.
    feature_mean: Tensor
    feature_scale: Tensor
    components: Tensor
    metric: Tensor
    # Of the regressions: landmarks and coefficients of the kernel and of the two lines.
    landmarks: Tensor
    bandwidth: Tensor
    dual: Tensor
    slopes: Tensor
    morphology_slopes: Tensor
    offset: Tensor
    # Of depth and donors: levels of those trained on, and what is unknown of another.
    log_library_mean: Tensor
    levels: Tensor
    donor_rates: Tensor
    log_library_shift: Tensor
    rate_shift: Tensor
    depth_variance: Tensor
    program_shares: Tensor
    # Of the decoder: from depth and scores to counts, to log-normalized expression, and to classes.
    loadings: Tensor
    intercept: Tensor
    log_dispersion: Tensor
    dropout_logits: Tensor
    log_loadings: Tensor
    log_intercept: Tensor
    label_weights: Tensor
    label_intercept: Tensor
    # Of tissue: the distances within which spots, and whole sections, are like those of the training.
    distance_limit: Tensor
    section_distance: Tensor

    def _register_parameters(
        self, *, n_genes: int, n_classes: int, n_features: int, n_morphology: int, n_programs: int
    ) -> None:
        n_encoded = n_features - n_morphology
        n_scores = 1 + n_programs
        n_targets = n_scores + n_classes
        zeros: dict[str, tuple[int, ...]] = {
            "feature_mean": (n_features,),
            "components": (0, n_encoded),
            "metric": (0, 0),
            "landmarks": (0, 0),
            "dual": (0, n_targets),
            "slopes": (0, n_targets),
            "morphology_slopes": (n_morphology, n_targets),
            "offset": (n_targets,),
            "log_library_mean": (),
            "levels": (1,),
            "donor_rates": (1, n_genes),
            "log_library_shift": (),
            "rate_shift": (n_genes,),
            "depth_variance": (),
            "loadings": (n_scores, n_genes),
            "intercept": (n_genes,),
            "log_dispersion": (n_genes,),
            "dropout_logits": (n_genes,),
            "log_loadings": (n_scores, n_genes),
            "log_intercept": (n_genes,),
            "label_weights": (n_classes, n_classes),
            "label_intercept": (n_classes,),
            "section_distance": (),
        }
        ones = {"feature_scale": (n_features,), "bandwidth": (), "program_shares": (n_programs,), "distance_limit": ()}
        for name, shape in zeros.items():
            self.register_buffer(name, torch.zeros(shape))
        for name, shape in ones.items():
            self.register_buffer(name, torch.ones(shape))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the size of what is sized by the fit from what is loaded."""
        for name in SIZED_BY_FIT:
            if prefix + name in state_dict:
                setattr(self, name, torch.zeros_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
