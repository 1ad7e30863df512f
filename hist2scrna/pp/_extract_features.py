"""One vector a spot, from any encoder of patches."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hist2scrna import __version__, keys
from hist2scrna.fitting.gradient import default_precision
from hist2scrna.fitting.inference import pick_device
from hist2scrna.pp._encode_patches import LOWER, encode_by, encode_spots, in_use
from hist2scrna.pp._encoder import prepare_encoder
from hist2scrna.pp._feature_store import FeatureStore, spots_identity
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from hist2scrna.pp._encoder import Encoder

log = logging.getLogger(__name__)


def extract_features(
    adata: AnnData,
    encoder: str | nn.Module | Callable[[Tensor], Tensor],
    *,
    key_added: str | None = None,
    library_key: str | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | None = None,
    image: Any = None,
    mpp: float | None = None,
    patch_um: float | None = None,
    patch_px: int | None = None,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    weights: str | Path | None = None,
    batch_size: int = 32,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = None,
    accelerator: str = "auto",
    store: str | Path | None = None,
    progress: bool = True,
    copy: bool = False,
) -> AnnData | None:
    """Encode the patch of each spot once, by any encoder, frozen: features for the models on features.

    The pathology encoders go by name, each with its published input (224 px at 0.5 um a pixel: 112 um of tissue),
    normalization and pooling: `"h-optimus-0"`, `"h-optimus-1"`, `"uni"`, `"uni2-h"`, `"virchow"`, `"virchow2"`,
    `"prov-gigapath"`, `"phikon-v2"`, `"midnight-12k"`, `"hibou-b"`, `"hibou-l"`, and `"conch"` (448 px) where its
    authors' package is installed. They need `pip install 'hist2scrna[encoders]'`, and their weights: many are gated on
    the Hugging Face hub, and some licenses count models trained on an encoder's outputs as derivatives. No code from
    the hub is run, and files are read as weights only.

    How far the names are verified: the architectures are those of the model cards and of published loaders, and their
    numbers of weights are the published ones. Weights in the layout of transformers (`"phikon-v2"`, `"midnight-12k"`,
    and `"hibou-b"` and `"hibou-l"`, whose files are taken to be so named) are renamed, which was compared with
    transformers at random weights; `"conch"` was compared with its package at random weights. None was run with its
    published weights here. Weights that do not fit are refused, never loaded in part.

    Parameters
    ----------
    adata
        Annotated data with a picture and coordinates. Expression is never read.
    encoder
        A name from above; the name of a model of timm (`"resnet18"`, `"hf-hub:owner/name"`); a
        :class:`torch.nn.Module`, which is used in eval mode on the device, and put back as it was; or a function of a
        float tensor `(n, 3, patch_px, patch_px)` on the device. Module and function return a tensor `(n, d)`.
    key_added
        Slot of `.obsm` and of `.uns` that is written; None: `X_` and the name of the encoder.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: one section.
    spatial_key
        Slot of `.obsm` with the coordinates, full-resolution pixels, x right, y down.
    img_key
        Which image in `.uns["spatial"][library]["images"]`; None: the finest, be it there or in the file named in
        `metadata["source_image_path"]`, or the patches of a folder, where they were read from one.
    image
        A full-resolution picture instead: a path, an array, or a dictionary of these by section.
    mpp
        Microns per full-resolution pixel; None: from the metadata, else from the spot diameter (65 um for Space Ranger
        data, else 100 um; logged).
    patch_um
        Side of a patch in microns; None: what the encoder was trained on, else one and a half spot diameters.
    patch_px
        Side of a patch in pixels, as the encoder sees it; None: the encoder's own, else 224. Published encoders take
        any multiple of their token (their positions are interpolated then).
    normalize
        Mean and standard deviation of red, green and blue in 0..1, three numbers each; None: those of the encoder, and
        for a module or a function none: they see colors in 0..1.
    weights
        A file of weights (`.safetensors`, or `.bin`, `.pt`, `.pth`, read with `weights_only=True`), or a folder with
        one; a module is filled as a copy. None: the hub's, from its cache if they are there; the module's own.
    batch_size
        Patches encoded at once.
    precision
        `"32-true"`, `"bf16-mixed"` or `"16-mixed"`; None: bfloat16 mixed on a GPU that has it, else float32. The
        features are float32.
    accelerator
        `"auto"`, `"cpu"`, `"gpu"`, `"cuda"` or `"mps"`.
    store
        Folder in which finished batches are kept: a run that was interrupted goes on from there, and gives the same
        features. It must be the same encoder, weights, precision, geometry, coordinates and picture. Yours to delete.
    progress
        Show a bar.
    copy
        Return a copy with the features, and leave `adata` as it is.

    Returns
    -------
    None, or with `copy=True` a new AnnData. These fields are set, once all features are there:

    `.obsm[key_added]` : float32 (n_obs, d)
        The features.
    `.uns[key_added]` : dict
        `encoder`, `license`, `hub_id`, `weights` (where from), `weights_sha256` (of the file; of the tensors where
        there is none), `n_features`, `patch_um`, `patch_px`, `um_per_px`, `scale_from` (how microns are known), `mean`
        and `std` of the normalization, `pooling`, `precision`, and `version` of hist2scrna. `"unknown"` or `"none"`
        where nothing is known.

    Raises
    ------
    ImportError
        If a package that the encoder needs is missing, or does not fit torch.
    PermissionError
        If the hub gives the weights only to those who accepted their terms.
    KeyError
        If a slot, library, image or scale factor is missing.
    FileNotFoundError, FileExistsError
        If an image or weights are not there; if `store` is a folder of something else.
    TypeError
        If the encoder is none, or returns no tensor.
    ValueError
        If a value is wrong: an unknown name, weights that do not fit, outputs of another shape than `(n, d)` or that
        are NaN or infinite, a store of another run, coordinates that are NaN, swapped or off the picture.

    Examples
    --------
    >>> hist2scrna.pp.extract_features(adata, "uni", weights="uni/pytorch_model.bin", library_key="library_id")
    >>> model = hist2scrna.tl.fit(adata, model="ridge", features_key="X_uni", library_key="library_id")
    """
    if batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be at least 1, found {batch_size}.")
    precision = default_precision(accelerator) if precision is None else precision  # type: ignore[assignment]
    if precision not in LOWER:
        raise ValueError(f"Expected `precision` to be one of {list(LOWER)}, found {precision!r}.")
    device = pick_device(accelerator)
    colors = None if normalize is None else _checked_colors(normalize)
    prepared = prepare_encoder(encoder, weights)
    mean, std = prepared.colors if colors is None else colors
    px = _checked_px(prepared, patch_px)
    key = f"X_{prepared.name.replace('/', '_')}" if key_added is None else key_added
    opened = open_sections(adata, Source(library_key, spatial_key, img_key, image, mpp=mpp))
    spots = read_spots(opened, patch=PatchSize(px, prepared.um if patch_um is None else patch_um))
    assert spots.geometry is not None
    about = {
        "encoder": prepared.name,
        "license": prepared.license,
        "hub_id": prepared.hub_id,
        "weights": prepared.weights,
        "weights_sha256": prepared.sha256,
        "patch_um": spots.geometry.um,
        "patch_px": px,
        "um_per_px": spots.geometry.um / px,
        "scale_from": spots.geometry.scale_from,
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
        "pooling": prepared.pooling,
        "precision": precision,
    }
    kept = FeatureStore(len(spots), store, {} if store is None else {**_settings(about), **spots_identity(spots)})
    with in_use(prepared.module, device):
        encode = encode_by(prepared, (mean, std), device, LOWER[precision])
        encode_spots(spots, encode, kept, batch_size, progress)
    features = kept.array()
    log.info("%d features of %d spots, by %s", features.shape[1], len(features), prepared.name)
    target = adata.copy() if copy else adata
    target.obsm[key] = features
    about |= {"mean": np.array(mean), "std": np.array(std), "n_features": features.shape[1], "version": __version__}
    target.uns[key] = about
    return target if copy else None


def _settings(about: dict[str, Any]) -> dict[str, Any]:
    """Return what must agree for a run to go on; where the weights lie may change, what they are may not."""
    return {name: value for name, value in about.items() if name not in ("license", "hub_id", "weights", "scale_from")}


def _checked_colors(
    normalize: tuple[Sequence[float], Sequence[float]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        mean, std = (np.asarray(values, dtype=np.float64) for values in normalize)
    except (TypeError, ValueError):
        mean = std = np.empty(0)
    if mean.shape != (3,) or std.shape != (3,) or not np.isfinite([mean, std]).all() or (std <= 0).any():
        raise ValueError(
            "Expected `normalize` to be (mean, standard deviation), three numbers each, the deviations positive, "
            f"found {normalize!r}."
        )
    return mean, std


def _checked_px(encoder: Encoder, patch_px: int | None) -> int:
    if patch_px is None or patch_px == encoder.px:
        return encoder.px
    if encoder.fixed:
        raise ValueError(f"Encoder {encoder.name!r} reads patches of {encoder.px} px only, found patch_px={patch_px}.")
    if patch_px < 1 or patch_px % encoder.token_px:
        what = "positive" if encoder.token_px == 1 else f"a multiple of the {encoder.token_px} px of its tokens"
        raise ValueError(f"Expected `patch_px` of encoder {encoder.name!r} to be {what}, found {patch_px}.")
    return patch_px
