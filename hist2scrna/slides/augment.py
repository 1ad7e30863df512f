"""Random views of patches, on the device that trains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from hist2scrna.models.contract import SpotBatch


class PatchAugmentation(nn.Module):
    """Flip, turn by quarters, and jitter the colour of each patch on its own, by Kornia.

    Tissue has no up or down, and stain and scanner vary between sections: none of these changes the counts. Of several
    stains, the colours of the first picture are jittered alone.
    """

    def __init__(self) -> None:
        from kornia import augmentation as ka

        super().__init__()
        self.places = nn.Sequential(
            ka.RandomHorizontalFlip(p=0.5), ka.RandomVerticalFlip(p=0.5), ka.RandomRotation90(times=(0, 3), p=1.0)
        )
        self.colours = ka.ColorJiggle(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.02, p=0.8)

    @torch.no_grad()
    def forward(self, batch: SpotBatch) -> SpotBatch:
        """Return the batch with float patches in 0..1, augmented; batches of features are returned as they are."""
        if batch.patches is None:
            return batch
        patches = batch.patches.float() / 255 if batch.patches.dtype == torch.uint8 else batch.patches
        seen = self.places(patches)
        if seen.shape[1] >= 3:
            seen = torch.cat([self.colours(seen[:, :3]), seen[:, 3:]], dim=1)
        return replace(batch, patches=seen.clamp(0, 1))


class SectionView(nn.Module):
    """One random view of a whole section: all its patches are made grey, turned and mirrored alike, by Kornia.

    Grey in one view of ten, a turn of up to 90 degrees, mirrored in one of five: what Hist2ST distils from.
    """

    def __init__(self) -> None:
        from kornia import augmentation as ka

        super().__init__()
        self.views = nn.Sequential(
            ka.RandomGrayscale(p=0.1, same_on_batch=True),
            ka.RandomRotation(90.0, resample="nearest", p=1.0, same_on_batch=True),
            # Hist2ST has the picture column first, so what mirrors its patches from left to right mirrors ours in y.
            ka.RandomVerticalFlip(p=0.2, same_on_batch=True),
        )

    @torch.no_grad()
    def forward(self, batch: SpotBatch) -> SpotBatch:
        """Return the batch with float patches in 0..1, seen otherwise; batches of features are returned as they are."""
        if batch.patches is None:
            return batch
        patches = batch.patches.float() / 255 if batch.patches.dtype == torch.uint8 else batch.patches
        return replace(batch, patches=self.views(patches))
