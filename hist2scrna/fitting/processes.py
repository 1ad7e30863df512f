"""Training on several devices: one process each, which torchrun starts."""

from __future__ import annotations

import os
from typing import NamedTuple

from torch.distributed import is_torchelastic_launched


class Place(NamedTuple):
    """Which of several processes this is, from 0, and of how many."""

    rank: int
    of: int


ALONE = Place(0, 1)


def place_among(devices: int) -> Place:
    """Return the place of this process among those that train one model on so many devices."""
    return ALONE if devices == 1 else Place(int(os.environ["RANK"]), devices)


def n_machines(devices: int) -> int:
    """Return the number of machines on which torchrun started a process for each device."""
    return 1 if devices == 1 else devices // int(os.environ.get("LOCAL_WORLD_SIZE", devices))


def require_processes(devices: int) -> None:
    """Refuse several devices in a process that was not started once for each of them.

    Lightning would start the others by itself: from a script by running all of it again, which then reads, predicts and
    saves twice, and from a notebook in copies whose model never comes back.

    Raises
    ------
    ValueError
        If the number of processes is another one; it says how to start them.
    """
    started = int(os.environ["WORLD_SIZE"]) if is_torchelastic_launched() else 1
    if devices in (1, started):
        return
    raise ValueError(
        f"devices={devices} needs one process a device, and here is {started}. Put the fit into a script and start it "
        f"with: torchrun --nproc-per-node {devices} script.py (a notebook cannot be started so), or in the shell: "
        f"torchrun --nproc-per-node {devices} --no-python hist2scrna fit ... --devices {devices}. The script runs once "
        "in each process, and the first alone saves the model. Or leave `devices` out."
    )


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of those that torchrun started: the one that writes."""
    return not is_torchelastic_launched() or os.environ.get("RANK", "0") == "0"
