"""ST-Net: a DenseNet-121 on each patch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hist2scrna.models.contract import Context, Prediction, SpotBatch, SpotModel, TrainingStatistics
from hist2scrna.models.layers import PatchNormalization
from hist2scrna.models.reference import load_renamed
from hist2scrna.models.registry import register
from hist2scrna.models.training import Training

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH = 1024
NAMES = [
    (r"(features\.denseblock\d+\.denselayer\d+)\.((?:norm|conv)\d)\.(.*)", r"\1.layers.\2.\3"),
    (r"(features\.denseblock\d+\.denselayer\d+)\.(norm|conv)\.(\d)\.(.*)", r"\1.layers.\2\3.\4"),
]


class STNet(SpotModel):
    """ST-Net: each patch through a DenseNet-121, a linear head on its 1,024 averaged features.

    Source: He et al., Integrating spatial gene expression and breast tumor morphology via deep learning, Nature
    Biomedical Engineering 4:827 (2020). The published network starts from ImageNet: give it such weights with
    :meth:`load_reference_state_dict` or `fit(init_from=)`; without them it starts at random. As published, the head
    starts at the mean expression of each gene. The network is MONAI's.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0, as published: no such head).
    patch_px
        Side of a patch in pixels.
    dropout
        Rate inside the dense layers.

    Examples
    --------
    >>> h2s.models.STNet(20).context.kind
    'spot'
    """

    needs = "patches"
    likelihood = "mse"

    def __init__(self, n_genes: int, n_classes: int = 0, *, patch_px: int = 224, dropout: float = 0.0) -> None:
        from monai.networks.nets import DenseNet121

        super().__init__()
        if patch_px < 32:
            raise ValueError(f"Expected `patch_px` to be at least 32, which the network halves five times: {patch_px}.")
        self.context = Context("spot")
        self.normalize = PatchNormalization()
        network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1, dropout_prob=dropout)
        # This order of memory is twice as fast on a CPU, and faster on a GPU too.
        self.features = network.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = nn.ModuleDict({"expression": nn.Linear(WIDTH, n_genes)})
        if n_classes:
            self.heads["cell_type"] = nn.Linear(WIDTH, n_classes)

    @torch.no_grad()
    def start_at(self, statistics: TrainingStatistics) -> None:
        """Let the expression head start at the mean of each gene."""
        head = self.heads["expression"]
        assert isinstance(head, nn.Linear)
        nn.init.zeros_(head.weight)
        head.bias.copy_(statistics.mean_log_normalized)

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the averaged features of each patch, `(n, 1024)`."""
        if batch.patches is None:
            raise ValueError("stnet reads patches, but the batch holds none.")
        patches = self.normalize(batch.patches).contiguous(memory_format=torch.channels_last)
        return F.adaptive_avg_pool2d(F.relu(self.features(patches)), 1).flatten(1)

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the core spots."""
        hidden = tokens[: batch.n_core]
        prediction = Prediction(embedding=hidden, value=self.heads["expression"](hidden).float())
        if "cell_type" in self.heads:
            prediction.label_logits = self.heads["cell_type"](hidden)
        return prediction

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the features of a DenseNet-121 in torchvision's names, of its old or new releases; its head is left out.

        Raises
        ------
        ValueError
            If it is no DenseNet-121; nothing is loaded then.
        """
        features = {name: value for name, value in state.items() if not re.match(r"classifier\.", name)}
        load_renamed(self, features, NAMES, may_lack=("heads.",))


# The published rate of 1e-6 (summed squared error, momentum) tunes ImageNet weights. Ours trains from scratch too.
register("stnet", STNet, training=Training(batch_size=32, lr=3e-4), presets={"published": {}})
