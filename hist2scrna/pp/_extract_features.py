"""Features of each spot, from any encoder of patches."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import __version__, keys
from hist2scrna.arguments import require_whole
from hist2scrna.cluster import require_client
from hist2scrna.encoders.precision import check_precision
from hist2scrna.encoders.prepare import DEFAULT_ENCODER, prepare_encoder
from hist2scrna.fitting.encode import require_rgb
from hist2scrna.fitting.feature_store import FeatureStore
from hist2scrna.fitting.identity import spots_identity
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.messages import arguments_known, require_adata, sections_counted
from hist2scrna.pp._encode_patches import Encoding, encode_sections, precision_there
from hist2scrna.pp._features_key import check_features_key
from hist2scrna.spots.patches import encoder_patch_size
from hist2scrna.spots.placed import placed_spots, spread
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.verbosity import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor, nn

    from hist2scrna.encoders import Encoder
    from hist2scrna.encoders.precision import Precision
    from hist2scrna.encoders.published import Colors
    from hist2scrna.images.patches import PatchGeometry

log = logging.getLogger(__name__)


@arguments_known
@in_own_torch
@sections_counted
def extract_features(
    adata: AnnData,
    encoder: str | nn.Module | Callable[[Tensor], Tensor] | Encoder = DEFAULT_ENCODER,
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
    precision: Precision | None = None,
    accelerator: str = "auto",
    store: str | Path | None = None,
    client: Any = None,
    progress: bool = True,
    copy: bool = False,
) -> AnnData | None:
    """Describe each spot by the features of its patch, by a frozen encoder: for models that read features.

    - `"imagenet"`, the default, comes with the package: two EfficientNets trained on ImageNet, on three fields of view,
      the patch on the spot and patches two and four times as wide; 3,600 features. It is the encoder of
      `fit(..., encoder=)`.
    - `"imagenet-tiles"`, for cells and bins that lie closer than their patches are wide: the same networks pass once
      over tiles of the image, and each cell takes the same statistics of the maps at its place; 3,600 features, of
      fields of view of the same width in pixels of about 0.12 um. Not with `"+morphology"`, nor for patches in files.
    - `"morphology"`: stain, color and texture by hand, without any training; 104 features. See
      :func:`morphology_features`, which cuts each field of view by itself and can standardize the features.
    - The published pathology encoders, each with its published input (224 px at 0.5 um a pixel: 112 um of tissue),
      normalization and pooling: `"h-optimus-0"`, `"h-optimus-1"`, `"uni"`, `"uni2-h"`, `"virchow"`, `"virchow2"`,
      `"prov-gigapath"`, `"phikon-v2"`, `"midnight-12k"`, `"hibou-b"`, `"hibou-l"`, and `"conch"` (448 px) where its
      authors' package is installed. They need `pip install 'hist2scrna[encoders]'`, and their weights: many are gated
      on the Hugging Face hub, and some licenses count models trained on an encoder's outputs as derivatives. No code
      from the hub is run, and files are read as weights only.
    - Any model of timm, and any function or module of yours.

    How far the published encoders are verified: the architectures are those of the model cards and of published
    loaders, and their numbers of weights are the published ones. Weights in the layout of transformers (`"phikon-v2"`,
    `"midnight-12k"`, and `"hibou-b"` and `"hibou-l"`, whose files are taken to be named in this way) are renamed, which
    was compared with transformers at random weights; `"conch"` was compared with its package at random weights. None
    was run with its published weights here. Weights that do not fit are refused, never loaded in part.

    Parameters
    ----------
    adata
        Annotated data with an image and coordinates. Expression is never read.
    encoder
        A name from above; the name of a model of timm (`"resnet18"`, `"hf-hub:owner/name"`); a
        :class:`torch.nn.Module`, which is used in eval mode on the device, and put back as it was; or a function of a
        float tensor `(n, 3, patch_px, patch_px)` on the device. Module and function return a tensor `(n, d)`.
    key_added
        Key of `.obsm` and of `.uns` that is written; None: `X_` and the name of the encoder.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: `library_id` if it is there
        and names libraries of `.uns["spatial"]`, else all spots are one section.
    spatial_key
        Key of `.obsm` with the coordinates, full-resolution pixels, x right, y down.
    img_key
        Which image in `.uns["spatial"][library]["images"]`; None: the finest, be it there or in the file named in
        `metadata["source_image_path"]`, or the patches of a folder, where they were read from one.
    image
        A full-resolution image instead: a path, an array, or a dictionary of these by section.
    mpp
        Microns per full-resolution pixel; None: from the metadata, else from the spot diameter (65 um for Space Ranger
        data, else 100 um; logged).
    patch_um
        Side in microns of the patch on the spot, the narrowest field of view of the encoder; None: what the encoder was
        trained on, else one and a half spot diameters.
    patch_px
        Side in pixels of what the encoder is given, its widest field of view; None: the encoder's own (`"imagenet"`:
        896), else 224. Published encoders take any multiple of their token (their positions are interpolated then).
    normalize
        Mean and standard deviation of red, green and blue in 0..1, three numbers each; None: those of the encoder. A
        module or a function has none: it sees colors in 0..1.
    weights
        A file of weights (`.safetensors`, or `.bin`, `.pt`, `.pth`, read with `weights_only=True`), or a folder with
        one; a copy of a module is filled. None: those on the hub, from its cache if they are there; the module's own.
    batch_size
        Number of patches encoded at once.
    precision
        `"32-true"`, `"bf16-mixed"` or `"16-mixed"`; None: bfloat16 mixed on a GPU that has it, else float32.
        The features are float32.
    accelerator
        `"auto"`, `"cpu"`, `"gpu"`, `"cuda"` or `"mps"`.
    store
        Folder in which finished batches are kept: an interrupted run continues from there, and gives the same
        features. Encoder, weights, precision, geometry, coordinates and image must be the same. Rows that were cut
        off or altered are made again. The folder is not deleted.
    client
        A client of a dask.distributed cluster (`pip install 'hist2scrna[dask]'`): each section is then a task of its
        workers, where `accelerator` chooses the device, and images in files are read from the same path. The sections
        of a worker that is lost are encoded by another.
    progress
        Show a progress bar.
    copy
        Return a copy with the features, and leave `adata` unchanged.

    Returns
    -------
    None, or with `copy=True` a new AnnData. These fields are set, once all features are there:

    `.obsm[key_added]` : float32 (n_obs, d)
        The features; NaN for positions off the tissue (0 in `.obs["in_tissue"]`), and for the few spots of a section,
        5 % at most, that lie off the image or have no coordinates.
    `.uns[key_added]` : dict
        `encoder`, `encoder_version`, `license`, `hub_id`, `weights` (where from), `weights_sha256` (of the file; of the
        tensors where there is none), `n_features`, `fields_of_view`, `patch_um`, `patch_px` and `um_per_px` of the
        widest of them, `scale_from` (how microns are known), `mean` and `std` of the normalization, `pooling`,
        `precision`, and `version` of hist2scrna. `"unknown"` or `"none"` where nothing is known.

    Raises
    ------
    ImportError
        If a package that the encoder needs is missing, or does not fit torch.
    PermissionError
        If the hub gives the weights only to those who accepted their terms.
    KeyError
        If a key, library, image or scale factor is missing.
    FileNotFoundError, FileExistsError
        If an image or weights are not there; if `store` is a folder of something else.
    TypeError
        If the encoder is none, or returns no tensor.
    ValueError
        If a value is wrong: an unknown name, weights that do not fit, outputs of another shape than `(n, d)` or that
        are NaN or infinite, a store of another run, coordinates that are NaN, swapped or off the image.

    Examples
    --------
    >>> h2s.pp.extract_features(train, "morphology", progress=False)
    >>> train.obsm["X_morphology"].shape
    (60, 104)
    >>> ridge = h2s.tl.fit(train, model="ridge", features_key="X_morphology", progress=False)
    """
    require_adata(adata)
    require_whole("batch_size", batch_size, 1)
    if key_added is not None:
        check_features_key(adata, key_added, spatial_key)
    if precision is not None:
        check_precision(precision)
    device = pick_device(accelerator) if client is None else None
    if client is not None:
        require_client(client)
    colors = None if normalize is None else _checked_colors(normalize)
    prepared = prepare_encoder(encoder, weights)
    if colors is not None:
        prepared = replace(prepared, colors=colors)
    opened = placed_spots(open_sections(adata, Source(library_key, spatial_key, img_key, image, mpp=mpp)))
    size = encoder_patch_size(prepared, patch_um=patch_um, patch_px=patch_px)
    spots = read_spots(opened, patch=size)
    require_rgb(spots)
    assert spots.geometry is not None
    # What fit and predict encode in the same way is in the same cache.
    cached = settings.cache_dir is not None and prepared.by_name and store is None
    cached &= colors is None and precision is None
    if precision is None:
        precision = prepared.precision_on(device) if device is not None else precision_there(client, accelerator)
    description = _describe(prepared, spots.geometry, precision)
    encoding = Encoding(prepared, precision, batch_size, cached=cached)
    must_agree = {} if store is None else {**_settings(description), **spots_identity(spots)}
    rows = FeatureStore(len(spots), store, must_agree)
    if device is None:
        encode_sections(client, encoding, spots, rows, accelerator, progress=progress)
    else:
        encoding.encode(spots, rows, device, progress=progress)
    features = rows.array()
    log.info("%d features of %d spots, by %s", features.shape[1], len(features), prepared.name)
    target = adata.copy() if copy else adata
    key = f"X_{prepared.name.replace('/', '_')}" if key_added is None else key_added
    target.obsm[key] = spread(features, spots.rows, adata.n_obs)
    arrays = {name: np.array(description[name]) for name in ("mean", "std", "fields_of_view")}
    target.uns[key] = {**description, **arrays, "n_features": features.shape[1], "version": __version__}
    return target if copy else None


def _describe(encoder: Encoder, geometry: PatchGeometry, precision: str) -> dict[str, Any]:
    card = encoder.card()
    return {
        "encoder": card["name"],
        "encoder_version": card["version"],
        "license": card["license"],
        "hub_id": card["hub_id"],
        "weights": card["weights"],
        "weights_sha256": card["sha256"],
        "fields_of_view": card["fields_of_view"],
        "patch_um": geometry.um,
        "patch_px": geometry.px,
        "um_per_px": geometry.um / geometry.px,
        "scale_from": geometry.scale_from,
        "mean": card["mean"],
        "std": card["std"],
        "pooling": card["pooling"],
        "precision": precision,
    }


def _settings(description: dict[str, Any]) -> dict[str, Any]:
    """Return what must agree for a run to continue: where the weights lie may change, their values may not."""
    may_change = ("license", "hub_id", "weights", "scale_from")
    return {name: value for name, value in description.items() if name not in may_change}


def _checked_colors(normalize: tuple[Sequence[float], Sequence[float]]) -> tuple[Colors, Colors]:
    try:
        mean, std = (np.asarray(values, dtype=np.float64) for values in normalize)
    except (TypeError, ValueError):
        mean = std = np.empty(0)
    if mean.shape != (3,) or std.shape != (3,) or not np.isfinite([mean, std]).all() or (std <= 0).any():
        raise ValueError(
            "Expected `normalize` to be (mean, standard deviation), three numbers each, the deviations positive, "
            f"found {normalize!r}."
        )
    return tuple(mean.tolist()), tuple(std.tolist())
