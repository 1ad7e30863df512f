"""The main job on simulated sections, where the truth is known: simulate, fit, predict, evaluate, draw."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
from rich.console import Console
from rich.table import Table

from hist2scrna import datasets, keys, pl, tl
from hist2scrna.files import replaced_whole
from hist2scrna.reporting.page import report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hist2scrna.evaluation.result import Evaluation
    from hist2scrna.trained.model import TrainedModel

N_SECTIONS, N_SPOTS, N_GENES = 5, 60, 80
NETWORK: dict[str, Any] = {
    "model": "hist2scrna",
    "preset": "tiny",
    "training": {"max_epochs": 60, "patience": 60, "lr": 2e-3},
}


def demo_sections(seed: int = 0) -> tuple[ad.AnnData, ad.AnnData]:
    """Return the training sections in one AnnData, and an unseen section of other tissue and stain."""
    sections = datasets.simulate("small", n_sections=N_SECTIONS, n_spots=N_SPOTS, n_genes=N_GENES, seed=seed)
    return ad.concat(sections[:-1], uns_merge="unique"), sections[-1]


def run_demo(out: Path, *, seed: int = 0) -> dict[str, Evaluation]:
    """Fit the default model and the vision transformer with graph attention, and write the results to a folder.

    Parameters
    ----------
    out
        Folder, created if it is not there; files of an earlier demo are replaced.
    seed
        Seed of the tissue and of the fits.

    Returns
    -------
    The evaluation of each model on the unseen section, by the name of the model, the default first.
    """
    console = Console()
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    train, unseen = demo_sections(seed)
    console.print(
        f"Simulated {N_SECTIONS} sections of {N_SPOTS} spots and {N_GENES} genes; the last is kept unseen. "
        f"Writing to {out}/"
    )
    evaluations: dict[str, Evaluation] = {}
    for arguments in ({}, NETWORK):
        model = tl.fit(train, labels_key=keys.CELL_TYPE, library_key=keys.LIBRARY, seed=seed, **arguments)
        console.print(model, highlight=False)
        evaluations[model.name] = _predict_and_write(model, unseen, out / model.name)
    console.print(_table(evaluations))
    console.print(f"{time.perf_counter() - start:.0f} s. In {out}/, a folder for each model: {', '.join(evaluations)}")
    return evaluations


def _predict_and_write(model: TrainedModel, unseen: ad.AnnData, out: Path) -> Evaluation:
    """Predict the unseen section, evaluate, and write model, prediction, metrics, figures and report to a folder."""
    out.mkdir(exist_ok=True)
    model.save(out / "model", overwrite=True)
    predicted = tl.predict(unseen.copy(), model, layers=keys.LAYERS, progress=False)
    with replaced_whole(out / "prediction.h5ad") as scratch:
        predicted.write_h5ad(scratch)
    evaluation = tl.evaluate(predicted, model, labels_key=keys.CELL_TYPE, progress=False)
    evaluation.to_json(out / "metrics.json")
    report(evaluation, out / "report.html", history=model)
    _draw(predicted, evaluation, out)
    return evaluation


def _draw(predicted: ad.AnnData, evaluation: Evaluation, out: Path) -> None:
    import matplotlib.pyplot as plt

    best = evaluation.genes["pearson"].nlargest(2).index.tolist()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        pl.spatial_compare(predicted, best, save=out / "spatial.png")
    plt.close("all")


def _table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Return Pearson by gene of each model and baseline, and as a share of what the true means reach."""
    scores = next(iter(evaluations.values())).results["scores"]["log_normalized"]
    pearson = {
        "true means of the simulation": scores["true_means"],
        **{name: found.results["scores"]["log_normalized"]["model"] for name, found in evaluations.items()},
        "depth baseline (knows the true total counts)": scores["depth_baseline"],
        "mean baseline": scores["mean_baseline"],
    }
    truth = scores["true_means"]["by_gene"]["pearson_mean"]
    table = Table(title="Unseen section: Pearson by gene of log-normalized expression, mean over genes")
    for column in ("", "Pearson", "share of the true means", "cell types right"):
        table.add_column(column, justify="left" if not column else "right")
    for name, entry in pearson.items():
        value = entry["by_gene"]["pearson_mean"] or 0.0
        accuracy = f"{evaluations[name].results['cell_types']['accuracy']:.0%}" if name in evaluations else ""
        table.add_row(name, f"{value:.3f}", f"{value / truth:.0%}", accuracy)
    return table
