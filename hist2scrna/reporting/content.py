"""What the page says, taken from an evaluation; plain values, which the template escapes."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.evaluation import table
from hist2scrna.provenance import package_versions

if TYPE_CHECKING:
    from hist2scrna.evaluation.result import Evaluation

NAMED_SECTIONS = 6
CEILING = {
    "true means": "the true means of the simulation, which no prediction can beat but by luck",
    "binomial thinning": "estimated by binomial thinning: the share of each gene's variance that is not counting noise",
}


def page_content(evaluation: Evaluation, source: str | None, out: str, title: str | None) -> dict[str, Any]:
    """Return the variables of the template but for figures and genes.

    Parameters
    ----------
    evaluation
        What was found.
    source
        Path of its JSON, if it came from one.
    out
        Name of the page.
    title
        Heading; None: model and sections.
    """
    found = evaluation.results
    sections = list(found["sections"])
    named = ", ".join(sections[:NAMED_SECTIONS]) + (", ..." if len(sections) > NAMED_SECTIONS else "")
    return {
        "title": title or f"{found['model']['name']} on {named}",
        "found": found,
        "head": found["headline"],
        "verdict": _verdict(found),
        "alarms": _alarms(found),
        "facts": _facts(found, named),
        "bars": _bars(found),
        "predictors": [*(table.COLUMNS[name] for name in table.predictors(found)), "noise ceiling"],
        "blocks": _blocks(found),
        "limits": _limits(found),
        "command": shlex.join(
            ["hist2scrna", "report", PurePath(source or "evaluation.json").name, "--out", out],
        ),
        "call": _call(found, out),
        "versions": package_versions(),
    }


def _verdict(found: dict[str, Any]) -> str:
    head = found["headline"]
    pearson, depth, mean = (head[name] for name in ("pearson", "depth_baseline", "mean_baseline"))
    if pearson is None:
        return "No gene varies over the scored spots, so that no correlation is defined."
    if head["collapsed"]:
        return "The prediction hardly varies between spots: its correlations mean nothing."
    if depth is not None and pearson <= depth:
        return (
            "The model does worse than the depth baseline: knowing nothing but the total count of each spot tells more "
            "about these genes than the model does."
        )
    if mean is not None and pearson <= mean:
        return "The model does no better than the mean baseline, which says the same of every spot."
    return "The model does better than both baselines, averaged over genes."


def _alarms(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what must not be overlooked: how grave (`"grave"` or `"careful"`), heading, text."""
    head, split, alarms = found["headline"], found["split"], list[tuple[str, str, str]]()
    if split["held_out"] is False:
        alarms.append(("grave", "Scored on spots that the model was trained on", split["statement"]))
    if head["collapsed"]:
        text = "The prediction hardly varies between spots; its correlations mean nothing."
        alarms.append(("grave", "Collapsed prediction", text))
    if split["held_out"] is None:
        alarms.append(("careful", "Not known to be held out", _sentence(split["statement"])))
    if found["baselines"].get("fitted_on") == "scored spots":
        alarms.append(("careful", "Baselines from the scored spots", _sentence(found["baselines"]["statement"])))
    return alarms


def _facts(found: dict[str, Any], sections: str) -> list[tuple[str, str]]:
    model, data, panel = found["model"], found["data"], found["panel"]
    left_out = data.get("n_spots_left_out") or 0
    spots = f"{data['n_spots']:,} spots"
    n_sections = len(found["sections"])
    rows = [
        ("Model", f"{model['name']}, likelihood {model['likelihood']}, library size {model['library_size']}"),
        ("Data", f"{spots}, {n_sections} section{'s' * (n_sections != 1)}: {sections}"),
        ("Counts", "adata.X" if data["layer"] == "X" else f"adata.layers[{data['layer']!r}]"),
        ("Split", _sentence(found["split"]["statement"])),
        ("Genes", f"{panel['n_genes']:,}; SHA-256 of the sorted names {panel['sha256'][:16]}..."),
        ("Normalization", str(found["normalization"])),
        *([("Read-out", _sentence(found["log_normalized_from"]))] if "log_normalized_from" in found else []),
        ("Baselines", _sentence(found["baselines"]["statement"])),
        ("Ceiling", _sentence(CEILING.get(found["noise_ceiling"]["method"], found["noise_ceiling"]["method"]))),
    ]
    if left_out:
        rows.insert(2, ("Left out", f"{left_out:,} spots that could not be scored, such as those without counts"))
    return rows + [("Note", note) for note in found["notes"]]


def _bars(found: dict[str, Any]) -> dict[str, Any]:
    """Return the bars of the headline, each `name`, `label`, `value`, `start` and `width` in per cent of the axis."""
    head = found["headline"]
    labels = {
        "mean_baseline": "mean baseline: the same for every spot",
        "depth_baseline": "depth baseline: the total count alone",
        "pearson": str(found["model"]["name"]),
        "noise_ceiling": "noise ceiling: what these counts allow",
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


def _blocks(found: dict[str, Any]) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    blocks: dict[str, list[tuple[str, list[Any]]]] = {}
    for block, label, values in table.rows(found):
        blocks.setdefault(block, []).append((label, values))
    return list(blocks.items())


def _limits(found: dict[str, Any]) -> list[str]:
    known = found["noise_ceiling"]["method"] == "true means"
    limits = [f"{_sentence(part)[:-1]} was not scored: {_sentence(why)}" for part, why in found["not_scored"].items()]
    if len(found["sections"]) == 1:
        limits.append("One section was scored: how much the numbers vary between sections or donors cannot be seen.")
    if not found["cell_types"] and not any("cell type" in part for part in found["not_scored"]):
        limits.append("No cell types were predicted or scored.")
    return [
        *limits,
        "Nothing here tells how the model does on other tissues, donors, stains or scanners than those scored.",
        "A correlation over spots rewards the pattern of a gene, not its level or spread: read RMSE, spread, and "
        "coverage beside it.",
        "Neighboring spots are alike, so that spots are no independent samples; numbers of spots overstate how sure "
        "the averages are.",
        "The baselines know no picture, but the depth baseline knows the measured total of each spot, which a "
        "prediction from the picture alone does not.",
        "Simulated truth: the ceiling is exact, and the tissue simpler than a real one."
        if known
        else "The ceiling is an estimate from the counts themselves; it leaves out what no picture could show.",
        "The numbers are for research. They do not show that a prediction may stand in for a measurement in care.",
    ]


def _call(found: dict[str, Any], out: str) -> str:
    model, data = found["model"], found["data"]
    arguments = {
        "key": None if model["key"] == keys.KEY_ADDED else repr(model["key"]),
        "layer": None if data["layer"] == "X" else repr(data["layer"]),
        "labels_key": "..." if found["cell_types"] else None,
        "library_key": None if data["library_key"] is None else repr(data["library_key"]),
        "seed": repr(data["seed"]),
    }
    given = "".join(f", {name}={value}" for name, value in arguments.items() if value is not None)
    return (
        "import hist2scrna as h2s\n\n"
        f"evaluation = h2s.tl.evaluate(adata, model{given})\n"
        'evaluation.to_json("evaluation.json")\n'
        f"h2s.report(evaluation, {out!r})"
    )


def _sentence(text: str) -> str:
    """Return text that begins with a capital and ends with one full stop."""
    text = str(text).strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""
