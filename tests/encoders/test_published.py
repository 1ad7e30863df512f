"""The table of published encoders: it agrees with what the field knows, and its networks are those published."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hist2scrna.encoders.networks import build_network
from hist2scrna.encoders.published import ENCODERS

# Of the model cards and papers, rounded as these are.
MILLIONS = {
    "uni": 303,
    "uni2-h": 681,
    "virchow": 631,
    "virchow2": 631,
    "h-optimus-0": 1135,
    "h-optimus-1": 1135,
    "prov-gigapath": 1135,
    "phikon-v2": 303,
    "midnight-12k": 1135,
    "hibou-b": 86,
    "hibou-l": 304,
}


def test_the_table_agrees_with_what_the_field_knows(shared_data) -> None:
    text = (shared_data.parent / "FIELD.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.partition("## Encoders")[2].splitlines()
        if line.startswith("|")
    ][2:]
    known = {"ImageNet": (0.485, 0.456, 0.406), "CLIP": (0.481, 0.458, 0.408), ".5 / .5": (0.5, 0.5, 0.5)}
    seen, previous = [], ""
    for names, hub, widths, read, license, colors in rows:
        for number, name in enumerate(names.split(", ")):
            entry = ENCODERS[name.lower()]
            seen.append(entry.name)
            owner_and_name = hub.partition(",")[0].lower()
            assert entry.hub_id.lower().startswith(owner_and_name[:-1])
            assert entry.width == int(widths.partition(" ")[0] if "(" in widths else widths.split(", ")[number])
            assert (entry.pooling == "class+mean") == ("class + mean" in widths)
            assert license.partition(",")[0].startswith(entry.license.removesuffix("-4.0"))
            assert entry.gated or "gated" not in license
            if read != "-":
                assert entry.px == int(read.partition(" ")[0])
            if colors == "same":
                colors = previous
            found = re.findall(r"\.\d+", colors)
            mean = known.get(colors) or tuple(float(number) for number in found[:3])
            np.testing.assert_allclose(entry.colors[0], mean, atol=1e-3)
            if len(found) == 6:
                assert entry.colors[1] == tuple(float(number) for number in found[3:])
        previous = colors
    assert sorted(seen) == sorted(ENCODERS)
    assert ENCODERS["virchow2"].registers == 4


def test_every_entry_reads_whole_tokens() -> None:
    assert all(entry.px % entry.token_px == 0 for entry in ENCODERS.values())
    assert all(name == entry.name == name.lower() for name, entry in ENCODERS.items())
    assert {entry.package for entry in ENCODERS.values()} == {"timm", "conch"}


@pytest.mark.parametrize("name", [name for name, entry in ENCODERS.items() if entry.package == "timm"])
def test_networks_are_those_that_were_published(timm, name) -> None:
    entry = ENCODERS[name]
    network = build_network(entry)
    parameters = dict(network.named_parameters())
    assert all(value.is_meta for value in parameters.values())
    assert list(network.buffers()) == []
    assert round(sum(value.numel() for value in parameters.values()) / 1e6) == MILLIONS[name]
    backbone = network.backbone
    assert backbone.num_prefix_tokens == 1 + entry.registers
    assert backbone.patch_embed.patch_size == (entry.token_px, entry.token_px)
    assert backbone.num_features * (2 if entry.pooling == "class+mean" else 1) == entry.width
    assert backbone.norm.eps == 1e-6
