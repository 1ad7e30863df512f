"""How a model is trained unless the user says otherwise: its published schedule, or the one found best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Defaults of :func:`hist2scrna.tl.fit` for one model, and what it has no argument for.

    Attributes
    ----------
    max_epochs, patience, batch_size, lr, weight_decay, validation, augment
        Defaults of the arguments of the same name; `patience` None: never stopped early.
    optimizer
        `"adamw"` or `"adam"`.
    decay
        `"cosine"`: a short rise, then along a cosine to one hundredth. `"step"`: by a tenth every 50 epochs. `"none"`.
    clip
        Largest norm of the gradient; None: not clipped.
    patch_per_spot
        Side of a patch in spot diameters, where `patch_um` is not given.
    widest_view
        How many times as wide as a patch the picture is that the model is given.
    """

    max_epochs: int = 50
    patience: int | None = 10
    batch_size: int = 64
    lr: float = 1e-4
    weight_decay: float = 0.01
    validation: float = 0.1
    augment: bool = True
    optimizer: Literal["adamw", "adam"] = "adamw"
    decay: Literal["cosine", "step", "none"] = "cosine"
    clip: float | None = 1.0
    patch_per_spot: float = 1.5
    widest_view: float = 1.0


# 112 px where a spot measures 136 px: the patches that HisToGene and Hist2ST cut from the pictures of HER2ST.
PUBLISHED_PATCH_PER_SPOT = 112 / 136

OWN = Recipe()
HIST2ST = Recipe(
    max_epochs=350,
    patience=None,
    lr=1e-5,
    weight_decay=0.0,
    validation=0.0,
    augment=False,
    optimizer="adam",
    decay="step",
    clip=None,
    patch_per_spot=PUBLISHED_PATCH_PER_SPOT,
)
HISTOGENE = replace(HIST2ST, max_epochs=100, decay="none")
# The published rate of 1e-6 (summed squared error, momentum) tunes ImageNet weights. Ours trains from scratch too.
STNET = Recipe(batch_size=32, lr=3e-4)
# Solved at once, its penalty chosen by cross-validation over sections: it needs no validation of its own.
RIDGE = Recipe(validation=0.0)
# Solved at once, its penalties chosen and its dispersion estimated on sections left out.
FEW = replace(RIDGE, widest_view=4.0)
