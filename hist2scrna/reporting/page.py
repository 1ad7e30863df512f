"""Compose the page, and write it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anndata import AnnData
from jinja2 import UndefinedError

from hist2scrna import keys
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.files import replaced_whole
from hist2scrna.reporting.content import page_content
from hist2scrna.reporting.figures import draw_all
from hist2scrna.reporting.gene_table import gene_data
from hist2scrna.reporting.overview import overview_content
from hist2scrna.reporting.render import render
from hist2scrna.trained.model import TrainedModel, as_trained

if TYPE_CHECKING:
    import pandas as pd


def report(
    source: Evaluation | AnnData | str | Path,
    out: str | Path,
    *,
    title: str | None = None,
    history: TrainedModel | pd.DataFrame | str | Path | None = None,
    key: str | None = None,
) -> Path:
    """Write an evaluation, or a prediction, as one self-contained HTML page: no network, no other file.

    The page of an evaluation says what was scored and how. It shows the headline next to the baselines and the noise
    ceiling, all plots of the evaluation, a table of genes to sort, search and download, the cell types, how to
    reproduce the numbers, and what they do not show. A plot that cannot be drawn is named with the reason.

    The page of a prediction needs no measured counts. For each section it maps cell types, library size, uncertainty,
    the distance from the training tissue and the genes that vary most, and says what share is unlike the training.

    Parameters
    ----------
    source
        What :func:`hist2scrna.tl.evaluate` returned, or the path of the JSON that its `to_json` wrote; or the AnnData
        that :func:`hist2scrna.tl.predict` returned.
    out
        Path of the page. A file of that name is replaced once the new page is complete; missing folders are created.
    title
        Heading of the page; None: the name of the model and the sections.
    history
        Of an evaluation: a model, its folder, or its `.history`, whose losses are drawn too; None: they are left out,
        as an evaluation does not hold them.
    key
        Of a prediction: its prefix, as `key_added` of :func:`hist2scrna.tl.predict`; None: `"hist2scrna"`.

    Returns
    -------
    :class:`pathlib.Path` of the page.

    Raises
    ------
    FileNotFoundError
        If there is no such evaluation, or no such model.
    IsADirectoryError
        If `out` is a folder.
    KeyError
        If the AnnData has no prediction under `key`.
    TypeError
        If `source` is neither.
    ValueError
        If the JSON is damaged, no evaluation, or one of a newer version; `out` is neither free nor a file; no spot has
        a prediction; or an argument is of the other kind of page.

    Examples
    --------
    >>> h2s.report(h2s.tl.evaluate(test, model, progress=False), "report.html")
    PosixPath('report.html')
    >>> h2s.report(h2s.tl.predict(test, model, progress=False), "prediction.html")
    PosixPath('prediction.html')
    """
    path = _checked(Path(out))
    if isinstance(source, AnnData):
        if history is not None:
            raise ValueError("`history` belongs to the page of an evaluation. Draw it with pl.history(model).")
        content = overview_content(source, keys.KEY_ADDED if key is None else key, path.name, title)
        text = render("overview.html", content)
    else:
        if key is not None:
            raise ValueError("`key` belongs to the page of a prediction; an evaluation is of one key already.")
        text = _page_of_evaluation(source, path.name, title, history)
    with replaced_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="\n")
    return path


def _page_of_evaluation(
    source: Evaluation | str | Path,
    out: str,
    title: str | None,
    history: TrainedModel | pd.DataFrame | str | Path | None,
) -> str:
    name = None if isinstance(source, Evaluation) else str(source)
    read = _read(source)
    losses = as_trained(history) if isinstance(history, str | Path) else history
    try:
        content = page_content(read, name, out, title)
        plots = {"figures": draw_all(read, losses), "gene_data": gene_data(read.genes)}
        return render("page.html", {**content, **plots}, script="page.js")
    except (AttributeError, KeyError, TypeError, UndefinedError) as error:
        raise ValueError(
            f"The evaluation{f' {name!r}' * bool(name)} lacks what a report shows ({error!r}): it is damaged, or "
            "another version wrote it. Call tl.evaluate again."
        ) from error


def _checked(out: Path) -> Path:
    if out.is_dir():
        raise IsADirectoryError(
            f"{str(out)!r} is a folder. Name the page to write, such as {str(out / 'report.html')!r}."
        )
    if out.exists() and not out.is_file():
        raise ValueError(f"{str(out)!r} is there and is no ordinary file; it is left alone. Choose another name.")
    return out


def _read(evaluation: Evaluation | str | Path) -> Evaluation:
    if isinstance(evaluation, Evaluation):
        return evaluation
    if not isinstance(evaluation, str | Path):
        raise TypeError(
            "Expected `source` to be an Evaluation, the path of its JSON, or an AnnData with a prediction, found "
            f"{type(evaluation).__name__}."
        )
    path = Path(evaluation)
    if not path.is_file():
        raise FileNotFoundError(
            f"No file {str(path)!r}. Expected the JSON of an evaluation: tl.evaluate(...).to_json(path) writes one."
        )
    try:
        return Evaluation.from_json(path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an evaluation. {error}") from error
