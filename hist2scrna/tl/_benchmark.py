"""Any models on any data sets, by section or donor, next to baselines and the noise ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hist2scrna.benchmarking.execute import run_benchmark
from hist2scrna.benchmarking.plan import BenchmarkSpec
from hist2scrna.messages import arguments_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from hist2scrna.benchmarking.arguments import Dataset, Models
    from hist2scrna.benchmarking.folds import Splits


@arguments_known
def benchmark(
    datasets: Mapping[str, Dataset] | Dataset,
    models: Models = ("auto",),
    *,
    folder: str | Path,
    group_key: str | None = None,
    folds: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    splits: Splits | None = None,
    seeds: Sequence[int] = (0,),
    genes: Sequence[str] | str | None = None,
    n_genes: int | None = None,
    min_detected: float = 0.1,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    keep_models: bool = False,
    accelerator: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Compare models on held-out sections or donors; started again, it goes on where it was interrupted.

    Each job is one model with one seed on one fold: fitted on the training sections, it predicts the held-out ones from
    an AnnData without their expression, and is evaluated by :func:`hist2scrna.tl.evaluate`. Jobs run one after the
    other, each in a process of its own, so that its peak memory is its own and a job that is killed takes no other with
    it. The mean baseline and the depth baseline are fitted on all training sections of the fold, the same for all
    models.

    Parameters
    ----------
    datasets
        AnnData, or paths of .h5ad or .zarr, by name; or only one. They are not changed. Rows may be slides
        (:func:`hist2scrna.pp.pool_patches`), for models on features: `library_key` then names the column of which all
        slides of one value are held out together, since they are compared with one another.
    models
        Names of models with their own recipes, or by label the arguments of :func:`hist2scrna.tl.fit`:
        `{"ours": {"model": "hist2scrna", "preset": "tiny"}, "ridge": {"model": "ridge", "features_key": "X_uni"}}`.
        Plain values only. `"labels_key": ""` leaves the cell types out for one model; `"folds": [...]` runs it on these
        folds (or splits) alone, where it would take too long on all: the table says on which it was run.
    folder
        Where results are written and complete jobs are found again; one benchmark at a time.
    group_key
        Column of `.obs` of which each value is held out in turn, for instance the donor; None: the section. A section
        is never split. Each fit is given it too, to validate on other donors than it trains on.
    folds
        Which of these values to hold out, while all others are trained on; None: each. A list, or lists by data set.
    splits
        Pairs of what to train on and what to test on, by a name, in place of folds: `{"C to B4": (["C2", "C3"],
        ["B4"])}`. The names in the lists are sections, or values of `group_key` where that is given. What is in neither
        list is not used; the splits are the same for every data set. One fit serves all test sections of a split, and
        each of these is scored by itself.
    seeds
        Seeds of the training; every model runs with each.
    genes
        Genes to predict: names, or a boolean column of `.var`; None: all, or see `n_genes`.
    n_genes
        Choose that many genes instead, in each fold on its training sections alone: those with the highest variance of
        log(1 + 1e4 x / total) among the genes that are detected often enough.
    min_detected
        Share of the training spots in which a gene must have a count to be chosen by `n_genes`.
    layer
        Layer with raw counts; None: `.X`.
    labels_key
        Categorical column of `.obs` with cell types; None: no such head.
    library_key
        Column of `.obs` with the section of each spot; None: `"library_id"`.
    keep_models
        Keep the trained models too, in `model/` of each job that is run.
    accelerator
        `"auto"`, `"cpu"`, `"gpu"`, `"cuda"` or `"mps"`.
    progress
        Show a bar, and for each job a line that says what runs and where it is written.

    Returns
    -------
    One row a data set (and split, where these are given) and model, and after its models the `"mean baseline"`, the
    `"depth baseline"` and the `"noise ceiling"` (`kind` `"model"`, `"baseline"` or `"noise ceiling"`). Scores are
    averaged over the seeds of a fold, then over folds; of a given split, over its test sections:

    - `folds` (their names; of a given split those of its test sections), `n_folds`, `n_seeds`, `n_jobs`, `n_failed`
      (rows of the jobs).
    - `pearson`, `depth_partial`, `log_likelihood` (a count, natural logarithm), each with the 95 % interval `_low` to
      `_high`: Student's t over the folds. Folds share training sections, so that the true interval is wider. That of a
      given split is over its test sections, and says nothing about further donors.
    - `score_over_ceiling`, `spread_ratio`, `coverage_50`, `coverage_80`, `coverage_95`, `width_50`, `width_80`,
      `width_95` (counts within the interval, median gene), `beats_mean_baseline`, `beats_depth_baseline` (shares of
      genes), `n_collapsed` (jobs), `folds_beating_depth_baseline` (by Pearson).
    - `fit_seconds`, `predict_seconds`, `peak_memory_mib` (of the process, evaluation included), `gpu_peak_memory_mib`,
      `n_parameters`, `epochs_run`.
    - `within_slides_spearman`, of slides: rank correlation over the genes within a slide, median; the mean baseline's
      beside it.
    - `n_genes`, `panel`, `panel_sha256`, `normalization`, `smoothing`, `split` (how folds were made, or the name of the
      given split), `noise_ceiling` (its method): what the numbers must be read with.

    `.attrs["folder"]` names the folder. Files there:

    `table.csv`, `table.json`, `table.md`
        This table.
    `jobs.csv`, `jobs.json`
        One row a job (of given splits one a test section, its name in `fold`), with its `status` (`"complete"` or
        `"failed: ..."`), and the baselines and the ceiling of each fold.
    `<data set>/<fold or split>/<label>/<seed>/`
        `evaluation.json` (of given splits `evaluations/<section>.json`), `history.csv`, `job.json` (settings, times,
        memory, versions), `log.txt`, `model/`. It appears only once it is complete. Of a failed job,
        `<seed>.failed.txt` holds what it printed; it runs again at the next start.

    Raises
    ------
    BlockingIOError
        If another benchmark is at work in `folder`.
    FileExistsError
        If a job in `folder` had other settings (options, genes, data, split); the message names which.
    FileNotFoundError
        If a data set is missing.
    KeyError, TypeError, ValueError
        If an argument, model, option, slot, group or split is wrong, for any data set, before anything runs.

    Examples
    --------
    >>> models = {"ridge": {"model": "ridge", "encoder": "morphology"}}
    >>> table = h2s.tl.benchmark(train, models, folder="benchmark", folds=["section_0"], progress=False)
    >>> list(table["model"])
    ['ridge', 'mean baseline', 'depth baseline', 'noise ceiling']
    """
    spec = BenchmarkSpec(
        datasets=datasets,
        models=models,
        group_key=group_key,
        folds=folds,
        splits=splits,
        seeds=seeds,
        genes=genes,
        n_genes=n_genes,
        min_detected=min_detected,
        layer=layer,
        labels_key=labels_key,
        library_key=library_key,
    )
    return run_benchmark(spec, folder=folder, keep_models=keep_models, accelerator=accelerator, progress=progress)
