"""The result of an evaluation: numbers, a table of genes, and how they are shown and saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hist2scrna.evaluation import compare, table
from hist2scrna.evaluation.plain import numbers, plain
from hist2scrna.files import replaced_whole

SCHEMA_VERSION = 2


@dataclass
class Evaluation:
    """The result of :func:`hist2scrna.tl.evaluate`.

    Attributes
    ----------
    results
        Nested dictionary of plain numbers and words; None stands for a number that is not defined.

        - `"schema_version"`, `"package_version"`, `"model"`, `"panel"` (number of genes, SHA-256 of their names),
          `"normalization"`, `"log_normalized_from"` (how the prediction was read on the log-normalized scale),
          `"split"`, `"baselines"`, `"data"`: what was scored, and how.
        - `"headline"`: the numbers to quote, on log-normalized expression. Pearson is per gene over the spots of a
          section, averaged over genes, then over sections.
        - `"scores"`: by scale (`"counts"`, `"log_normalized"`, `"residual"`), then by predictor (`"model"`,
          `"mean_baseline"`, `"depth_baseline"`; `"true_means"` for simulated data), `"overall"`, `"by_gene"` and
          `"by_spot"`.
        - `"noise_ceiling"`, `"beats"`, `"sections"`, `"levels"`, `"zeros"`, `"counts"`, `"cell_types"`, `"spatial"`,
          `"clusters"`, `"constant_genes"`; `"not_scored"` gives reasons, `"notes"` what to bear in mind.
    genes
        One row a gene, averaged over sections: `mse`, `mae`, `pearson`, `spearman`, `depth_partial`, `truth_mean`,
        `truth_sd`, `prediction_mean`, `prediction_sd`, `spread_ratio`, `noise_ceiling`, `mean_baseline_pearson`,
        `depth_baseline_pearson`, `mean_baseline_mse`, `depth_baseline_mse`, `beats_mean_baseline`,
        `beats_depth_baseline` (by Pearson), `constant_truth`, `constant_prediction`, on log-normalized expression; the
        same with `_counts` and `_residual`; `level`, `zero_rate`, `depth_partial_noise_ceiling`; `morans_i` of the
        truth and `morans_i_prediction`, with coordinates; `log_likelihood`, `deviance`, `poisson_deviance` and
        `predicted_zero_rate` where the model gives a distribution of counts.
    plot_data
        What :mod:`hist2scrna.pl` draws besides these numbers, log-normalized and rounded to 4 digits.

        - `"scatter"`: `"truth"` and `"prediction"` of 10,000 (spot, gene) pairs drawn at random.
        - `"maps"`: `"best"` and `"worst"`, four genes each by Pearson; in `"sections"`, for the first two, `"n_spots"`,
          and of 5,000 spots at most `"xy"` (full-resolution pixels), `"truth"` and `"prediction"` by gene;
          `"spot_diameter"`, and `"image"`: `"jpeg"` (base64), `"extent"` (left, right, bottom, top in full-resolution
          pixels) and `"scale"`, or None.
        - `"reliability"`, if cell types were scored: by bin of confidence, its `"edges"`, `"n"` spots, and the means
          `"confidence"` and `"accuracy"`.
    """

    results: dict[str, Any]
    genes: pd.DataFrame
    plot_data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Turn arrays, NumPy numbers and NaN into what JSON has."""
        self.results = plain(self.results)
        self.plot_data = plain(self.plot_data)

    @property
    def headline(self) -> dict[str, Any]:
        """The numbers to quote, with the baselines and the noise ceiling to compare them with."""
        return dict(self.results["headline"])

    # -- files --------------------------------------------------------------------------------------------------------
    def to_json(self, path: str | Path | None = None) -> str:
        """Return everything as JSON, and write it to `path` if one is given. Undefined numbers are `null`."""
        by_gene = self.genes.reset_index()
        genes = {str(c): plain(by_gene[c].tolist()) for c in by_gene.columns}
        head = json.dumps(self.results, indent=1, allow_nan=False).removesuffix("\n}")
        columns = (f"  {json.dumps(c)}: {json.dumps(values, allow_nan=False)}" for c, values in genes.items())
        plotted = json.dumps(self.plot_data, allow_nan=False, separators=(",", ":"))
        text = f'{head},\n "plot_data": {plotted},\n "genes": {{\n' + ",\n".join(columns) + "\n }\n}"
        if path is not None:
            with replaced_whole(path) as scratch:
                scratch.write_text(text + "\n", encoding="utf-8")
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
        try:
            inline = isinstance(source, str) and source.lstrip().startswith("{")
            content = json.loads(str(source) if inline else Path(source).read_text("utf-8"))
            version, columns = content["schema_version"], content.pop("genes")
            plot_data = content.pop("plot_data", {})
            newer = version > SCHEMA_VERSION
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"This is no evaluation that hist2scrna wrote: {error!r}.") from error
        if version != SCHEMA_VERSION:
            way_out = "Install a newer one." if newer else "Call tl.evaluate again."
            raise ValueError(
                f"The evaluation has schema version {version}, but this hist2scrna reads version {SCHEMA_VERSION}. "
                f"{way_out}"
            )
        try:
            read = cls(content, _gene_table(columns), plot_data)
            # What cannot be shown, or laid beside itself, lacks something or holds a value of another kind.
            str(read)
            read.to_frame()
            compare.check_comparable(content, content)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"The evaluation is damaged: {error!r}. Call tl.evaluate again.") from error
        return read

    def to_frame(self) -> pd.DataFrame:
        """Return all numbers in long form: `section`, `part`, `scale`, `predictor`, `metric`, `value`.

        `section` is `"all"` but in the rows of single sections; what does not apply is empty.
        """
        rows: list[list[Any]] = []

        def add(
            part: str, values: Mapping[str, Any], scale: str = "", predictor: str = "", section: str = "all"
        ) -> None:
            rows.extend([section, part, scale, predictor, name, value] for name, value in numbers(values))

        results = self.results
        add("headline", results["headline"], scale=results["headline"]["scale"], predictor="model")
        for scale, predictors in results["scores"].items():
            for predictor, parts in predictors.items():
                for part, values in parts.items():
                    add(part, values, scale, predictor)
        for part in ("zeros", "counts"):
            for predictor, values in results[part].items():
                add(part, values, "counts", predictor)
        for baseline, values in results["beats"].items():
            add("beats", values, results["headline"]["scale"], baseline)
        for level, values in results["levels"].items():
            add(f"genes of {level} expression", values, results["headline"]["scale"])
        for name, values in results["sections"].items():
            add("section", values, results["headline"]["scale"], "", name)
        add("spatial", results["spatial"], results["headline"]["scale"])
        for name, values in results["clusters"].items():
            if isinstance(values, dict):
                add("clusters", values, results["headline"]["scale"], name)
        add("cell_types", {k: v for k, v in results["cell_types"].items() if k != "confusion"})
        return pd.DataFrame(rows, columns=["section", "part", "scale", "predictor", "metric", "value"])

    def compare(self, other: Evaluation, *, seed: int = 0) -> pd.DataFrame:
        """Compare with another evaluation of the same counts, pair by pair.

        Genes are **not independent**: they share spots and are co-expressed. The test and the interval over genes ask
        whether the difference would hold for other genes of this tissue, not for other tissue, and their p-values are
        far too small. What generalizes is the comparison over sections, better of different donors.

        Parameters
        ----------
        other
            Of the same genes, spots and counts.
        seed
            Seed of the bootstrap.

        Returns
        -------
        One row per `measure` and `level`: this evaluation minus the other, where both are defined.

        - `level` `"gene"`: `"pearson"` and `"depth_partial"` on log-normalized expression, and `"log_likelihood"` per
          count if both models give one; Wilcoxon signed-rank test, and a 95 % percentile bootstrap interval of the mean
          difference. `"section"`, with two sections or more: `"pearson"` and `"depth_partial"`, averaged over the
          genes of each; paired t-test and interval.
        - `n` genes or sections; `value` and `other`, the two means; `difference`, between `low` and `high` (see
          `interval`); `p_value` of `test`, two-sided; `better` and `worse`, shares of pairs in which this one is.

        Raises
        ------
        TypeError
            If `other` is no evaluation.
        ValueError
            If panel, sections, spots, counts or normalization differ; the message names which.

        References
        ----------
        Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1:80 (1945).
        """
        if not isinstance(other, Evaluation):
            raise TypeError(f"Expected `other` to be an Evaluation, found {type(other).__name__}.")
        compare.check_comparable(self.results, other.results)
        return compare.compare((self.genes, other.genes), (self.results["sections"], other.results["sections"]), seed)

    # -- to be read ---------------------------------------------------------------------------------------------------
    def __str__(self) -> str:
        """Return what was scored, and the scores of all predictors side by side."""
        return table.as_text(self.results)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return table.as_html(self.results)


def _gene_table(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table of genes of a file: numbers, but for the names of genes and the words of their levels."""
    genes = pd.DataFrame({k: [np.nan if v is None else v for v in values] for k, values in columns.items()})
    for name in genes.columns.difference(["gene", "level"]):
        if not (pd.api.types.is_bool_dtype(genes[name]) or pd.api.types.is_numeric_dtype(genes[name])):
            raise ValueError(f"the column {name!r} of the genes holds what is no number")
    return genes.set_index("gene")
