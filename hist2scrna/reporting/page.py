"""Compose the page, and write it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined, UndefinedError
from markupsafe import Markup

from hist2scrna.evaluation.plain import number, percent
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.files import replaced_whole
from hist2scrna.reporting.content import page_content
from hist2scrna.reporting.figures import draw_all
from hist2scrna.reporting.gene_table import gene_data
from hist2scrna.trained.model import TrainedModel, as_trained

if TYPE_CHECKING:
    import pandas as pd


def report(
    evaluation: Evaluation | str | Path,
    out: str | Path,
    *,
    title: str | None = None,
    history: TrainedModel | pd.DataFrame | str | Path | None = None,
) -> Path:
    """Write an evaluation as one self-contained HTML page: no network, no other file.

    The page says what was scored and how. It shows the headline next to the baselines and the noise ceiling, all plots
    of the evaluation, a table of genes to sort, search and download, the cell types, how to reproduce the numbers, and
    what they do not show. A plot that cannot be drawn is named with the reason.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of the JSON that its `to_json` wrote.
    out
        Path of the page. A file of that name is replaced once the new page is complete; missing folders are created.
    title
        Heading of the page; None: the name of the model and the sections scored.
    history
        A model, its folder, or its `.history`, whose losses are drawn too; None: they are left out, as an evaluation
        does not hold them.

    Returns
    -------
    :class:`pathlib.Path` of the page.

    Raises
    ------
    FileNotFoundError
        If there is no such evaluation, or no such model.
    IsADirectoryError
        If `out` is a folder.
    TypeError
        If `evaluation` is neither.
    ValueError
        If the JSON is damaged, no evaluation, or one of a newer version; or `out` is neither free nor a file.

    Examples
    --------
    >>> evaluation = hist2scrna.tl.evaluate(test, model)
    >>> hist2scrna.report(evaluation, "report.html", history=model)
    """
    path = _checked(Path(out))
    source = None if isinstance(evaluation, Evaluation) else str(evaluation)
    read = _read(evaluation)
    losses = as_trained(history) if isinstance(history, str | Path) else history
    try:
        content = page_content(read, source, path.name, title)
        text = _render({**content, "figures": draw_all(read, losses), "gene_data": gene_data(read.genes)})
    except (AttributeError, KeyError, TypeError, UndefinedError) as error:
        raise ValueError(
            f"The evaluation{f' {source!r}' * bool(source)} lacks what a report shows ({error!r}): it is damaged, or "
            "another version wrote it. Call tl.evaluate again."
        ) from error
    with replaced_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="\n")
    return path


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
            f"Expected `evaluation` to be an Evaluation or the path of its JSON, found {type(evaluation).__name__}."
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


def _render(content: dict[str, Any]) -> str:
    files = {f"page.{end}": resources.files(__package__).joinpath(f"page.{end}") for end in ("html", "css", "js")}
    text = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(number=number, percent=percent)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    # The browser runs this one script and no other, whatever the data holds.
    digest = base64.b64encode(hashlib.sha256(text["page.js"].encode()).digest()).decode()
    return environment.from_string(text["page.html"]).render(
        **content, css=Markup(text["page.css"]), script=Markup(text["page.js"]), script_hash=Markup(f"sha256-{digest}")
    )
