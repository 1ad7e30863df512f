"""What the page of a prediction says, section by section; plain values, which the template escapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.fitting.result import useless
from hist2scrna.messages import listed
from hist2scrna.reporting.maps import draw_maps
from hist2scrna.reporting.prediction import PredictedSection, predicted_sections
from hist2scrna.trained.writer import MOST_UNLIKE

if TYPE_CHECKING:
    from anndata import AnnData

NAMED_SECTIONS = 6
LIMITS = (
    "Nothing here was compared with a measurement. How good the model is on tissue like this, tl.evaluate says on a "
    "section with counts.",
    "Only the genes in adata.var[{modeled!r}] were predicted.",
    "A spot that is not called unlike the training need not be predicted well: the distance knows only what the "
    "encoder sees.",
    "The prediction is for research. It cannot replace a measurement in patient care.",
)


def overview_content(adata: AnnData, key: str, out: str, title: str | None) -> dict[str, Any]:
    """Return the variables of the template.

    Parameters
    ----------
    adata
        The prediction.
    key
        Its prefix.
    out
        Name of the page.
    title
        Heading; None: model and sections.
    """
    about, sections = predicted_sections(adata, key)
    names = [section.name for section in sections]
    named = ", ".join(names[:NAMED_SECTIONS]) + ", ..." * (len(names) > NAMED_SECTIONS)
    return {
        "kind": "prediction",
        "title": title or f"{about['model']} on {named}",
        "verdict": _verdict(about, sections),
        "alarms": _alarms(about, sections),
        "facts": _facts(adata, about, key, sections),
        "sections": [_shown(adata, about, key, section) for section in sections],
        "unit": "slides" if about.get("observation") == "slide" else "spots",
        "limits": [text.format(modeled=keys.OutputKeys(key).modeled) for text in LIMITS],
        "call": _call(key, out),
    }


def _verdict(about: dict[str, Any], sections: list[PredictedSection]) -> str:
    n_spots = sum(len(section.rows) for section in sections)
    told = [section.unlike for section in sections if section.unlike is not None]
    if not told:
        return f"{n_spots:,} predicted. This model does not tell whether tissue is like that of its training."
    unlike = float(np.concatenate(told).mean())
    if unlike > MOST_UNLIKE:
        return f"{unlike:.0%} of {n_spots:,} spots are unlike the training: there, the prediction is extrapolation."
    return f"{n_spots:,} spots predicted, {unlike:.0%} of them unlike the training."


def _alarms(about: dict[str, Any], sections: list[PredictedSection]) -> list[tuple[str, str, str]]:
    """Return what must not be overlooked: how grave (`"grave"` or `"careful"`), heading, text."""
    alarms = list[tuple[str, str, str]]()
    if (verdict := useless(about.get("variance_explained"))) is not None:
        alarms.append(("grave", "A fit that explains nothing", f"{verdict}."))
    far = [s.name for s in sections if s.unlike is not None and s.unlike.mean() > MOST_UNLIKE]
    if far:
        text = (
            f"More than {MOST_UNLIKE:.0%} of the spots of {listed(far)} are unlike all tissue that the model was "
            "trained on. If they lie all over the section, check microns per pixel, stain and organ; if they lie in "
            "patches, the training has no such tissue."
        )
        alarms.append(("careful", "Unlike the training", text))
    others = [str(name) for name in about.get("another_donor", [])]
    if others:
        text = (
            f"{listed(others)}: taken for tissue of a donor that the model does not know. How deep it was sequenced no "
            "image tells, so that library sizes may be off by one factor for the whole section."
        )
        alarms.append(("careful", "Another donor", text))
    return alarms


def _facts(adata: AnnData, about: dict[str, Any], key: str, sections: list[PredictedSection]) -> list[tuple[str, str]]:
    modeled = keys.OutputKeys(key).modeled
    n_genes = int(adata.var[modeled].sum()) if modeled in adata.var else adata.n_vars
    encoder = about.get("encoder")
    trained_on = [str(name) for name in about.get("trained_on", [])]
    explained = about.get("variance_explained")
    left_out = sum(section.n_left_out for section in sections)
    return [
        ("Model", f"{about['model']}, preset {about.get('preset', 'unknown')}, likelihood {about['likelihood']}"),
        *([("Chosen", f"by model='auto': {about['choice']}")] if about.get("choice") else []),
        *([("Encoder", str(encoder["name"]))] if encoder else []),
        *([("Trained on", listed(trained_on))] if trained_on else []),
        *([("Explains", f"{explained:.0%} of the variance of spots left out of the fit")] if explained else []),
        ("Genes", f"{n_genes:,}"),
        ("Library size", str(about.get("library_size", "unknown"))),
        *([("Left out", f"{left_out:,} spots without a prediction, such as those off the tissue")] if left_out else []),
        ("Key", f"{key!r}; written by hist2scrna {about.get('version', 'of an unknown version')}"),
    ]


def _shown(adata: AnnData, about: dict[str, Any], key: str, section: PredictedSection) -> dict[str, Any]:
    types = []
    if section.cell_type is not None:
        shares = section.cell_type.value_counts(normalize=True)
        types = [(str(name), float(share)) for name, share in shares[shares > 0].items()]
    return {
        "name": section.name,
        "tiles": _tiles(section, types),
        "types": types,
        "maps": draw_maps(adata, section, about, key),
        "genes": [
            {
                "gene": str(gene),
                "mean": float(row["mean"]),
                "spread": float(row["spread"]),
                "highest_in": row.get("highest_in"),
            }
            for gene, row in section.genes.iterrows()
        ],
    }


def _tiles(section: PredictedSection, types: list[tuple[str, float]]) -> list[tuple[str, str, str]]:
    """Return the numbers at the head of a section: heading, value, what it is."""
    tiles = [("Predicted", f"{len(section.rows):,}", f"{section.n_left_out:,} left out" * bool(section.n_left_out))]
    if section.unlike is not None:
        tiles.append(("Unlike the training", f"{section.unlike.mean():.0%}", "of the spots"))
    if "library_size" in section.columns:
        low, middle, high = np.nanquantile(section.columns["library_size"], [0.1, 0.5, 0.9])
        tiles.append(("Library size", f"{middle:,.0f}", f"median; 80 % from {low:,.0f} to {high:,.0f}"))
    if "uncertainty" in section.columns:
        value = float(np.nanmedian(section.columns["uncertainty"]))
        tiles.append(("Uncertainty", f"{value:.2f}", "standard deviation over mean of a count, median"))
    if types:
        tiles.append(("Commonest type", f"{types[0][1]:.0%}", types[0][0]))
    return tiles


def _call(key: str, out: str) -> str:
    passed = "" if key == keys.KEY_ADDED else f", key={key!r}"
    return (
        "import anndata as ad\nimport hist2scrna as h2s\n\n"
        f'adata = ad.read_h5ad("predicted.h5ad")\nh2s.report(adata, {out!r}{passed})'
    )
