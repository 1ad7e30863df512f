"""What the page says, taken from an evaluation; plain values, which the template escapes."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.evaluation import table
from hist2scrna.evaluation.predictors import BASELINES, NOISE_CEILING, PREDICTOR_LABELS
from hist2scrna.evaluation.scores import by_section, scores_of
from hist2scrna.evaluation.verdict import verdict
from hist2scrna.fitting.result import useless

if TYPE_CHECKING:
    from hist2scrna.evaluation.result import Evaluation

NAMED_SECTIONS = 6
CEILING = {
    "true means": "the true means of the simulation, which a prediction can beat only by chance",
    "binomial thinning": "estimated by binomial thinning: the share of each gene's variance that is not counting noise",
}


def page_content(evaluation: Evaluation, source: str | None, out: str, title: str | None) -> dict[str, Any]:
    """Return the variables of the template but for figures and genes.

    Parameters
    ----------
    evaluation
        The evaluation.
    source
        Path of its JSON, if it came from one.
    out
        Name of the page.
    title
        Heading; None: model and sections.
    """
    results = evaluation.results
    said, compared = verdict(results)
    sections = list(results["sections"])
    named = ", ".join(sections[:NAMED_SECTIONS]) + (", ..." if len(sections) > NAMED_SECTIONS else "")
    return {
        "kind": "evaluation",
        "title": title or f"{results['model']['name']} on {named}",
        "results": results,
        "head": results["headline"],
        "verdict": said,
        "compared": compared,
        "alarms": _alarms(results),
        "facts": _facts(results, named),
        "bars": _bars(results),
        "tiles": _tiles(results),
        "predictors": table.headings(results),
        "section_columns": _section_columns(),
        "blocks": _blocks(results),
        "limits": _limits(results),
        "command": shlex.join(
            ["hist2scrna", "report", PurePath(source or "evaluation.json").name, "--out", out],
        ),
        "call": _call(results, out),
    }


def _alarms(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what must not be overlooked: how grave (`"grave"` or `"careful"`), heading, text."""
    head, split, alarms = results["headline"], results["split"], list[tuple[str, str, str]]()
    if split["held_out"] is False:
        alarms.append(("grave", "Scored on spots that the model was trained on", split["statement"]))
    if head["collapsed"]:
        text = "The prediction hardly varies between spots, so its correlations mean nothing."
        alarms.append(("grave", "Collapsed prediction", text))
    if (verdict := useless(results["model"].get("variance_explained"))) is not None:
        alarms.append(("grave", "A fit that explains nothing", _sentence(verdict)))
    if split["held_out"] is None:
        alarms.append(("careful", "Not known to be held out", _sentence(split["statement"])))
    if results["baselines"].get("fitted_on") == "scored spots":
        alarms.append(("careful", "Baselines from the scored spots", _sentence(results["baselines"]["statement"])))
    return alarms


def _facts(results: dict[str, Any], sections: str) -> list[tuple[str, str]]:
    model, data, panel = results["model"], results["data"], results["panel"]
    left_out = data.get("n_spots_left_out") or 0
    spots = f"{data['n_spots']:,} spots"
    n_sections = len(results["sections"])
    rows = [
        (
            "Model",
            f"{model['name']}, preset {model.get('preset', 'unknown')}, likelihood {model['likelihood']}, library size "
            f"{model['library_size']}",
        ),
        ("Data", f"{spots}, {n_sections} section{'s' * (n_sections != 1)}: {sections}"),
        ("Counts", "adata.X" if data["layer"] == "X" else f"adata.layers[{data['layer']!r}]"),
        ("Split", _sentence(results["split"]["statement"])),
        ("Genes", f"{panel['n_genes']:,}; SHA-256 of the sorted names {panel['sha256'][:16]}..."),
        ("Normalization", str(results["normalization"])),
        *([("Log-normalized", _sentence(results["log_normalized_from"]))] if "log_normalized_from" in results else []),
        ("Baselines", _sentence(results["baselines"]["statement"])),
        (
            "Noise ceiling",
            _sentence(CEILING.get(results["noise_ceiling"]["method"], results["noise_ceiling"]["method"])),
        ),
    ]
    if left_out:
        rows.insert(2, ("Left out", f"{left_out:,} spots that could not be scored, such as those without counts"))
    return rows + [("Note", note) for note in results["notes"]]


def _tiles(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the numbers of the headline: `name`, `label`, `value`, whether it is a `share`, and `why`."""
    head = results["headline"]
    several = len(results["sections"]) > 1
    tiles = [
        {
            "name": score.name,
            "label": score.label[:1].upper() + score.label[1:],
            "value": head[score.name],
            "share": False,
            "why": f"{score.quoted} over genes{', then over sections' if several else ''}",
        }
        for score in scores_of("gene")
        if score.headline
    ]
    shares = {
        "score_over_ceiling": ("Of the noise ceiling", f"by {results['noise_ceiling']['method']}"),
        "beats_depth_baseline": ("Genes above the depth baseline", "by Pearson"),
        "beats_mean_baseline": ("Genes above the mean baseline", "a Pearson above 0"),
    }
    for place, (name, (label, why)) in enumerate(shares.items(), start=1):
        tiles.insert(place, {"name": name, "label": label, "value": head[name], "share": True, "why": why})
    return tiles


def _section_columns() -> list[tuple[str, str]]:
    """Return the columns of the table of sections, with their headings."""
    quoted = [(score.name, score.heading or score.label) for score in by_section()]
    return [*quoted, *((name, PREDICTOR_LABELS[name]) for name in BASELINES), ("noise_ceiling", NOISE_CEILING)]


def _bars(results: dict[str, Any]) -> dict[str, Any]:
    """Return the bars of the headline, each `name`, `label`, `value`, `start` and `width` in per cent of the axis."""
    head = results["headline"]
    labels = {
        "mean_baseline": "mean baseline: the same for every spot",
        "depth_baseline": "depth baseline: the total count alone",
        "pearson": str(results["model"]["name"]),
        "noise_ceiling": "noise ceiling: the most these counts allow",
    }
    values = {name: head[name] for name in labels}
    known = [value for value in values.values() if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    span = (high - low) or 1.0
    rows = [
        {
            "name": name,
            "label": labels[name],
            "value": value,
            "start": 0.0 if value is None else round(100 * (min(value, 0.0) - low) / span, 2),
            "width": 0.0 if value is None else round(100 * abs(value) / span, 2),
        }
        for name, value in values.items()
    ]
    return {"rows": rows, "zero": round(-100 * low / span, 2)}


def _blocks(results: dict[str, Any]) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    blocks: dict[str, list[tuple[str, list[Any]]]] = {}
    for block, label, values in table.rows(results):
        blocks.setdefault(block, []).append((label, values))
    return list(blocks.items())


def _limits(results: dict[str, Any]) -> list[str]:
    known = results["noise_ceiling"]["method"] == "true means"
    limits = [f"{_sentence(part)[:-1]} was not scored: {_sentence(why)}" for part, why in results["not_scored"].items()]
    if len(results["sections"]) == 1:
        limits.append("Only one section was scored, so the variation between sections or donors is unknown.")
    if not results["cell_types"] and not any("cell type" in part for part in results["not_scored"]):
        limits.append("No cell types were predicted or scored.")
    return [
        *limits,
        "These scores do not show how the model performs on other tissues, donors, stains or scanners.",
        "A correlation over spots rewards the pattern of a gene, not its level or spread. Read it together with RMSE, "
        "spread and coverage.",
        "Neighboring spots are alike and therefore not independent samples: the number of spots overstates how "
        "precise the averages are.",
        "The baselines use no image, but the depth baseline knows the measured total count of each spot, which a "
        "prediction from the image alone does not.",
        "The truth is simulated: the noise ceiling is exact, but the tissue is simpler than real tissue."
        if known
        else "The noise ceiling is estimated from the counts themselves and only accounts for counting noise.",
        "The scores are for research. They do not show that a prediction can replace a measurement in patient care.",
    ]


def _call(results: dict[str, Any], out: str) -> str:
    model, data = results["model"], results["data"]
    arguments = {
        "key": None if model["key"] == keys.KEY_ADDED else repr(model["key"]),
        "layer": None if data["layer"] == "X" else repr(data["layer"]),
        "labels_key": "..." if results["cell_types"] else None,
        "library_key": None if data["library_key"] is None else repr(data["library_key"]),
        "seed": repr(data["seed"]),
    }
    passed = "".join(f", {name}={value}" for name, value in arguments.items() if value is not None)
    return (
        "import hist2scrna as h2s\n\n"
        f"evaluation = h2s.tl.evaluate(adata, model{passed})\n"
        'evaluation.to_json("evaluation.json")\n'
        f"h2s.report(evaluation, {out!r})"
    )


def _sentence(text: str) -> str:
    """Return text that begins with a capital and ends with one full stop."""
    text = str(text).strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""
