"""Training on several devices: one process each, which torchrun starts."""

from __future__ import annotations

import os

from torch.distributed import is_torchelastic_launched


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
