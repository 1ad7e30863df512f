"""The results of an evaluation as sentences and as a table, in text and in HTML."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from hist2scrna.evaluation.plain import at, number
from hist2scrna.evaluation.predictors import NOISE_CEILING, PREDICTOR_LABELS, SCALE_LABELS
from hist2scrna.evaluation.score import Score, value_of
from hist2scrna.evaluation.scores import scores_of
from hist2scrna.evaluation.verdict import verdict
from hist2scrna.messages import percent

# Title of a block, label of a row, and the values of all predictors with the noise ceiling last.
Row = tuple[str, str, list[Any]]


def rows(results: Mapping[str, Any]) -> Iterator[Row]:
    """Yield block, label and the values of all predictors, with the noise ceiling last."""
    yield from _expression_rows(results)
    yield from _count_rows(results)
    names = predictors(results)
    if results["cell_types"]:
        for score in scores_of("cell types"):
            if score.is_shown:
                yield "cell types", score.title(), [*(value_of(results, score, n) for n in names), None]
    if results["spatial"]:
        yield from _spatial_rows(results)
    if results["clusters"]:
        yield from _cluster_rows(results)


def _expression_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    names, slides = predictors(results), of_slides(results)
    for scale, block in SCALE_LABELS.items():
        if scale not in results["scores"]:
            continue
        if slides:
            block = f"{block}, across slides"
        for score in scores_of("gene", "overall") if slides else scores_of("gene", "spot", "overall"):
            for summary in score.shown_on(scale):
                values = [value_of(results, score, name, scale=scale, summary=summary) for name in names]
                limit = score.noise_ceilings.get(scale)
                ceiling = None if limit is None else at(results["noise_ceiling"], (limit, summary))
                yield block, score.title(summary), [*values, ceiling]
    if slides:
        for score in scores_of("spot"):
            for summary in score.summaries:
                values = [value_of(results, score, name, summary=summary) for name in names]
                yield "within slides", f"{score.within_slides}, {summary}", [*values, None]


def _count_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    names = predictors(results)
    blocks: list[tuple[str, list[Score]]] = [
        ("counts", scores_of("gene counts", "counts")),
        ("zeros", scores_of("zeros")),
    ]
    for block, scores in blocks:
        for score in scores if results[block] else []:
            for level in score.levels or ("",) if score.is_shown else ():
                values = [value_of(results, score, name, level=level) for name in names]
                yield block, score.title(level=level), [*values, None]


def _spatial_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    names, spatial = predictors(results), results["spatial"]
    for score in scores_of("spatial"):
        keys = {"model": "prediction", "depth_baseline": "depth_baseline", "true_means": "true_means"}
        means = {name: spatial.get(f"{score.name}_{key}") for name, key in keys.items()}
        label = f"{score.label}, mean (truth {number(spatial.get(f'{score.name}_truth'))})"
        yield "spatial", label, [*(means.get(name) for name in names), None]
        keys = {"model": "pearson", "true_means": "pearson_true_means"}
        agreement = {name: spatial.get(f"{score.name}_{key}") for name, key in keys.items()}
        yield "spatial", f"{score.label}, Pearson over genes", [*(agreement.get(name) for name in names), None]


def _cluster_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    names, clusters = predictors(results), results["clusters"]
    compared_with = {"truth": "with clusters of the truth", "labels": "with labels"}
    for other, words in compared_with.items():
        for score in scores_of("clusters"):
            key = f"{score.name}_{other}"
            values = [at(clusters.get(name), (key,)) for name in names]
            # No ceiling: a prediction without noise may well be nearer to the labels than the truth.
            of_truth = clusters["truth"].get(key)
            label = f"{score.label} {words}" + ("" if of_truth is None else f" (truth {number(of_truth)})")
            if values[0] is not None:
                yield "Leiden clusters", label, [*values, None]


def of_slides(results: Mapping[str, Any]) -> bool:
    """Tell whether the rows that were scored are slides."""
    return results["data"].get("observation") == "slide"


def predictors(results: Mapping[str, Any]) -> list[str]:
    """Return the predictors that were scored, in the order of the columns."""
    return [n for n in PREDICTOR_LABELS if any(n in p for p in results["scores"].values())]


def headings(results: Mapping[str, Any]) -> list[str]:
    """Return the headings of the columns of values."""
    return [*(PREDICTOR_LABELS[name] for name in predictors(results)), NOISE_CEILING]


def alarms(results: Mapping[str, Any]) -> list[str]:
    """Return what must be read before any number."""
    lines = []
    if results["headline"]["held_out"] is False:
        lines.append(results["split"]["statement"])
    if results["headline"]["collapsed"]:
        lines.append("COLLAPSED: the prediction hardly varies between spots, so its correlations mean nothing.")
    return lines


def sentences(results: Mapping[str, Any]) -> list[str]:
    """Return what was scored, the headline, and all notes; the alarms are apart."""
    data, model, head = results["data"], results["model"], results["headline"]
    names = list(results["sections"])
    several, slides = len(names) > 1, of_slides(results)
    rows_are = "slides" if slides else "spots"
    lines = [
        f"{model['name']} ({model['likelihood']}): {data['n_spots']:,} {rows_are}, {data['n_genes']:,} genes, "
        f"{len(names)} section{'s' * several} ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})",
        f"Pearson {number(head['pearson'])} by gene{f', mean of {len(names)} sections' * several}: "
        f"{percent(head['score_over_ceiling'])} of the noise ceiling ({results['noise_ceiling']['method']}), and "
        f"better than the mean baseline on {percent(head['beats_mean_baseline'])} and the depth baseline on "
        f"{percent(head['beats_depth_baseline'])} of genes",
        verdict(results)[0].removesuffix("."),
    ]
    if slides:
        lines.append(
            f"Within slides: Spearman {number(head['within_slides_spearman'])} over genes, median; the mean baseline "
            f"has {number(head['within_slides_spearman_mean_baseline'])}, because it knows which genes are high in all"
        )
    if head["held_out"] is not False:
        lines.append(f"Split: {results['split']['statement']}")
    lines.append(f"Baselines: {results['baselines']['statement']}")
    lines += [f"Not scored: {part}: {why}" for part, why in results["not_scored"].items()]
    return lines + list(results["notes"])


def as_text(results: Mapping[str, Any]) -> str:
    """Return what was scored, and the scores of all predictors side by side."""
    first, *others = sentences(results)
    lines, block = [first, *alarms(results), *others, ""], None
    lines.append(" " * 38 + "".join(f"{name:>16}" for name in headings(results)))
    for title, label, values in rows(results):
        if title != block:
            lines.append(title)
        block = title
        lines.append(f"  {label:<36}" + "".join(f"{number(v):>16}" for v in values))
    return "\n".join(line.rstrip() for line in lines)


def as_html(results: Mapping[str, Any]) -> str:
    """Return the same for a notebook, in the colors of its theme."""
    names = headings(results)
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
