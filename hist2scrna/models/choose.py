"""Which model `model="auto"` stands for: a pure function of the data."""

from __future__ import annotations

from dataclasses import dataclass

AUTO = "auto"
# On some 1,000 real spots the kernel model was ahead of networks; on simulated ones they cross between 5,000 and 20,000
# (benchmarks/choice.py, with a small network).
MOST_SPOTS = 20_000
RGB = 3


@dataclass(frozen=True)
class Choice:
    """A model, and why it was chosen; `reason` is empty where the user named it."""

    name: str
    reason: str = ""


def choose_model(n_spots: int, *, channels: int = RGB, patch_files: bool = False, features_key: bool = False) -> Choice:
    """Choose the model that suits the data.

    Parameters
    ----------
    n_spots
        Number of spots.
    channels
        Channels of the images; more than three for several stains.
    patch_files
        Whether the patches lie in files.
    features_key
        Whether features were extracted beforehand.
    """
    if not features_key and patch_files:
        return Choice("hist2scrna", "patches in files are read by a network")
    if not features_key and channels != RGB:
        return Choice("hist2scrna", f"images of {channels} channels are read by a network")
    if n_spots <= MOST_SPOTS:
        return Choice("kernel", f"{n_spots:,} spots, and up to {MOST_SPOTS:,} are fitted in closed form")
    return Choice("hist2scrna-lightweight", f"{n_spots:,} spots, more than the {MOST_SPOTS:,} of the kernel model")
