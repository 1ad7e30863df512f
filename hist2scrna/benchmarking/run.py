"""One job of a benchmark in a process of its own: `python -m hist2scrna.benchmarking.run FOLDER PARENT`.

A process of its own has a peak memory of its own, starts from the same state each time, and takes no other job with it
when it runs out of memory. The folder holds `request.json`; the results are written next to it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import torch

from hist2scrna import keys
from hist2scrna.benchmarking.fit import fit
from hist2scrna.benchmarking.job import EVALUATION, HISTORY, MODEL, evaluation_of
from hist2scrna.benchmarking.process import end_with_parent, peak_memory
from hist2scrna.benchmarking.sections import SlotSelection, without_expression
from hist2scrna.evaluation.evaluate import evaluate
from hist2scrna.evaluation.read_prediction import layers_to_score
from hist2scrna.fitting.inference import pick_device
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.provenance import package_versions
from hist2scrna.spots.counts import read_counts
from hist2scrna.spots.slides import pooled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hist2scrna.trained.model import TrainedModel

REQUEST, MEASURED, ERROR = "request.json", "measured.json", "error.json"
# Of binomial thinning and the like: the same for all jobs, so that they share their ceiling.
EVALUATION_SEED = 0
MIB = 2**20


def run_job(folder: Path) -> None:
    """Fit on the training sections, predict the held-out ones without their expression, and evaluate.

    Parameters
    ----------
    folder
        Holds `request.json`: `train` and `test`, paths of .h5ad files with counts in `.X`; `options` and `seed` for
        `fit`; `module`, which registers the model; `slots`, what is read; `scored`, sections that are scored each by
        itself; `accelerator`; `keep_model`. Written here: `evaluation.json` (of such sections one each, in
        `evaluations/`), `history.csv`, `measured.json`, and `model/` if it is to be kept.
    """
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    if request["module"] is not None:
        importlib.import_module(request["module"])
    slots = SlotSelection(**{**request["slots"], "layer": None})
    train = ad.read_h5ad(request["train"])
    start = time.perf_counter()
    model = fit(
        train,
        library_key=slots.library_key,
        group_key=slots.group_key,
        labels_key=slots.labels_key,
        seed=request["seed"],
        training={"accelerator": request["accelerator"], **request["options"].get("training", {})},
        progress=False,
        **{name: value for name, value in request["options"].items() if name != "training"},
    )
    fitted = time.perf_counter()
    test = ad.read_h5ad(request["test"])
    unmeasured = without_expression(test, slots)
    read = time.perf_counter()
    predicted = model.predict(
        unmeasured,
        layers=layers_to_score(model),
        library_key=slots.library_key,
        accelerator=request["accelerator"],
        progress=False,
        **{key: request["options"][key] for key in ("img_key", "image", "mpp") if key in request["options"]},
    )
    done = time.perf_counter()
    n_unknown = _add_truth(predicted, test, model, slots.labels_key)
    # The baselines of every model are fitted on the same spots, whatever it held out for validation.
    baselines = Baselines.fit(read_counts(train, model.genes, None, whole=not pooled(train)))
    _score(folder, predicted, replace(model, baselines=baselines), slots, request["scored"])
    model.history.to_csv(folder / HISTORY)
    if request["keep_model"]:
        model.save(folder / MODEL)
    measured = {
        "fit_seconds": round(fitted - start, 3),
        "predict_seconds": round(done - read, 3),
        "n_spots_train": train.n_obs,
        "n_spots_of_unknown_type": n_unknown,
        **_of_process(request["accelerator"]),
        **_of_model(model),
    }
    (folder / MEASURED).write_text(json.dumps(measured, default=str), encoding="utf-8")


def _score(
    folder: Path, predicted: ad.AnnData, model: TrainedModel, slots: SlotSelection, scored: Sequence[str]
) -> None:
    """Evaluate what was held out, all together or section by section."""
    section = predicted.obs[slots.library_key].astype(str)
    parts = {evaluation_of(folder, name): predicted[section == name].copy() for name in scored}
    for path, part in (parts or {folder / EVALUATION: predicted}).items():
        path.parent.mkdir(exist_ok=True)
        evaluate(
            part,
            model,
            key=keys.KEY_ADDED,
            layer=None,
            labels_key=slots.labels_key if model.classes else None,
            library_key=slots.library_key,
            nuclei=None,
            seed=EVALUATION_SEED,
            progress=False,
        ).to_json(path)


def _of_process(accelerator: str) -> dict[str, Any]:
    """Return the device of this process, its peak memory, and the versions of its packages."""
    device = pick_device(accelerator)
    on_gpu = device.type == "cuda"
    return {
        "peak_memory_mib": round(peak_memory() / MIB, 1),
        "gpu_peak_memory_mib": round(torch.cuda.max_memory_allocated(device) / MIB, 1) if on_gpu else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "versions": package_versions(),
    }


def _of_model(model: TrainedModel) -> dict[str, Any]:
    """Return the size of a model, and how it was fitted."""
    return {
        "n_parameters": model.n_parameters,
        "epochs_run": len(model.history),
        "best_epoch": model.training["best_epoch"],
        "validation": model.training["validation"],
        "model": {"name": model.name, "options": model.options, "parameters": model.parameters},
    }


def _add_truth(predicted: ad.AnnData, test: ad.AnnData, model: TrainedModel, labels_key: str | None) -> int:
    """Put the counts and labels next to the predictions; returns the number of spots with a type never trained on."""
    modeled = test[:, predicted.var_names]
    predicted.X = modeled.X.copy()
    for name, layer in modeled.layers.items():
        predicted.layers[name] = layer
    if labels_key is None or not model.classes:
        return 0
    labels = test.obs[labels_key].astype("category")
    unknown = labels.notna() & ~labels.astype(str).isin(model.classes)
    predicted.obs[labels_key] = labels.mask(unknown).cat.remove_unused_categories()
    return int(unknown.sum())


def attempt(folder: Path) -> int:
    """Run the job of a folder; returns 1 after an error, which is printed and kept next to the request."""
    try:
        run_job(folder)
    except Exception as error:  # noqa: BLE001 - whatever a job raises is reported, and the other jobs go on
        traceback.print_exc()
        line = " ".join(str(error).split()) or repr(error)
        content = {"error": f"{type(error).__name__}: {line}"}
        (folder / ERROR).write_text(json.dumps(content), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    end_with_parent(parent=int(sys.argv[2]))
    sys.exit(attempt(Path(sys.argv[1])))
