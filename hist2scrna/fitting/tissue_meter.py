"""The tissue of a training, learned at the end of a fit; and that of other spots, compared with it as it is read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hist2scrna.fitting.closed_form.folds import left_out_groups
from hist2scrna.fitting.inference import encode_spots
from hist2scrna.fitting.pictures import describe, read_pictures, source_of, tiles_showing
from hist2scrna.fitting.sight import AT_ONCE, Sight
from hist2scrna.fitting.split import some_of
from hist2scrna.fitting.tissue import ENCODER, ENCODING, FEATURES, FEWEST, Tissue

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.metrics.blocks import Floats
    from hist2scrna.models.contract import SpotModel
    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Training spots that are looked at where features are at hand, and where patches are to be encoded for it.
MOST_FEATURES, MOST_PATCHES = 5000, 400


def learn_tissue(
    model: SpotModel,
    spots: Spots,
    training: NDArray[np.int64],
    sight: Sight | None,
    *,
    device: torch.device,
    seed: int,
) -> Tissue | None:
    """Return what tells tissue like the training from other tissue; None of fewer than ten spots.

    Parameters
    ----------
    model
        The fitted model.
    spots, training
        All spots, and the numbers of those that trained. At most 5,000 are looked at, and 400 where patches are to be
        encoded for it.
    sight
        The sharpness of the patches, where these have been encoded before; None: they are read here.
    device
        Where patches are encoded.
    seed
        Of the draw.
    """
    source = source_of(model, spots)
    if source is None:
        return None
    rng = np.random.default_rng(seed)
    if source == FEATURES:
        members = some_of(rng, training, MOST_FEATURES)
        looks = [look[members] for look in (spots.features, spots.second_look) if look is not None]
    else:
        if spots.tiles is not None:
            training = training[tiles_showing(spots, training) >= 0]
        members = some_of(rng, training, MOST_PATCHES)
        sight = Sight.of(spots)
        looks = [_look(source, model, spots, members, sight, device)] if len(members) else []
    if len(members) < FEWEST:
        return None
    group = left_out_groups(spots, members).number
    sharp = np.empty(0, dtype=np.float32) if sight is None else sight.values[training]
    if spots.are_sums and sight is not None:
        further, whose, its_sharp = _look_by_nucleus(spots, members, sight, device, rng)
        looks, group = [np.concatenate([looks[0], further])], np.concatenate([group, group[whose]])
        sharp = np.concatenate([sharp, its_sharp])
    sharp = sharp[np.isfinite(sharp)]
    if sight is None or len(sharp) < FEWEST:
        return Tissue.of(source, looks, group, rng)
    return Tissue.of(source, looks, group, rng, sharp, sight.view, sight.side)


def _look(
    source: str, model: SpotModel, spots: Spots, members: NDArray[np.int64], sight: Sight, device: torch.device
) -> NDArray[np.float32]:
    """Return the features of what shows some spots, `(members, d)`, and measure how sharp it is."""
    features: NDArray[np.float32] | None = None
    for chunk, pictures, place in read_pictures(spots, members):
        sight.values[chunk] = sight.measure(pictures)[place]
        if source == ENCODER:
            seen = describe(pictures, device, len(members))[place]
            features = np.empty((len(members), seen.shape[1]), dtype=np.float32) if features is None else features
            features[np.searchsorted(members, chunk)] = seen
    if features is None:
        return encode_spots(model, spots, members, batch_size=AT_ONCE, device=device, progress=False).numpy()
    return features


def _look_by_nucleus(
    spots: Spots, members: NDArray[np.int64], sight: Sight, device: torch.device, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return what shows the nuclei of some spots where these are predicted by themselves, in tiles side by side.

    Such a tile is not centered on tissue that was measured, and at the rim of a section it shows more glass.

    Returns
    -------
    `(k, d)` features, `(k,)` the place among `members` of a spot that each shows, and `(k,)` how sharp each is.
    """
    assert spots.tiles is not None
    tile = tiles_showing(spots, members)
    places, shown = spots.tiles.side_by_side(tile)
    some = some_of(rng, np.arange(len(places)), MOST_PATCHES)
    features, sharp = [], []
    for start in range(0, len(some), AT_ONCE):
        pictures = torch.from_numpy(
            np.stack([spots.tiles.picture(*places[number].tolist()) for number in some[start : start + AT_ONCE]])
        )
        features.append(describe(pictures, device, len(some)))
        sharp.append(sight.measure(pictures))
    order = np.argsort(tile)
    whose = order[np.searchsorted(tile[order], shown[some])]
    return np.concatenate(features), whose, np.concatenate(sharp)


class TissueMeter:
    """Compares the tissue of spots with that of the training, as their patches are read.

    Parameters
    ----------
    tissue
        The tissue of the training.
    spots
        All spots to predict.
    model, device
        The model, and where patches are encoded.
    """

    def __init__(self, tissue: Tissue, spots: Spots, model: SpotModel, device: torch.device) -> None:
        self.tissue, self.spots, self.model, self.device = tissue, spots, model, device
        self.sight = Sight(len(spots), tissue.view, tissue.side)
        self._distance = np.full(len(spots), np.nan)

    def see(
        self,
        members: NDArray[np.int64],
        pictures: Tensor | None,
        encoded: Tensor | None = None,
        place: NDArray[np.int64] | None = None,
    ) -> None:
        """Compare some spots; where their features come later, only how sharp they are is measured.

        Parameters
        ----------
        members
            Numbers of the spots.
        pictures
            The patches or tiles that show them, uint8; None: the model reads none.
        encoded
            Their encodings by the model.
        place
            Which of the pictures shows each; None: there is one for each.
        """
        if pictures is None:
            return
        place = np.arange(len(members)) if place is None else place
        self.sight.values[members] = self.sight.measure(pictures)[place]
        features: Any = None
        if self.tissue.source == ENCODER:
            features = describe(pictures.cpu(), self.device, len(self.spots))[place]
        elif self.tissue.source == ENCODING and encoded is not None:
            features = encoded.float().cpu().numpy()
        if features is not None:
            self._distance[members] = self.tissue.distance(features, self.sight.values[members])

    def distance(self) -> Floats:
        """Return how far the tissue of all spots is, `(n,)`; what was not seen on the way is read now.

        NaN for nuclei that no tile shows.
        """
        everyone = np.arange(len(self.spots))
        if self.tissue.source == FEATURES:
            assert self.spots.features is not None
            self.sight.complete(self.spots, everyone)
            return self.tissue.distance(self.spots.features, self.sight.values)
        unseen = everyone[np.isnan(self._distance)]
        for chunk, pictures, place in read_pictures(self.spots, unseen):
            encoded = None
            if self.tissue.source == ENCODING:
                where: dict[str, Any] = {"batch_size": AT_ONCE, "device": self.device, "progress": False}
                encoded = encode_spots(self.model, self.spots, chunk, **where)
            self.see(chunk, pictures, encoded, place)
        return self._distance
