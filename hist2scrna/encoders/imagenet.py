"""The built-in encoder: two small networks that were trained on ImageNet, on three fields of view."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from hist2scrna.encoders.efficientnet import COLORS, SHIFT, STRIDE, VARIANTS, EfficientNetLite
from hist2scrna.encoders.encoder import Encoder, TileMaps
from hist2scrna.encoders.windows import statistics_in

NAME, VERSION = "imagenet", "1"
TILES_NAME = "imagenet-tiles"
# Of the narrowest field of view. With pixels twice as wide, models of simulated cells were worse than on patches.
TILES_PIXEL_UM = 0.12
# One tells more than the other on some tissue, and the reverse elsewhere; both together tell more than either.
NETWORKS = ("lite0", "lite2")
# The patch on the spot, twice and four times as wide: better than each alone and than any two.
FIELDS_OF_VIEW = (1, 2, 4)
PX = 896
# The central mean leaves out a quarter of the map on each side, so that it needs four cells.
LEAST_CELLS = 4
AT_ONCE = 16


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3))


def _central_mean(maps: Tensor) -> Tensor:
    edge = maps.shape[-1] // LEAST_CELLS
    return _mean(maps[..., edge:-edge, edge:-edge])


def _deviation(maps: Tensor) -> Tensor:
    return maps.std(dim=(2, 3), correction=0)


STATISTICS = (_mean, _central_mean, _deviation)
CHANNELS = [channels for size in NETWORKS for channels in VARIANTS[size].channels[-2:]]
WIDTH = len(STATISTICS) * len(FIELDS_OF_VIEW) * sum(CHANNELS)


class ImageNetPair(nn.Module):
    """Two EfficientNet-Lites, and what is kept of the maps of their fourth and fifth stages.

    Of each map: the mean, the mean over its central half, and the standard deviation; 1,200 numbers together. The order
    is network, stage, statistic, map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleList(EfficientNetLite(size) for size in NETWORKS).requires_grad_(False)
        self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load_imagenet(self) -> None:
        """Take the ImageNet weights, from the packages that carry them.

        Raises
        ------
        ImportError
            If one is not installed.
        ValueError
            If a file is not the published one.
        """
        for network in self.networks:
            cast("EfficientNetLite", network).load_imagenet()

    def forward(self, patches: Tensor) -> Tensor:
        """Map normalized patches `(n, 3, h, w)` to `(n, 1200)`, float32 also where maps are bfloat16."""
        return torch.cat([statistic(maps) for maps in self.maps(patches) for statistic in STATISTICS], dim=1)

    def maps(self, patches: Tensor) -> list[Tensor]:
        """Map normalized patches `(n, 3, h, w)` to the maps of each network and stage, `(n, c, h / 16, w / 16)`."""
        patches = patches.contiguous(memory_format=torch.channels_last)
        found = [maps for network in self.networks for maps in network(patches)]
        return [maps.to(torch.promote_types(maps.dtype, torch.float32)) for maps in found]


class JoinedMaps(nn.Module):
    """The maps of both networks and stages as one."""

    def __init__(self, pair: ImageNetPair) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, tiles: Tensor) -> Tensor:
        """Map normalized tiles `(n, 3, h, w)` to `(n, 400, h / 16, w / 16)`, float32."""
        return torch.cat(self.pair.maps(tiles), dim=1)


def weights_sha256() -> str:
    """Return one SHA-256 that stands for both files of weights: that of their own, in order."""
    return hashlib.sha256("".join(VARIANTS[size].sha256 for size in NETWORKS).encode()).hexdigest()


def imagenet_encoder(*, pretrained: bool = True) -> Encoder:
    """Return the built-in encoder.

    An EfficientNet-Lite0 and a Lite2 (:class:`~hist2scrna.encoders.efficientnet.EfficientNetLite`), frozen, see each
    patch at its own width and as parts of patches twice and four times as wide: 3 x 1,200 features.

    Parameters
    ----------
    pretrained
        Take the ImageNet weights; else the networks stay random, for comparison.

    Raises
    ------
    ImportError
        If a package with weights is not installed.
    ValueError
        If a file of weights is not the published one.
    """
    pair = ImageNetPair().eval()
    if pretrained:
        pair.load_imagenet()
    return Encoder(
        NAME if pretrained else f"{NAME} (random weights)",
        pair,
        version=VERSION,
        colors=COLORS,
        px=PX,
        fields_of_view=FIELDS_OF_VIEW,
        token_px=STRIDE,
        least_tokens=LEAST_CELLS,
        width=WIDTH,
        license="Apache-2.0",
        pooling="mean, central mean and deviation",
        weights=", ".join(VARIANTS[size].package for size in NETWORKS) if pretrained else "none",
        sha256=weights_sha256() if pretrained else "none",
        by_name=pretrained,
        at_once=AT_ONCE,
    )


def imagenet_tiles_encoder() -> Encoder:
    """Return the built-in networks for dense cells: the image is encoded once, and each cell reads its place.

    Where cells lie closer than their patches are wide, patches show the same tissue again and again. Here tiles of the
    image, at the pixels of each field of view, pass through the networks once, and the statistics of each cell are
    taken in its three windows of the maps: the same 3,600 numbers. They differ from those of patches of the same pixels
    in what a patch does not know, its surroundings, and in being centered to a fraction of a token.

    The narrowest field of view has pixels of about 0.12 um, at least four tokens a side.
    """
    encoder = imagenet_encoder()
    pair = cast("ImageNetPair", encoder.network)
    return replace(
        encoder,
        name=TILES_NAME,
        px=512,
        um_per_px=TILES_PIXEL_UM,
        maps=TileMaps(JoinedMaps(pair).eval(), SHIFT, read_windows),
    )


def read_windows(integrals: Tensor, places: Tensor, side: float) -> Tensor:
    """Return the features of windows of the maps of a tile, `(m, 1200)`, in the order of :class:`ImageNetPair`."""
    mean, deviation = statistics_in(integrals, places, side)
    central, _ = statistics_in(integrals, places, side / 2)
    parts = (each.split(CHANNELS, dim=1) for each in (mean, central, deviation))
    return torch.cat([part for maps in zip(*parts, strict=True) for part in maps], dim=1)
