"""The code on the pages of the documentation runs: the blocks of each heading in turn, on small sections."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tifffile

import hist2scrna as h2s
from hist2scrna.models import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "docs/guide/data.md",
    "docs/guide/models.md",
    "docs/concepts.md",
    "docs/unlike.md",
    "docs/evaluation.md",
)


def blocks() -> list[tuple[str, str]]:
    """The code of each heading that has some; blocks that need files of the reader are no `python` fences."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for part in re.split(r"(?m)^#+ ", text)[1:]:
            code = "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```", part))
            if code:
                found.append((f"{Path(page).stem}: {part.splitlines()[0]}", code))
    return found


BLOCKS = dict(blocks())


def test_pages_have_code() -> None:
    assert {name.split(":")[0] for name in BLOCKS} == {Path(page).stem for page in PAGES}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Two sections of two donors to train on, one with counts, one without, and a model."""
    *sections, test = h2s.datasets.simulate("small", n_sections=3, n_spots=30, n_genes=12)
    train = h2s.io.concat(sections)
    train.obs["donor"] = train.obs["library_id"].astype(str)
    for adata in (train, test):
        adata.var_names = ["ERBB2", *adata.var_names[1:]]
    for entry in train.uns["spatial"].values():
        entry["images"]["ihc"] = entry["images"]["hires"][..., ::-1].copy()
        entry["scalefactors"]["tissue_ihc_scalef"] = entry["scalefactors"]["tissue_hires_scalef"]
    model = h2s.tl.fit(train, encoder="morphology", labels_key="cell_type", progress=False)
    return {"train": train, "test": test, "slide": test[:, []].copy(), "model": model}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", list(BLOCKS))
def test_code_of_a_page(name, made, tmp_path, monkeypatch) -> None:
    import numpy as np
    import scanpy as sc
    import squidpy as sq
    import torch

    monkeypatch.chdir(tmp_path)
    # The code as it stands, but for how long it takes.
    entries = dict(registry._entries)
    entries["kernel"] = replace(registry.model_entry("kernel"), encoder="morphology")
    monkeypatch.setattr(registry, "_entries", entries)
    monkeypatch.setattr(registry, "DEFAULTS", replace(registry.DEFAULTS, max_epochs=1))
    picture = made["test"].uns["spatial"]["section_2"]["images"]["hires"]
    tifffile.imwrite("slide.tif", picture, tile=(128, 128), resolution=(1e4, 1e4), resolutionunit="CENTIMETER")
    made["train"].write_h5ad("sections.h5ad")
    made["slide"].write_h5ad("unseen.h5ad")
    copies = {key: value.copy() if hasattr(value, "obs_names") else value for key, value in made.items()}
    exec(BLOCKS[name], {"h2s": h2s, "np": np, "sc": sc, "sq": sq, "torch": torch, **copies})
