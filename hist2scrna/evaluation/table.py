"""Results of an evaluation to be read: the sentences and the table, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from hist2scrna.evaluation.plain import at, number, percent

COLUMNS = {
    "model": "model",
    "mean_baseline": "mean baseline",
    "depth_baseline": "depth baseline",
    "true_means": "true means",
}
# Title of a block, and in it: label, and the way to the value below a predictor.
Row = tuple[str, tuple[str, ...]]
BY_SCALE: dict[str, tuple[str, list[Row]]] = {
    "log_normalized": (
        "log-normalized",
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
    *[(f"width of {level} % intervals, median", ("width", level)) for level in ("50", "80", "95")],
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

CLUSTERS = [
    ("ARI with clusters of the truth", "ari_truth"),
    ("NMI with clusters of the truth", "nmi_truth"),
    ("ARI with labels", "ari_labels"),
    ("NMI with labels", "nmi_labels"),
]


def rows(results: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield block, label and the values of all predictors, with the ceiling last."""
    names, blank = predictors(results), [None] * len(predictors(results))
    for scale, (title, lines) in BY_SCALE.items():
        found = results["scores"].get(scale)
        for label, path in lines if found else ():
            limits = results["noise_ceiling"]
            if path[-1] == "depth_partial_mean":
                ceiling = limits["depth_partial"]["mean"]
            else:
                ceiling = limits[scale].get(label.removeprefix("Pearson by gene, "))
            yield title, label, [*(at(found.get(n), path) for n in names), ceiling]
    for title, part, lines in (("counts", "counts", LIKELIHOOD), ("zeros", "zeros", ZEROS)):
        for label, path in lines if results[part] else ():
            yield title, label, [*(at(results[part].get(n), path) for n in names), None]
    for label, key in CELL_TYPES if results["cell_types"] else ():
        yield "cell types", label, [results["cell_types"][key], *blank]
    if spatial := results["spatial"]:
        by_name = {
            "model": spatial["morans_i_prediction"],
            "depth_baseline": spatial["morans_i_depth_baseline"],
            "true_means": spatial.get("morans_i_true_means"),
        }
        title = "spatial"
        label = f"Moran's I, mean (truth {number(spatial['morans_i_truth'])})"
        yield title, label, [*(by_name.get(n) for n in names), None]
        by_name = {"model": spatial["morans_i_pearson"], "true_means": spatial.get("morans_i_pearson_true_means")}
        yield title, "Moran's I, Pearson over genes", [*(by_name.get(n) for n in names), None]
    for label, key in CLUSTERS if results["clusters"] else ():
        values = [at(results["clusters"].get(n), (key,)) for n in names]
        # No ceiling: a prediction without noise may well be nearer to the labels than the truth.
        true = results["clusters"]["truth"].get(key)
        if values[0] is not None:
            yield "Leiden clusters", label if true is None else f"{label} (truth {number(true)})", [*values, None]


def predictors(results: Mapping[str, Any]) -> list[str]:
    """Return the predictors that were scored, in the order of the columns."""
    return [n for n in COLUMNS if any(n in p for p in results["scores"].values())]


def alarms(results: Mapping[str, Any]) -> list[str]:
    """Return what must be read before any number."""
    found = []
    if results["headline"]["held_out"] is False:
        found.append(results["split"]["statement"])
    if results["headline"]["collapsed"]:
        found.append("COLLAPSED: the prediction hardly varies between spots; its correlations mean nothing.")
    return found


def sentences(results: Mapping[str, Any]) -> list[str]:
    """Return what was scored, the headline, and all notes; the alarms are apart."""
    data, model, head = results["data"], results["model"], results["headline"]
    names = list(results["sections"])
    several = len(names) > 1
    lines = [
        f"{model['name']} ({model['likelihood']}): {data['n_spots']:,} spots, {data['n_genes']:,} genes, "
        f"{len(names)} section{'s' * several} ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})",
        f"Pearson {number(head['pearson'])} by gene, {percent(head['score_over_ceiling'])} of the ceiling "
        f"({results['noise_ceiling']['method']}); better than the mean baseline on "
        f"{percent(head['beats_mean_baseline'])} and than the depth baseline on "
        f"{percent(head['beats_depth_baseline'])} of genes" + (f"; mean of {len(names)} sections" if several else ""),
    ]
    if head["held_out"] is not False:
        lines.append(f"Split: {results['split']['statement']}")
    lines.append(f"Baselines: {results['baselines']['statement']}")
    lines += [f"Not scored: {part}: {why}" for part, why in results["not_scored"].items()]
    return lines + list(results["notes"])


def as_text(results: Mapping[str, Any]) -> str:
    """Return what was scored, and the scores of all predictors side by side."""
    names = [COLUMNS[n] for n in predictors(results)] + ["noise ceiling"]
    first, *others = sentences(results)
    lines, block = [first, *alarms(results), *others, ""], None
    lines.append(" " * 38 + "".join(f"{name:>12}" for name in names))
    for title, label, values in rows(results):
        if title != block:
            lines.append(title)
        block = title
        lines.append(f"  {label:<36}" + "".join(f"{number(v):>12}" for v in values))
    return "\n".join(line.rstrip() for line in lines)


def as_html(results: Mapping[str, Any]) -> str:
    """Return the same for a notebook, in the colors of its theme."""
    names = [COLUMNS[n] for n in predictors(results)] + ["noise ceiling"]
    cells, block = [], None
    for title, label, values in rows(results):
        if title != block:
            over = f'colspan="{len(names) + 1}" scope="colgroup" style="text-align:left"'
            cells.append(f"<tr><th {over}>{html.escape(title)}</th></tr>")
        block = title
        shown = "".join(f'<td style="text-align:right">{number(v)}</td>' for v in values)
        cells.append(f'<tr><td style="text-align:left">{html.escape(label)}</td>{shown}</tr>')
    first, *others = (html.escape(line) for line in sentences(results))
    head = "".join(f'<th scope="col" style="text-align:right">{html.escape(name)}</th>' for name in names)
    loud = "".join(
        '<p role="alert" style="border:3px solid currentColor;padding:0.5em;max-width:60em">'
        f"<strong>{html.escape(line)}</strong></p>"
        for line in alarms(results)
    )
    return (
        f'<div style="color:inherit;background:inherit"><p style="max-width:60em"><strong>{first}</strong></p>{loud}'
        f'<p style="max-width:60em">{"<br/>".join(others)}</p>'
        f'<table style="color:inherit;background:inherit"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(cells)}</tbody></table></div>"
    )
