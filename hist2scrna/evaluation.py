"""What an evaluation found: numbers, a table of genes, and how they are shown and kept."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SCHEMA_VERSION = 1

COLUMNS = {"model": "model", "mean_null": "mean null", "depth_null": "depth null", "true_means": "true means"}
# Title of a block, and in it: label, and the way to the value below a predictor.
Row = tuple[str, tuple[str, ...]]
BY_SCALE: dict[str, tuple[str, list[Row]]] = {
    "log1p": (
        "log-normalised",
        [
            ("Pearson by gene, mean", ("by_gene", "pearson_mean")),
            ("Pearson by gene, median", ("by_gene", "pearson_median")),
            ("Spearman by gene, mean", ("by_gene", "spearman_mean")),
            ("depth-partial Pearson, mean", ("by_gene", "depth_partial_mean")),
            ("spread (sd / sd of truth), median", ("by_gene", "spread_ratio_median")),
            ("Pearson by spot, mean", ("by_spot", "pearson_mean")),
            ("RMSE", ("overall", "rmse")),
            ("R2", ("overall", "r2")),
        ],
    ),
    "residual": ("Pearson residuals", [("Pearson by gene, mean", ("by_gene", "pearson_mean"))]),
    "counts": (
        "counts",
        [
            ("Pearson by gene, mean", ("by_gene", "pearson_mean")),
            ("RMSE", ("overall", "rmse")),
            ("MAE", ("overall", "mae")),
        ],
    ),
}
LIKELIHOOD: list[Row] = [
    ("log-likelihood per count", ("log_likelihood",)),
    ("Poisson deviance per count", ("poisson_deviance",)),
    *[(f"coverage of {level} % intervals", ("coverage", level)) for level in ("50", "80", "95")],
]
ZEROS: list[Row] = [
    ("zero rate predicted", ("predicted_zero_rate",)),
    ("AUROC of non-zero", ("auroc",)),
    ("F1 of non-zero", ("f1",)),
]
CELL_TYPES = [
    ("accuracy", "accuracy"),
    ("accuracy of the commonest type", "majority_accuracy"),
    ("F1, macro", "f1_macro"),
    ("F1, weighted", "f1_weighted"),
    ("expected calibration error", "expected_calibration_error"),
]


@dataclass
class Evaluation:
    """What :func:`hist2scrna.tl.evaluate` found.

    Attributes
    ----------
    results
        Nested dictionary of plain numbers and words; None stands for a number that is not defined.

        - `"schema_version"`, `"package_version"`, `"model"`, `"panel"` (number of genes, SHA-256 of their names),
          `"normalisation"`, `"split"`, `"nulls"`, `"data"`: what was scored, and how.
        - `"headline"`: the numbers to quote, on log-normalised expression. Pearson is per gene over the spots of a
          section, averaged over genes, then over sections.
        - `"scores"`: by scale (`"counts"`, `"log1p"`, `"residual"`), then by predictor (`"model"`, `"mean_null"`,
          `"depth_null"`; `"true_means"` for simulated data), `"overall"`, `"by_gene"` and `"by_spot"`.
        - `"ceiling"`, `"beats"`, `"sections"`, `"levels"`, `"zeros"`, `"counts"`, `"cell_types"`, `"spatial"`,
          `"constant_genes"`; `"not_scored"` gives reasons, `"notes"` what to bear in mind.
    genes
        One row a gene, averaged over sections: `mse`, `mae`, `pearson`, `spearman`, `depth_partial`, `truth_mean`,
        `truth_sd`, `prediction_mean`, `prediction_sd`, `spread_ratio`, `ceiling`, `mean_null_pearson`,
        `depth_null_pearson`, `mean_null_mse`, `depth_null_mse`, `beats_mean_null`, `beats_depth_null` (by Pearson),
        `constant_truth`, `constant_prediction`, on log-normalised expression; the same with `_counts` and `_residual`;
        `level`, `zero_rate`; `log_likelihood`, `deviance`, `poisson_deviance` and `predicted_zero_rate` where the model
        gives a distribution of counts.
    """

    results: dict[str, Any]
    genes: pd.DataFrame

    def __post_init__(self) -> None:
        """Turn arrays, NumPy numbers and NaN into what JSON has."""
        self.results = plain(self.results)

    @property
    def headline(self) -> dict[str, Any]:
        """The numbers to quote, each with what it must be read beside."""
        return dict(self.results["headline"])

    # -- files --------------------------------------------------------------------------------------------------------
    def to_json(self, path: str | Path | None = None) -> str:
        """Return everything as JSON, and write it to `path` if one is given. Undefined numbers are `null`."""
        table = self.genes.reset_index()
        genes = {str(c): plain(table[c].tolist()) for c in table.columns}
        head = json.dumps(self.results, indent=1, allow_nan=False).removesuffix("\n}")
        columns = (f"  {json.dumps(c)}: {json.dumps(values, allow_nan=False)}" for c, values in genes.items())
        text = head + ',\n "genes": {\n' + ",\n".join(columns) + "\n }\n}"
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Evaluation:
        """Read what :meth:`to_json` wrote: a path, or the text itself.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no evaluation, or one of a newer version.
        """
        text = (
            source if isinstance(source, str) and source.lstrip().startswith("{") else Path(source).read_text("utf-8")
        )
        try:
            content = json.loads(text)
            version, columns = content["schema_version"], content.pop("genes")
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"This is no evaluation that hist2scrna wrote: {error!r}.") from error
        if version > SCHEMA_VERSION:
            raise ValueError(
                f"The evaluation has schema version {version}; this hist2scrna reads up to {SCHEMA_VERSION}. "
                "Install a newer one."
            )
        table = pd.DataFrame({k: [np.nan if v is None else v for v in values] for k, values in columns.items()})
        return cls(content, table.set_index("gene"))

    def to_frame(self) -> pd.DataFrame:
        """Return all numbers in long form: `section`, `part`, `scale`, `predictor`, `metric`, `value`.

        `section` is `"all"` but in the rows of single sections; what does not apply is empty.
        """
        rows: list[list[Any]] = []

        def add(
            part: str, values: Mapping[str, Any], scale: str = "", predictor: str = "", section: str = "all"
        ) -> None:
            rows.extend([section, part, scale, predictor, name, value] for name, value in numbers(values))

        found = self.results
        add("headline", found["headline"], scale=found["headline"]["scale"], predictor="model")
        for scale, predictors in found["scores"].items():
            for predictor, parts in predictors.items():
                for part, values in parts.items():
                    add(part, values, scale, predictor)
        for part in ("zeros", "counts"):
            for predictor, values in found[part].items():
                add(part, values, "counts", predictor)
        for null, values in found["beats"].items():
            add("beats", values, found["headline"]["scale"], null)
        for level, values in found["levels"].items():
            add(f"genes of {level} expression", values, found["headline"]["scale"])
        for name, values in found["sections"].items():
            add("section", values, found["headline"]["scale"], "", name)
        add("spatial", found["spatial"], found["headline"]["scale"])
        add("cell_types", {k: v for k, v in found["cell_types"].items() if k not in ("confusion", "unknown_labels")})
        return pd.DataFrame(rows, columns=["section", "part", "scale", "predictor", "metric", "value"])

    # -- to be read ---------------------------------------------------------------------------------------------------
    def _rows(self) -> Iterator[tuple[str, str, list[Any]]]:
        """Yield block, label and the values of all predictors, with the ceiling last."""
        found, names = self.results, self._predictors()
        for scale, (title, rows) in BY_SCALE.items():
            predictors = found["scores"].get(scale)
            for label, path in rows if predictors else ():
                ceiling = found["ceiling"][scale].get(label.removeprefix("Pearson by gene, "))
                yield title, label, [*(at(predictors.get(n), path) for n in names), ceiling]
        for title, part, rows in (("counts", "counts", LIKELIHOOD), ("zeros", "zeros", ZEROS)):
            for label, path in rows if found[part] else ():
                yield title, label, [*(at(found[part].get(n), path) for n in names), None]
        for label, key in CELL_TYPES if found["cell_types"] else ():
            yield "cell types", label, [found["cell_types"][key], *[None] * len(names)]

    def _predictors(self) -> list[str]:
        return [n for n in COLUMNS if any(n in p for p in self.results["scores"].values())]

    def _sentences(self) -> list[str]:
        found, head = self.results, self.headline
        data, model = found["data"], found["model"]
        several = len(found["sections"]) > 1
        lines = [
            f"{model['name']} ({model['likelihood']}): {data['n_spots']:,} spots, {data['n_genes']:,} genes, "
            f"{len(found['sections'])} section{'s' * several} ({', '.join(list(found['sections'])[:6])}"
            f"{', ...' if len(found['sections']) > 6 else ''})",
            f"Pearson {number(head['pearson'])} by gene, {percent(head['score_over_ceiling'])} of the ceiling "
            f"({found['ceiling']['method']}); better than the mean null on {percent(head['beats_mean_null'])} "
            f"and than the depth null on {percent(head['beats_depth_null'])} of genes"
            + (f"; mean of {len(found['sections'])} sections" if several else ""),
            f"Split: {found['split']['statement']}",
            f"Nulls: {found['nulls']['statement']}",
        ]
        if head["collapsed"]:
            lines.append("COLLAPSED: the prediction hardly varies between spots; its correlations mean nothing.")
        lines += [f"Not scored: {part}: {why}" for part, why in found["not_scored"].items()]
        return lines + list(found["notes"])

    def __str__(self) -> str:
        """Return what was scored, and the scores of all predictors side by side."""
        names = [COLUMNS[n] for n in self._predictors()] + ["ceiling"]
        lines, block = [*self._sentences(), ""], None
        lines.append(" " * 38 + "".join(f"{name:>12}" for name in names))
        for title, label, values in self._rows():
            if title != block:
                lines.append(title)
            block = title
            lines.append(f"  {label:<36}" + "".join(f"{number(v):>12}" for v in values))
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        names = [COLUMNS[n] for n in self._predictors()] + ["ceiling"]
        cells, block = [], None
        for title, label, values in self._rows():
            if title != block:
                cells.append(f"<tr><th colspan={len(names) + 1} style='text-align:left'>{html.escape(title)}</th></tr>")
            block = title
            shown = "".join(f"<td>{number(v)}</td>" for v in values)
            cells.append(f"<tr><td style='text-align:left'>{html.escape(label)}</td>{shown}</tr>")
        first, *others = (html.escape(line) for line in self._sentences())
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        return (
            f"<p><b>{first}</b><br>{'<br>'.join(others)}</p>"
            f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table>"
        )


def at(values: Any, path: tuple[str, ...]) -> Any:
    """Follow keys into nested dictionaries; None where one is missing."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def number(value: Any) -> str:
    """Return a number with three decimals, in powers of ten where these would hide it."""
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.0005 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"


def percent(value: float | None) -> str:
    """Return a share in per cent."""
    return "-" if value is None else f"{value:.0%}"


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested dictionaries and lists, with dotted names; None becomes NaN."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from numbers({str(i): v for i, v in enumerate(value)}, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float):
            yield f"{prefix}{name}", float("nan") if value is None else float(value)


def plain(value: Any) -> Any:
    """Return nested values as JSON has them: Python's own types, None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
