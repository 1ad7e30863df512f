"""hist2RNA: bulk expression of a slide from the mean of the features of its patches."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from hist2scrna.messages import require_known
from hist2scrna.models.contract import Context, Prediction, SpotBatch, SpotModel, Target
from hist2scrna.models.reference import load_renamed
from hist2scrna.models.registry import register
from hist2scrna.models.training import FIELDS, Training

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

WIDTHS = (256, 512, 512)
# Of the first convolution of the original; of a sequence of one position, only its middle tap meets data.
TAPS = 5
OF_ENCODER = "base_model."

NAMES = [
    (r"c([123])\.0\.(weight|bias)", r"hidden.\1.\2"),
    (r"output\.0\.(weight|bias)", r"heads.expression.\1"),
]


class Hist2RNA(SpotModel):
    """The published hist2RNA: three hidden layers and a linear head on the mean of the features of a slide's patches.

    The original stacks convolutions over a sequence of one position, so that only the middle tap of the first, which is
    five wide, meets data: the network is the perceptron F-256-512-512-G, exactly. The other taps get no gradient and
    are not kept here. The first layer starts in the range of the original, +-1 / sqrt(5 F).

    An observation is a slide (a patient, a donor or a region), as :func:`hist2scrna.pp.pool_patches` makes them.

    Source: Mondol et al., hist2RNA: an efficient deep learning architecture to predict gene expression from breast
    cancer histopathology images, Cancers 15(9):2569 (2023).

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of classes of slides, such as subtypes (0, as published: no such head).
    n_features
        Width of the features.
    target
        `"log_counts"`: log2(1 + x) of the expression as it is, as published. `"log_normalized"`: log2 of
        1 + 1e4 x / library size, for pseudobulks, which differ in how many spots they add up. None: `fit` takes
        `"log_counts"` for measured bulk and for values that are not whole, `"log_normalized"` for pseudobulk.

    Examples
    --------
    >>> h2s.models.Hist2RNA(20, n_features=64).target
    'log_counts'
    """

    needs = "features"
    likelihood = "mse"
    observation = "slide"

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        n_features: int,
        target: Literal["log_counts", "log_normalized"] | None = None,
    ) -> None:
        super().__init__()
        target = "log_counts" if target is None else target
        require_known("value of `target`", target, get_args(Target))
        self.context = Context("spot")
        self.target = target
        widths = (n_features, *WIDTHS)
        layers = [nn.Linear(widths[i], widths[i + 1]) for i in range(len(WIDTHS))]
        bound = 1 / math.sqrt(TAPS * n_features)
        nn.init.uniform_(layers[0].weight, -bound, bound)
        nn.init.uniform_(layers[0].bias, -bound, bound)
        self.hidden = nn.ModuleDict({str(i + 1): layer for i, layer in enumerate(layers)})
        self.heads = nn.ModuleDict({"expression": nn.Linear(WIDTHS[-1], n_genes)})
        if n_classes:
            self.heads["cell_type"] = nn.Linear(WIDTHS[-1], n_classes)

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the last hidden layer of each slide, `(n, 512)`."""
        if batch.features is None:
            raise ValueError("hist2rna reads features, but the batch holds none.")
        hidden = batch.features
        for layer in self.hidden.values():
            hidden = F.relu(layer(hidden))
        return hidden

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the core slides."""
        hidden = tokens[: batch.n_core]
        value = self.heads["expression"](hidden).float()
        prediction = Prediction(embedding=hidden, value=value, log_base=2.0, target=self.target)
        if "cell_type" in self.heads:
            prediction.label_logits = self.heads["cell_type"](hidden)
        return prediction

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the original: of its first convolution the middle tap; its encoder is left out.

        Raises
        ------
        ValueError
            If it is of another width or number of genes, or no hist2RNA; nothing is loaded then.
        """
        kept = {name: value for name, value in state.items() if not name.startswith(OF_ENCODER)}
        if len(kept) < len(state):
            log.warning(
                "%d entries of the checkpoint begin with %r: they are of its encoder and were left out. Extract the "
                "features with that encoder.",
                len(state) - len(kept),
                OF_ENCODER,
            )
        taps = {name: value[:, :, value.shape[2] // 2] if value.ndim == 3 else value for name, value in kept.items()}
        load_renamed(self, taps, NAMES, may_lack=("heads.cell_type",))


register(
    "hist2rna",
    Hist2RNA,
    training=Training(
        max_epochs=500,
        patience=20,
        batch_size=12,
        lr=1e-4,
        weight_decay=0.01,
        decay_offsets=True,
        validation=0.1,
        augment=False,
        optimizer="adam",
        schedule="none",
        clip=0.0,
    ),
    presets={"published": {}},
    uses=(*(name for name in FIELDS if name != "augment"), "losses", "init_from"),
)
