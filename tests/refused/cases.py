"""Every refused input, by kind and by what it is; docs/refused_inputs.md has a row for each."""

from __future__ import annotations

from refused import models, places, tables
from refused.case import Case

CASES: dict[str, dict[str, Case]] = {
    "Counts": tables.COUNTS,
    "Genes": tables.GENES,
    "Coordinates": places.COORDINATES,
    "Images": places.IMAGES,
    "Sections": places.SECTIONS,
    "Labels": tables.LABELS,
    "Graphs": places.GRAPHS,
    "Features": tables.FEATURES,
    "Models": models.MODELS,
    "Arguments": models.ARGUMENTS,
    "Destinations": models.DESTINATIONS,
}
