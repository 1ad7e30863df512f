"""What is damaged: a folder of good files of each kind, and what a user does with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from builders import fast, spots_of
from image_files import MARKER, WRITERS
from PIL import Image
from platform_files import barcodes, write_section
from safetensors.torch import save_file
from sections import section

from hist2scrna import TrainedModel, io, pp, report, tl
from hist2scrna.cli.reading import read_one
from hist2scrna.encoders.weights import file_sha256, read_state_dict
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.images.base import cut_patches, thumbnail
from hist2scrna.images.open import open_file
from hist2scrna.trained.files import CARD, FILES, card_sha256

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = ("strips", "big-endian 16 bit", "planar", "lzw", "jpeg 2000", "bigtiff", "pyramid", "ome-tiff", "svs")
ZARRS = ("ome-zarr 0.4", "ome-zarr 0.5", "ome-zarr, sharded")
KEYS = {"library_key": "library_id"}


@dataclass(frozen=True)
class Corpus:
    """Files of one kind.

    Attributes
    ----------
    write
        Writes good ones to an empty folder.
    use
        Does with the folder what a user would; raises what a user would see.
    sign
        Makes checksums right again after damage, as somebody would who means harm.
    every
        A case of it is run in every so many rounds, where it takes long.
    """

    write: Callable[[Path], object]
    use: Callable[[Path], object]
    sign: Callable[[Path], None] | None = None
    every: int = 1


def network(**training: object) -> TrainedModel:
    return tl.fit(section(), **fast(labels_key="cell_type", **training))


def _kernel(folder: Path) -> None:
    tl.fit(section(), model="kernel", encoder="morphology", progress=False).save(folder / "model")


def _sign(folder: Path) -> None:
    model = folder / "model"
    try:
        card = json.loads((model / CARD).read_text())
        card["sha256"] = {name: file_sha256(model / name) for name in FILES}
        card["sha256"][CARD] = card_sha256(card)
    except Exception:  # noqa: BLE001 - what is damaged so much cannot be signed
        return
    (model / CARD).write_text(json.dumps(card))


def _use_model(folder: Path) -> None:
    TrainedModel.load(folder / "model").predict(section(n_spots=12), progress=False, accelerator="cpu")


def _use_image(folder: Path) -> None:
    path = next(folder.iterdir())
    image = open_file(path)
    thumbnail(image)
    for side in (10, 40, 200, 800):
        cut_patches(image, np.concatenate([MARKER, MARKER * 0, np.array([image.size()])]), side, 16)


def _patch_folder(folder: Path) -> None:
    io.write_patch_folder(section(n_spots=6), folder / "f", labels_key="cell_type", patch_px=16)


def _use_patch_folder(folder: Path) -> None:
    adata = io.read_patch_folder(folder / "f")
    spots = spots_of(adata, patch_px=16)
    spots.patches.read(np.arange(adata.n_obs))


def _use_adata(folder: Path) -> None:
    adata = read_one(next(folder.iterdir()))
    pp.extract_features(adata, "morphology", progress=False)
    tl.fit(adata, model="ridge", features_key="X_morphology", progress=False)


def _store(folder: Path) -> None:
    pp.extract_features(section(n_spots=6), "morphology", store=folder / "store", progress=False)


def _evaluation(folder: Path) -> None:
    adata = section()
    model = tl.fit(adata, model="kernel", encoder="morphology", progress=False)
    tl.evaluate(tl.predict(adata, model, progress=False), model, progress=False).to_json(folder / "e.json")


def _use_evaluation(folder: Path) -> None:
    one = Evaluation.from_json(folder / "e.json")
    str(one)
    one.compare(one)


def _weights(folder: Path) -> None:
    state = network().module.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "w.safetensors")
    torch.save(state, folder / "w.pt")


def _use_weights(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        read_state_dict(path)


def _raster(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "image.jpg")


def _picture(kind: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        WRITERS[kind](folder, np.random.default_rng(0).integers(0, 255, (347, 531, 3)).astype(np.uint8))

    return write


def _train(folder: Path) -> TrainedModel:
    return network(checkpoint_dir=folder / "kept")


CORPORA: dict[str, Corpus] = {
    "model": Corpus(lambda folder: network().save(folder / "model"), _use_model, _sign),
    "kernel model": Corpus(_kernel, _use_model, _sign),
    "checkpoint": Corpus(_train, _train),
    "patch folder": Corpus(_patch_folder, _use_patch_folder),
    **{kind: Corpus(_picture(kind), _use_image) for kind in (*IMAGES, *ZARRS, "png")},
    "jpeg": Corpus(_raster, _use_image),
    "h5ad": Corpus(lambda folder: section(n_spots=12).write_h5ad(folder / "s.h5ad"), _use_adata),
    "zarr": Corpus(lambda folder: section(n_spots=12).write_zarr(folder / "s.zarr"), _use_adata),
    "features": Corpus(
        _store,
        lambda folder: pp.extract_features(section(n_spots=6), "morphology", store=folder / "store", progress=False),
    ),
    "evaluation": Corpus(_evaluation, _use_evaluation),
    "report": Corpus(_evaluation, lambda folder: report(folder / "e.json", folder / "report.html"), every=30),
    "weights": Corpus(_weights, _use_weights),
    "space ranger": Corpus(
        lambda folder: write_section(folder / "outs", barcodes()), lambda folder: io.read_visium(folder / "outs")
    ),
}
