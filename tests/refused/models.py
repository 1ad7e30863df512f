"""Refused models, arguments and destinations: what a function is told, and where it is to write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
from builders import fast
from refused.case import GIVEN, Bench, Case, fit, other, predict, slot

import hist2scrna as h2s
from hist2scrna.trained.files import card_sha256

MANY = [f"g{i}" for i in range(100_000)]


def _saved(change, name: str = "copy"):
    """A case of a saved model whose folder was changed."""

    def call(adata, bench: Bench):
        folder = shutil.copytree(bench.folder / "network", bench.folder / GIVEN / name, dirs_exist_ok=True)
        change(folder)
        return h2s.tl.predict(adata, folder, progress=False)

    return call


def _card(signed: bool = True, **fields):
    """A change of the card: as by someone who can compute its SHA-256 again, unless it is not signed."""

    def change(folder: Path) -> None:
        card = json.loads((folder / "model.json").read_text(encoding="utf-8")) | fields
        if signed:
            card["sha256"]["model.json"] = card_sha256(card)
        (folder / "model.json").write_text(json.dumps(card), encoding="utf-8")

    return change


def _flip(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def _of_another(folder: Path) -> None:
    shutil.copy(folder.parents[1] / "ridge" / "model.safetensors", folder / "model.safetensors")


def _wide(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    _card(options={**card["options"], "decoder": [30000, 30000]})(folder)


def _another_made_it(adata, bench: Bench):
    predicted = h2s.tl.predict(adata.copy(), bench.network, progress=False)
    return h2s.tl.evaluate(predicted, h2s.tl.fit(adata, seed=1, **fast()), progress=False)


def _save_over(adata, bench: Bench):
    return bench.network.save(bench.folder / "ridge")


def _save_over_other(adata, bench: Bench):
    (bench.folder / GIVEN / "thesis").mkdir(parents=True, exist_ok=True)
    (bench.folder / GIVEN / "thesis" / "chapter.txt").write_text("precious", encoding="utf-8")
    return bench.network.save(bench.folder / GIVEN / "thesis", overwrite=True)


def _view_of_a_file(adata, bench: Bench):
    backed = ad.read_h5ad(bench.folder / "backed.h5ad", backed="r")
    try:
        return h2s.tl.predict(backed[5:20], bench.network, progress=False)
    finally:
        backed.file.close()


MODELS = {
    "no folder": predict(None, FileNotFoundError, shell=True, model=Path("gone")),
    "a folder without a model": predict(None, FileNotFoundError, shell=True, model=Path(".")),
    "a misspelled name of a published model": predict(None, FileNotFoundError, shell=False, model="her2-brest"),
    "neither a model nor a folder": predict(None, TypeError, model=3),
    "a file missing": other("predict", _saved(lambda f: (f / "history.csv").unlink()), FileNotFoundError),
    "a bit flipped in the weights": other("predict", _saved(_flip)),
    "the weights of another model": other("predict", _saved(_of_another)),
    "written by a newer version": other("predict", _saved(_card(format_version=99))),
    "a word changed in the card": other("predict", _saved(_card(signed=False, choice="none"))),
    "genes that occur twice": other("predict", _saved(_card(genes=["g0"] * 12))),
    "a card that is no JSON": other("predict", _saved(lambda f: (f / "model.json").write_text("{"))),
    "a card that is no dictionary": other("predict", _saved(lambda f: (f / "model.json").write_text("[]"))),
    "a card without the format": other("predict", _saved(lambda f: (f / "model.json").write_text("{}"))),
    "parameters that are null": other("predict", _saved(_card(parameters=None))),
    "a class that is not registered": other("predict", _saved(_card(name="theirs"))),
    "100,000 genes in the card, which the weights do not have": other("predict", _saved(_card(genes=MANY))),
    "a decoder of 30,000 x 30,000 in the card": other("predict", _saved(_wide)),
    "predictions of another model": other("evaluate", _another_made_it),
    "a model that is there": other("save", _save_over, FileExistsError),
    "a folder of other files": other("save", _save_over_other, FileExistsError),
}
ARGUMENTS = {
    "an AnnData that is a path": other("fit", lambda adata, bench: h2s.tl.fit("train.h5ad"), TypeError),
    "an AnnData that is a list": other(
        "predict", lambda adata, bench: h2s.tl.predict([adata], bench.network), TypeError
    ),
    "a misspelled argument of `fit`": fit(shell=False, n_neighbours=4),
    "a misspelled argument of `predict`": predict(None, TypeError, librarykey="library_id"),
    "a misspelled argument of `evaluate`": Case("evaluate", error=TypeError, arguments={"label_key": "cell_type"}),
    "a misspelled field of `Training`": fit(shell=False, training={"max_epoch": 3}),
    "a misspelled model": fit(model="hist2scrn"),
    "a misspelled preset": fit(preset="tinny"),
    "an option of another model": fit(shell=False, n_landmarks=3),
    "a field of `Training` among the options": fit(shell=False, lr=1e-3),
    "`training` a list": fit(None, TypeError, shell=False, training=[1]),
    "`losses` a list": fit(None, TypeError, shell=False, losses=["smoothness"]),
    "`losses` of an unknown name": fit(shell=False, losses={"smooth": 1.0}),
    "`losses` with a weight that is NaN": fit(shell=False, losses={"smoothness": float("nan")}),
    "`likelihood` unknown": fit(likelihood="normal"),
    "`neighbors` unknown": fit(neighbors="grid"),
    "`seed` below zero": fit(seed=-1),
    "`seed` a fraction": fit(shell=False, seed=1.5),
    "`patch_um` negative": fit(patch_um=-1.0),
    "`patch_um` wider than the image": fit(patch_um=20000.0),
    "`patch_px` zero": fit(patch_px=0),
    "`token_px` zero": fit(token_px=0),
    "`heads` zero": fit(heads=0),
    "`width` zero": fit(width=0),
    "`depth` negative": fit(depth=-1),
    "`dropout` of two": fit(dropout=2.0),
    "`mpp` zero": fit(mpp=0.0),
    "`mpp` of no microscope": fit(mpp=1e-6),
    "`lr` zero": fit(training={"lr": 0.0}),
    "`lr` NaN": fit(training={"lr": float("nan")}),
    "`max_epochs` a fraction": fit(shell=False, training={"max_epochs": 2.5}),
    "`max_epochs` zero": fit(training={"max_epochs": 0}),
    "`accumulate` zero": fit(training={"accumulate": 0}),
    "`patience` negative": fit(training={"patience": -1}),
    "`alpha` negative": fit(training={"alpha": -1e9}),
    "`precision` unknown": fit(training={"precision": "64-true"}),
    "`accelerator` unknown": fit(training={"accelerator": "tpu"}),
    "`devices` without their processes": fit(training={"devices": 3}),
    "`validation` above one": fit(shell=False, training={"validation": 2}),
    "`validation` of unknown sections": fit(shell=False, training={"validation": ["s7"]}),
    "`init_from` a number": fit(None, TypeError, shell=False, init_from=3),
    "`layers` unknown": predict(layers=["means"]),
    "`layers` a number": predict(layers=3),
    "`layers` that the likelihood does not have": predict(by_model="ridge", layers=["dropout"]),
    "`dtype` unknown": predict(dtype="float64"),
    "`sparse_below` zero": predict(shell=True, sparse_below=0.0),
    "`sparse_below` with `dtype` float16": predict(dtype="float16", sparse_below=0.1),
    "`sparse_below` and a model of log-normalized expression": predict(by_model="ridge", sparse_below=0.1),
    "`library_size` unknown": predict(shell=True, library_size="depth"),
    "`library_size` a column of words": predict(shell=True, library_size="cell_type"),
    "`batch_size` zero": predict(shell=True, batch_size=0),
    "`batch_size` a fraction": predict(batch_size=1.5),
    "`another_donor` a word": predict(another_donor="yes"),
    "`group_key` missing": predict(None, KeyError, shell=True, group_key="donor"),
    "`key_added` empty": predict(shell=True, key_added=""),
    "`key_added` with a slash": predict(shell=True, key_added="a/b"),
    "`key_added` of the images": predict(shell=True, key_added="spatial"),
    "`key_added` of an embedding": predict(slot("obsm", "X_pca", np.zeros((40, 2))), shell=True, key_added="pca"),
    "`nuclei` for a model without": predict(nuclei=np.zeros((9, 9), dtype=int)),
    "`encoder` for a model without": predict(shell=True, encoder="uni"),
    "`key_added` of the coordinates, for features": other(
        "extract_features",
        lambda adata, bench: h2s.pp.extract_features(
            adata, lambda patches: patches.mean(dim=(2, 3)), key_added="spatial", patch_px=8, progress=False
        ),
    ),
    "`spacing_um` of less than a thousandth micron": other(
        "tissue_grid",
        lambda adata, bench: h2s.pp.tissue_grid(
            adata.uns["spatial"]["s0"]["images"]["hires"], spacing_um=1e-3, mpp=0.5
        ),
    ),
}
DESTINATIONS = {
    "`store` of another ending": predict(store=Path("x.csv")),
    "`store` a number": predict(store=3),
    "`store` that is there": predict(None, FileExistsError, store=Path("here.h5ad")),
    "a view of an AnnData in backed mode": other("predict", _view_of_a_file),
    "`store` where nothing can be written": other(
        "predict",
        lambda adata, bench: h2s.tl.predict(adata, bench.network, store="/proc/deep/x.zarr", progress=False),
        OSError,
    ),
    "`store` below a file": other(
        "predict",
        lambda adata, bench: h2s.tl.predict(adata, bench.network, store=bench.folder / "here.h5ad" / "x.zarr"),
        OSError,
    ),
}
