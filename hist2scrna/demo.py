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
from hist2scrna.reporting.page import report

if TYPE_CHECKING:
    from hist2scrna.evaluation.result import Evaluation
    from hist2scrna.trained.model import TrainedModel

N_SECTIONS, N_SPOTS, N_GENES = 7, 150, 120
TRAINING: dict[str, Any] = {
    "model": "hist2scrna",
    "preset": "tiny",
    "training": {"max_epochs": 80, "patience": 80, "lr": 2e-3},
}


def demo_sections(seed: int = 0) -> tuple[ad.AnnData, ad.AnnData]:
    """Return the training sections in one AnnData, and an unseen section of other tissue and stain."""
    sections = datasets.simulate("small", n_sections=N_SECTIONS, n_spots=N_SPOTS, n_genes=N_GENES, seed=seed)
    return ad.concat(sections[:-1], uns_merge="unique"), sections[-1]


def demo_fit(train: ad.AnnData, *, graph: bool = True, seed: int = 0, progress: bool = True) -> TrainedModel:
    """Fit the demo's model; `graph=False` cuts all edges and leaves everything else as it is."""
    return tl.fit(
        train,
        labels_key=keys.CELL_TYPE,
        library_key=keys.LIBRARY,
        graph=graph,
        seed=seed,
        progress=progress,
        **TRAINING,
    )


def run_demo(out: Path, *, seed: int = 0) -> tuple[Evaluation, Evaluation]:
    """Run the demo and write its results to a folder.

    Parameters
    ----------
    out
        Folder, made if it is not there; files of an earlier demo are replaced.
    seed
        Of the tissue and of the training.

    Returns
    -------
    The evaluation of the model, and of the same model without a graph.
    """
    console = Console()
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    train, unseen = demo_sections(seed)
    console.print(
        f"Simulated {N_SECTIONS} sections of {N_SPOTS} spots and {N_GENES} genes; the last is kept unseen. "
        f"Writing to {out}/"
    )
    model = demo_fit(train, seed=seed)
    console.print(model, highlight=False)
    model.save(out / "model", overwrite=True)
    console.print("The same model without the graph, for comparison:")
    alone = demo_fit(train, graph=False, seed=seed)

    scores = []
    for fitted in (model, alone):
        predicted = tl.predict(unseen.copy(), fitted, layers=keys.LAYERS, progress=False)
        scores.append(tl.evaluate(predicted, fitted, labels_key=keys.CELL_TYPE, progress=False))
        if fitted is model:
            predicted.write_h5ad(out / "prediction.h5ad")
            _draw(predicted, fitted, scores[0], out)
    scores[0].to_json(out / "metrics.json")
    report(scores[0], out / "report.html", history=model)
    scores[1].to_json(out / "metrics_without_graph.json")
    console.print(_table(*scores))
    written = ", ".join(sorted(path.name for path in out.iterdir()))
    console.print(f"{time.perf_counter() - start:.0f} s. In {out}/: {written}")
    return scores[0], scores[1]


def _draw(predicted: ad.AnnData, model: TrainedModel, score: Evaluation, out: Path) -> None:
    import matplotlib.pyplot as plt

    best = score.genes["pearson"].nlargest(2).index.tolist()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        pl.spatial_compare(predicted, best, save=out / "spatial.png")
        pl.history(model, save=out / "history.png")
    plt.close("all")


def _table(score: Evaluation, alone: Evaluation) -> Table:
    scores, reached = score.results["scores"]["log_normalized"], alone.results["scores"]["log_normalized"]["model"]
    truth = scores["true_means"]["by_gene"]["pearson_mean"]
    table = Table(title="Unseen section: Pearson by gene of log-normalized expression, mean over genes")
    for column in ("", "Pearson", "of what the true means reach"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        "true means of the simulation": truth,
        "hist2scrna": scores["model"]["by_gene"]["pearson_mean"],
        "hist2scrna without the graph": reached["by_gene"]["pearson_mean"],
        "depth baseline (knows the true total counts)": scores["depth_baseline"]["by_gene"]["pearson_mean"],
        "mean baseline": scores["mean_baseline"]["by_gene"]["pearson_mean"],
    }
    for name, value in rows.items():
        table.add_row(name, f"{value or 0:.3f}", f"{(value or 0) / truth:.0%}")
    accuracy = score.results["cell_types"]["accuracy"]
    table.caption = f"Cell types: {accuracy:.0%} of spots right."
    return table
