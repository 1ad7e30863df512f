"""Counts of her2st, spots by genes: as a table, and of patients without an image as AnnData."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hist2scrna import keys
from hist2scrna.datasets._her2st_files import COUNTS_ALONE, checked_sections, counts_files, patient

DONOR = "donor"


def her2st_counts(
    path: str | Path | None = None,
    *,
    sections: Sequence[str] = COUNTS_ALONE,
    min_counts: int = 200,
    join: Literal["inner", "outer"] = "inner",
) -> ad.AnnData:
    """Load counts of further patients of her2st (D to H), without images: what `fit(expression=)` learns from.

    Source and citation as for :func:`her2st`.

    Parameters
    ----------
    path
        Folder with `S.tsv.gz` for each section `S`. None: the files are downloaded (about 0.9 MB a section), checked by
        SHA-256, and kept as those of :func:`her2st`.
    sections
        Sections to load, in this order, out of two of each of the patients D to H.
    min_counts, join
        As in :func:`her2st`.

    Returns
    -------
    AnnData, spots of all sections by genes: `.X` counts, CSR float32; `.obs["library_id"]`, the section, and
    `.obs["donor"]`, the patient, both categorical.

    Raises
    ------
    FileNotFoundError
        If a file is missing from `path`.
    ConnectionError
        If a download fails.
    ValueError
        If an argument is out of range, or a file does not hold what it should.

    Examples
    --------
    >>> others = h2s.datasets.her2st_counts()  # doctest: +SKIP
    >>> model = h2s.tl.fit(train, group_key="donor", expression=others)  # doctest: +SKIP
    """
    sections = checked_sections(sections, COUNTS_ALONE)
    parts = []
    for section, file in counts_files(path, sections).items():
        counts = read_counts(file)
        counts = counts[counts.sum(axis=1) >= min_counts]
        names = [f"{section}_{spot}" for spot in counts.index]
        obs = section_columns(section, names, sections)
        parts.append(counts_as_anndata(counts, obs))
    return ad.concat(parts, join=join, fill_value=0)


def section_columns(section: str, names: list[str], sections: list[str]) -> pd.DataFrame:
    """Return `.obs` of the spots of a section, with its name and its patient."""
    donors = list(dict.fromkeys(patient(name) for name in sections))
    obs = pd.DataFrame(index=names)
    obs[keys.LIBRARY] = pd.Categorical([section] * len(names), categories=sections)
    obs[DONOR] = pd.Categorical([patient(section)] * len(names), categories=donors)
    return obs


def counts_as_anndata(counts: pd.DataFrame, obs: pd.DataFrame, **slots: Any) -> ad.AnnData:
    """Return a table of counts, spots by genes, as AnnData."""
    var = pd.DataFrame(index=counts.columns)
    return ad.AnnData(X=csr_matrix(counts.to_numpy(), dtype=np.float32), obs=obs, var=var, **slots)


def read_counts(file: Path) -> pd.DataFrame:
    """Read a table of counts, spots by genes, or refuse what are no counts."""
    counts = read_table(file, index_col=0)
    if any(dtype.kind not in "iu" for dtype in counts.dtypes.unique()) or (counts.to_numpy() < 0).any():
        raise ValueError(f"Expected non-negative integers in {str(file)!r} (spots x genes, raw counts).")
    return counts


def read_table(file: Path, *, index_col: int | None = None, member: str | None = None) -> pd.DataFrame:
    """Read a table separated by tabs, from a file or from a member of an archive."""
    try:
        if member is None:
            return pd.read_csv(file, sep="\t", index_col=index_col)
        with zipfile.ZipFile(file) as archive, archive.open(member) as table:
            return pd.read_csv(table, sep="\t", index_col=index_col)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"Could not read {str(file)!r} as a table separated by tabs: {error}") from error
