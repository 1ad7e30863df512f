"""The fitted models that the package ships, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hist2scrna.messages import require_known

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent / "published_models"
NOTES = "notes.json"


def published() -> pd.DataFrame:
    """List the fitted models that come with the package.

    :func:`hist2scrna.tl.predict`, :meth:`hist2scrna.TrainedModel.load` and the command line take their names.

    Returns
    -------
    DataFrame, a row for each name: tissue, data and their license, donors, number of genes, and what it is not for.

    Examples
    --------
    >>> h2s.models.published().index.to_list()
    ['her2-breast']
    >>> h2s.models.published().loc["her2-breast", "donors"]
    'B and C with images; D to H with counts alone'
    """
    import pandas as pd

    notes = {name: json.loads((FOLDER / name / NOTES).read_text(encoding="utf-8")) for name in published_names()}
    return pd.DataFrame.from_dict(notes, orient="index").rename_axis("name")


def published_names() -> list[str]:
    """Return the names of the fitted models that come with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{NOTES}"))


def model_folder(model: str | Path) -> Path:
    """Return the folder of a fitted model: the one that is named, else that of a published model.

    Raises
    ------
    FileNotFoundError
        If there is neither; the nearest name is given.
    """
    folder = Path(model)
    if folder.exists() or folder.name != str(model):
        return folder
    names = published_names()
    try:
        require_known("published model", str(model), names)
    except ValueError as error:
        raise FileNotFoundError(f"No model at '{model}'. {error}") from None
    return FOLDER / str(model)
