"""Whether tissue to predict is of another donor than those of the training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.messages import listed
from hist2scrna.spots.sections import read_sections

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel

log = logging.getLogger(__name__)


def another_donor(
    model: FittedModel,
    adata: AnnData,
    spots: Spots,
    *,
    group_key: str | None,
    another: bool | None,
) -> NDArray[np.bool_] | None:
    """Tell which spots are tissue of another donor; None where the model makes no difference.

    Parameters
    ----------
    model, adata, spots
        The model, and the spots with their features.
    group_key
        Column of `.obs` with the donor of each spot; None: that of the training, where it is there.
    another
        What the user says of all spots; None: a donor of the training by name is the same, another name another; where
        there are no names, a section is another donor's if its tissue is farther from the training than the sections
        of the training are from each other, or the training was one section.

    Raises
    ------
    KeyError, ValueError
        If `group_key` is not there, or a spot has no donor.
    """
    features = None if spots.features is None else torch.from_numpy(spots.features)
    if features is None or model.module.context.kind != "spot":
        return None
    with torch.no_grad():
        far = model.module.farther_than_sections(features, torch.from_numpy(spots.section))
    if far is None:
        return None
    if another is not None:
        return np.full(len(spots), another)
    trained_key = model.parameters.get("group_key")
    if group_key is None and trained_key in adata.obs:
        group_key = trained_key
    donors = model.training.get("donors") or []
    if group_key is not None and donors:
        names, group = read_sections(adata, group_key)
        flags: NDArray[np.bool_] = ~np.isin(np.array(names), donors)[group]
        _say(flags, spots, f"adata.obs[{group_key!r}] is not {listed(donors)}")
        return flags
    flags = far.numpy()
    _say(flags, spots, "the tissue is farther from that of the training than its sections are from each other")
    return flags


def _say(flags: NDArray[np.bool_], spots: Spots, reason: str) -> None:
    if flags.any():
        sections = [spots.sections[code] for code in np.unique(spots.section[flags])]
        log.info(
            "%s taken for tissue of another donor, since %s: intervals are wider, and programs that travel badly count "
            "less. Pass another_donor=False if it is not.",
            listed(sections),
            reason,
        )
