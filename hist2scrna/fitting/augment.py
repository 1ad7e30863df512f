"""Random views of patches, on the device that trains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hist2scrna.models.contract import SpotBatch

# Standard deviation of a blur, in pixels.
LEAST_BLUR = 0.1


class PatchAugmentation(nn.Module):
    """Flip, turn by quarters, and jitter the color of each patch on its own, by Kornia.

    Tissue has no up or down, and stain and scanner vary between sections: none of these changes the counts. Of several
    stains, the colors of the first image are jittered alone.
    """

    def __init__(self) -> None:
        from kornia import augmentation as ka

        super().__init__()
        self.places = nn.Sequential(
            ka.RandomHorizontalFlip(p=0.5), ka.RandomVerticalFlip(p=0.5), ka.RandomRotation90(times=(0, 3), p=1.0)
        )
        self.colors = ka.ColorJiggle(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.02, p=0.8)

    @torch.no_grad()
    def forward(self, batch: SpotBatch) -> SpotBatch:
        """Return the batch with float patches in 0..1, augmented; batches of features are returned as they are."""
        if batch.patches is None:
            return batch
        patches = batch.patches.float() / 255 if batch.patches.dtype == torch.uint8 else batch.patches
        seen = self.places(patches)
        if seen.shape[1] >= 3:
            seen = torch.cat([self.colors(seen[:, :3]), seen[:, 3:]], dim=1)
        return replace(batch, patches=seen.clamp(0, 1))


class TileAugmentation(nn.Module):
    """Flip and turn each tile by quarters, with its mask; colors stay, as GHIST is trained.

    Mirrored along each axis with probability 1/2, then turned by 90, 180 and 270 degrees with probability 1/4 each, one
    after another.
    """

    @torch.no_grad()
    def forward(self, batch: SpotBatch) -> SpotBatch:
        """Return the batch with other tiles and masks."""
        if batch.tiles is None or batch.masks is None:
            return batch
        tiles, masks = batch.tiles.clone(), batch.masks.clone()
        flips = torch.rand(len(tiles), 2) < 0.5
        quarters = ((torch.rand(len(tiles), 3) < 0.25) * torch.tensor([1, 2, 3])).sum(dim=1)
        for i, (flip, quarter) in enumerate(zip(flips.tolist(), quarters.tolist(), strict=True)):
            for seen in (tiles, masks):
                sides = [side for side, mirrored in zip((-2, -1), flip, strict=True) if mirrored]
                seen[i] = torch.rot90(seen[i].flip(sides), quarter, (-2, -1))
        return replace(batch, tiles=tiles, masks=masks)


class StainVariation(nn.Module):
    """Vary how much of each stain a patch holds, as laboratories and scanners do: hematoxylin, eosin, and the rest.

    The optical density of a pixel is taken apart into stains, the amount of each is multiplied by a factor within `1 -
    amount` to `1 + amount` and shifted by up to a fifth of `amount`, the same for the whole patch, and the pixel is put
    together again. Stains: Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23:291 (2001), as in scikit-image;
    augmentation with them: Tellez et al., Medical Image Analysis 58:101544 (2019).

    Parameters
    ----------
    amount
        Largest relative change.
    """

    def __init__(self, amount: float = 0.3) -> None:
        from skimage.color import hed_from_rgb, rgb_from_hed

        super().__init__()
        self.amount = amount
        self.to_stains = torch.tensor(hed_from_rgb, dtype=torch.float32)
        self.to_rgb = torch.tensor(rgb_from_hed, dtype=torch.float32)

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, ...]:
        """Draw the factor and the shift of each stain for `n` patches, `(n, 3)` each, on the CPU."""
        scale, shift = self.amount * (2 * torch.rand(2, n, 3, generator=generator) - 1)
        return 1 + scale, 0.2 * shift

    @torch.no_grad()
    def forward(self, batch: SpotBatch) -> SpotBatch:
        """Return the batch with float patches in 0..1, in other stains; batches of features as they are."""
        if batch.patches is None:
            return batch
        return replace(batch, patches=self.vary(batch.patches, self.draw(len(batch.patches))))

    def vary(self, patches: torch.Tensor, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return patches `(n, 3, h, w)`, uint8 or 0..1, varied as was drawn; float in 0..1."""
        return self.stain(patches, *drawn)

    def moved(self, places: torch.Tensor, side: int, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return where places `(m, 2)`, x and y, of one patch come to lie: where they are."""
        return places

    def stain(self, patches: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Scale and shift, each `(n, 3)`, the stains of patches `(n, 3, h, w)`, uint8 or 0..1; float in 0..1."""
        # Density @ to_stains are amounts of stain; these, scaled, @ to_rgb are density again: all in one product.
        mix = ((self.to_stains * scale[:, None, :]) @ self.to_rgb).transpose(1, 2).to(patches.device)
        offset = (shift @ self.to_rgb)[:, :, None].to(patches.device)
        # One patch at a time stays in the cache of a CPU, which is four times as fast there.
        out = torch.empty(patches.shape, device=patches.device)
        for i, patch in enumerate(patches):
            out[i] = _mix(patch, mix[i], offset[i])
        return out


def _mix(patch: torch.Tensor, mix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    levels = patch.float() if patch.dtype == torch.uint8 else patch * 255
    lightness = levels.flatten(1).add(1).div_(256).log_()
    mixed = torch.addmm(offset, mix, lightness, beta=-1).exp_()
    return mixed.mul_(256 / 255).sub_(1 / 255).clamp_(0, 1).view_as(patch)


class ImageVariation(nn.Module):
    """Vary what a slide and its scan leave to chance: stains, focus, and how the tissue lies on the glass.

    Stains as by :class:`StainVariation`; each patch is turned by quarters and mirrored, all eight ways as often; every
    other one is blurred by a Gaussian.

    Parameters
    ----------
    amount
        Largest relative change of a stain.
    blur
        Largest standard deviation of the Gaussian, in pixels of the patch.
    """

    def __init__(self, amount: float = 0.3, blur: float = 2.5) -> None:
        super().__init__()
        self.stains = StainVariation(amount)
        self.blur = blur

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, ...]:
        """Draw, for `n` patches, what stains do, the quarter turns, what is mirrored, and the blur (0: none)."""
        stains = self.stains.draw(n, generator)
        dice = torch.randint(4, (3, n), generator=generator)
        deviation = (self.blur * torch.rand(n, generator=generator)).clamp(min=LEAST_BLUR)
        return (*stains, dice[0], dice[1] % 2, deviation * (dice[2] % 2))

    @torch.no_grad()
    def forward(self, batch: SpotBatch) -> SpotBatch:
        """Return the batch with float patches in 0..1, varied; batches of features as they are."""
        if batch.patches is None:
            return batch
        return replace(batch, patches=self.vary(batch.patches, self.draw(len(batch.patches))))

    def vary(self, patches: torch.Tensor, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return patches `(n, 3, h, w)`, uint8 or 0..1, varied as was drawn; float in 0..1."""
        from kornia.filters import gaussian_blur2d

        *stains, quarters, mirrored, deviations = drawn
        stained = self.stains.vary(patches, stains)
        size = 2 * round(2.5 * self.blur) + 1
        seen = torch.empty_like(stained)
        # One at a time, an exact quarter turn is a fifth of the work of Kornia's, which interpolates.
        for i, patch in enumerate(stained):
            turned = torch.rot90(patch, int(quarters[i]), (1, 2))
            turned = turned.flip(2) if mirrored[i] else turned
            deviation = float(deviations[i])
            seen[i] = gaussian_blur2d(turned[None], (size, size), (deviation, deviation))[0] if deviation else turned
        return seen

    def moved(self, places: torch.Tensor, side: int, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return where places `(m, 2)`, x and y, in one patch of `side` pixels come to lie when it is varied."""
        quarters, mirrored = int(drawn[2][0]), bool(drawn[3][0])
        x, y = places.unbind(dim=1)
        for _ in range(quarters):
            x, y = y, side - x
        return torch.stack([side - x if mirrored else x, y], dim=1)


class SectionView(nn.Module):
    """One random view of a whole section: all its patches are made gray, turned and mirrored alike, by Kornia.

    Gray in one view of ten, a turn of up to 90 degrees, mirrored in one of five: what Hist2ST distils from.
    """

    def __init__(self) -> None:
        from kornia import augmentation as ka

        super().__init__()
        self.views = nn.Sequential(
            ka.RandomGrayscale(p=0.1, same_on_batch=True),
            ka.RandomRotation(90.0, resample="nearest", p=1.0, same_on_batch=True),
            # Hist2ST has the image column first, so what mirrors its patches from left to right mirrors ours in y.
            ka.RandomVerticalFlip(p=0.2, same_on_batch=True),
        )

    @torch.no_grad()
    def forward(self, batch: SpotBatch) -> SpotBatch:
        """Return the batch with float patches in 0..1, varied; batches of features are returned as they are."""
        if batch.patches is None:
            return batch
        patches = batch.patches.float() / 255 if batch.patches.dtype == torch.uint8 else batch.patches
        return replace(batch, patches=self.views(patches))
