"""Where a training is kept, and what must be the same for it to go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hist2scrna.encoders.weights import state_sha256
from hist2scrna.files import require_writable
from hist2scrna.fitting.checkpoint import BEST
from hist2scrna.fitting.identity import sha256
from hist2scrna.trained.files import check_replaceable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hist2scrna.fitting.closed_form.donors import DonorCounts
    from hist2scrna.fitting.result import Split
    from hist2scrna.trained.model import TrainedModel
    from hist2scrna.trained.plan import FitPlan


def training_identity(
    draft: TrainedModel, split: Split, plan: FitPlan, seen: Mapping[str, Any], expression: Sequence[DonorCounts] = ()
) -> dict[str, Any]:
    """Return what must be the same for a training to go on: arguments, counts, spots and what was seen of them."""
    trained = {k: v for k, v in draft.parameters["training"].items() if k not in ("checkpoint_dir", "accelerator")}
    start = plan.request.init_from
    return {
        "model": draft.name,
        "options": draft.options,
        "genes": draft.genes,
        "classes": draft.classes,
        "encoder": draft.encoder,
        "parameters": {**draft.parameters, "training": trained},
        "counts": sha256(draft.fingerprints),
        "split": sha256(split.training, split.validating),
        "init_from": str(start) if isinstance(start, str | Path | None) else state_sha256(start.module.state_dict()),
        "expression": {
            other.name: sha256(other.counts.data, other.counts.indices, other.counts.indptr) for other in expression
        },
        **seen,
    }


def check_checkpoint_folder(folder: str | Path | None) -> None:
    """Refuse a `checkpoint_dir` in which nothing can be kept, before anything is read.

    Raises
    ------
    FileExistsError, OSError
        If something else lies where the best model is kept, or nothing can be written there.
    """
    if folder is not None:
        check_replaceable(Path(folder) / BEST, overwrite=True)
        require_writable(Path(folder) / BEST)
