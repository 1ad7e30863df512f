"""Whose the tissue to predict is: of a donor of the training, or of another."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.messages import listed, require_key

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel

log = logging.getLogger(__name__)


def read_donors(
    model: FittedModel, obs: pd.DataFrame, spots: Spots, *, group_key: str | None, another: bool | None
) -> NDArray[np.int64] | None:
    """Return which donor of the training each spot is of, `(n,)`, -1: another; None where the model does not ask.

    Parameters
    ----------
    model, obs, spots
        The model, `.obs` of the spots, and the spots with their features.
    group_key
        Column of `.obs` with the donor of each spot; None: that of the training, where it is there.
    another
        What the user says of all spots; None: a donor of the training by name is the same, another name another.
        Where there are no names, a section is another donor's if its tissue is farther from the training than the
        sections of the training are from each other, or the training was one section, or several donors.

    Raises
    ------
    KeyError, ValueError
        If `group_key` is not there; if `another` is False, and the training was on several.
    """
    if spots.features is None or model.module.context.kind != "spot":
        return None
    tokens, section = torch.from_numpy(spots.features), torch.from_numpy(spots.section)
    with torch.no_grad():
        far = model.module.farther_than_sections(tokens, section)
    if far is None:
        return None
    donors = list(model.training.get("donors") or [])
    if another is False and len(donors) > 1:
        raise ValueError(
            f"another_donor=False does not say which of {donors} the tissue is of. Name it in a column of adata.obs, "
            "and pass group_key=."
        )
    if another is not None:
        return np.full(len(spots), -1 if another else 0)
    trained_key = model.parameters.get("group_key")
    if group_key is None and trained_key in obs:
        group_key = trained_key
    if group_key is not None and donors:
        require_key(obs, group_key, "adata.obs")
        place = {name: number for number, name in enumerate(donors)}
        codes = np.array([place.get(str(name), -1) for name in obs[group_key]])
        _say(codes, spots, f"adata.obs[{group_key!r}] is not {listed(donors)}")
    elif len(donors) > 1:
        codes = np.full(len(spots), -1)
        _say(codes, spots, "no donor of the training was named by group_key=")
    else:
        codes = np.where(far.numpy(), -1, 0)
        alone = len(model.training["sections"]) == 1
        farther = "it is farther from the tissue of the training than its sections are from each other"
        _say(codes, spots, "one section was trained on, which does not tell donors apart" if alone else farther)
    return codes.astype(np.int64)


def _say(codes: NDArray[np.int64], spots: Spots, reason: str) -> None:
    if (codes < 0).any():
        sections = [spots.sections[code] for code in np.unique(spots.section[codes < 0])]
        log.info(
            "%s taken for tissue of another donor, since %s: intervals are wider. See another_donor= of predict",
            listed(sections),
            reason,
        )
