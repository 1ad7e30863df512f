"""Predict counts and cell types for AnnData with an image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hist2scrna import keys
from hist2scrna.cluster import require_client
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.messages import arguments_known
from hist2scrna.trained.announce import announce_prediction
from hist2scrna.trained.check_arguments import check_arguments
from hist2scrna.trained.depth import imposed_library
from hist2scrna.trained.files import as_fitted
from hist2scrna.trained.layer_form import LayerForm
from hist2scrna.trained.layers import checked_layers, default_layers
from hist2scrna.trained.predict_spots import (
    Asked,
    PredictionTask,
    of_nuclei,
    predict_sections,
    predict_spots,
    require_sections,
)
from hist2scrna.trained.read import read_for
from hist2scrna.trained.store import keep_encoded
from hist2scrna.trained.writer import PredictionWriter
from hist2scrna.trained.written import written_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from hist2scrna.trained.fitted import FittedModel

PREDICTION_BATCH, PREDICTION_TILES = 64, 4


@arguments_known
@in_own_torch
def predict(
    adata: AnnData,
    model: FittedModel | str | Path,
    *,
    key_added: str = keys.KEY_ADDED,
    store: str | Path | None = None,
    layers: Sequence[str] | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    sparse_below: float | None = None,
    copy: bool = False,
    library_size: Literal["predicted", "median"] | str = "predicted",
    batch_size: int | None = None,
    group_key: str | None = None,
    another_donor: bool | None = None,
    library_key: str | None = None,
    spatial_key: str | None = None,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    mpp: float | None = None,
    features_key: str | None = None,
    nuclei: Any = None,
    encoder: Any = None,
    accelerator: str = "auto",
    client: Any = None,
    progress: bool = True,
) -> AnnData:
    """Predict gene expression, as counts, and cell types from the image.

    Every patch is encoded once; then the graph layers run over the whole section. Expression in `adata` is never read.
    Nothing is written unless everything was computed. What an earlier prediction wrote under the same key is removed,
    whether or not it is written again. Positions off the tissue (0 in `.obs["in_tissue"]`), and up to
    5 % of the spots of a section that lie off the image or have no coordinates, get NaN.

    Parameters
    ----------
    adata
        Annotated data with an image and coordinates (or features). It may have all, some or none of the model's genes.
    model
        What :func:`hist2scrna.tl.fit` returned, the folder that it was saved to, or the name of a model that comes with
        the package (:func:`hist2scrna.models.published`).
    key_added
        Prefix of all keys that are written.
    store
        A `.zarr` or `.h5ad` path that does not exist yet: the results are streamed there, and the returned AnnData
        reads its predicted layers from it. `adata` is left as it is. What has been encoded is kept in a folder next to
        it, `{store}.partial`, until the store is whole: after a kill or an error the same call goes on from there.
        Models on tiles begin again.
    layers
        Which of `"mean"`, `"dropout"`, `"mu"`, `"dispersion"`, `"log_normalized"`, `"uncertainty"` to write; default:
        mean, for ZINB dropout, and, of count models, log-normalized expression.
    dtype
        Type of the numbers in the layers. `"float16"` takes half the room and keeps three digits, too few where a gene
        varies by less than a thousandth over the spots; what is above zero stays so, and values above 65,504 are
        refused.
    sparse_below
        Expected count below which the layers mean and log_normalized are zero: both are then sparse, CSR of float32,
        and the others dense as before. For count models. Under such means counts are impossible, so that
        :func:`hist2scrna.tl.evaluate` scores no likelihood of them, or predicts again where it is given the model.
        Genes that the model does not know remain NaN, and are stored: `copy=True` leaves them out. Default: all is
        stored.
    copy
        Return a new AnnData restricted to the model's genes. Its `X` is the predicted mean, in place of what was
        measured, which stays in `adata` alone.
    library_size
        Library size used to scale the predicted means: `"predicted"`, what the model reads from the tissue; `"median"`,
        that of the training spots, so that spots compare at equal depth; or a column of `.obs` with known sizes.
    batch_size
        Patches encoded at once, default 64; of models on tiles, tiles, default 4. The graph layers run in blocks of
        4,096 spots whatever this is.
    group_key
        Column of `.obs` with the donor of each spot; default: that of the training, if there.
    another_donor
        Whether the tissue is of another donor than those of the training, which the `kernel` model allows for:
        intervals become wider by a stated factor of depth, `log_normalized` is read a standard deviation below the
        depth of the training, and, where one donor was trained on, programs that move little count less. None: a donor
        that `group_key` names among those of the training is the same. Without names, a section is another donor's if
        its tissue is farther from the training than the sections of the training are from each other, or the training
        was one section, or several donors.
    library_key
        Column of `.obs` with the section of each spot; default: that of the training, if there.
    spatial_key, img_key, image, mpp
        As in :func:`hist2scrna.tl.fit`; `spatial_key` defaults to that of the training.
    features_key
        Key of `.obsm` with features; default: that of the training. With a model that has an encoder, features that
        this encoder extracted beforehand, in place of an image.
    nuclei
        For models on tiles, where the nuclei are, as in :func:`hist2scrna.tl.fit`. With AnnData of nuclei the rows of
        `adata` are spots, and each is predicted as the sum of the nuclei in it; for the nuclei themselves, predict
        these: `tl.predict(nuclei, model)`.
    encoder
        The encoder of the training, where it was a function or a module of yours and the model was loaded from a
        folder. Encoders by name are found by it; that their weights are those of the training is checked by SHA-256.
    accelerator
        `"auto"`, `"cpu"`, `"gpu"`, `"cuda"` or `"mps"`.
    client
        A client of a dask.distributed cluster (`pip install 'hist2scrna[dask]'`): each section is then a task of its
        workers, where `accelerator` chooses the device, and images in files are read from the same path. The sections
        of a worker that is lost are predicted by another. Not for models on tiles or on slides; nothing that was
        encoded is kept next to `store`.
    progress
        Show a bar.

    Returns
    -------
    `adata` itself if it has all the model's genes, in `.var_names` or else in a column of `.var` that names more of
    them (`feature_name`, `gene_symbols`, `gene_ids`, ...; the log says so); else a new AnnData with the model's genes,
    its `X` the mean, that carries over `.obs`, `.obsm`, `.uns` and `.obsp`. With `key = key_added`, these fields are
    set:

    `.layers[f"{key}_mean"]` : `dtype` (n_obs, n_vars), dense, or CSR with `sparse_below`
        Expected count, (1 - pi) mu; NaN for genes that the model does not know. For `mse` models, log-normalized
        expression.
    `.layers[f"{key}_dropout"]`, `.layers[f"{key}_mu"]`, `.layers[f"{key}_dispersion"]` : `dtype` (n_obs, n_vars)
        Zero-inflation probability; mean and inverse dispersion of the count component. As asked by `layers`.
    `.layers[f"{key}_log_normalized"]` : `dtype` (n_obs, n_vars), dense, or CSR with `sparse_below`
        Expected ln(1 + 1e4 x / library size), on request (`layers`): as the model estimates it, else the expectation
        under its distribution, with the predicted total of the spot over the model's genes for the library size. It
        is what log-normalized counts should be compared with: the logarithm of the mean lies above it, and shows
        nothing of how sparse counts move with the depth.
    `.layers[f"{key}_uncertainty"]` : `dtype` (n_obs, n_vars)
        Standard deviation of the predicted distribution of the counts, on request: the noise of counting, the spread
        of the gene about its mean, the excess zeros, and, of the kernel model and of networks with validation, the
        error of the mean as it was on average on tissue that was left out.
    `.obs[f"{key}_cell_type"]` : categorical
        Most probable class, if the model has classes; its categories are those that occur.
    `.obs[f"{key}_cell_type_confidence"]` : float32
        Its probability.
    `.obs[f"{key}_library_size"]` : float32
        Library size used to scale the means.
    `.obs[f"{key}_tissue_distance"]` : float32
        How unlike the training tissue a spot is, by its features or by blur, whichever says more: 1 is about as far as
        the farthest 1 % of the training spots are from the other sections, or as blurred as the most blurred 1 %. Not
        of models that were fitted on fewer than ten spots, or read tiles of fewer than 64 pixels.
    `.obs[f"{key}_unlike_training"]` : categorical
        `"unlike training"` where it is above 1, so that the prediction is an extrapolation; else `"like training"`.
        `.uns[f"{key}_unlike_training_colors"]` holds their colors, for Scanpy and Squidpy.
    `.obsm[f"{key}_cell_type_probability"]` : DataFrame (n_obs, n_classes)
        Probability of every class.
    `.obsm[f"{key}_composition"]` : DataFrame (n_obs, n_classes)
        Of models on tiles, the estimated share of every class in the tile that a nucleus is predicted by.
    `.obs[f"{key}_nucleus_px"]` : int64
        Of models on tiles, how many pixels of the nucleus were seen; 0: none, and all else is NaN.
    `.obs[f"{key}_tile"]` : int64
        Of models on tiles, the number of the tile that the nucleus is predicted by; -1: none.
    `.obs[f"{key}_n_nuclei"]` : int64
        In its place where the rows are spots, how many nuclei lie in each; 0: none, and all else is NaN. Types are then
        shares: the mean probability over these nuclei.
    `.obsm[f"X_{key}"]` : float32 (n_obs, d)
        Embedding before the heads, for neighbors, clustering, UMAP.
    `.var[f"{key}_modeled"]` : bool
        Genes that the model predicts.
    `.var[f"{key}_dispersion"]` : float32
        Inverse dispersion of each gene, of count models that have one for all spots; NaN for genes that the model does
        not know. With it :func:`hist2scrna.tl.evaluate` needs no second prediction.
    `.uns[key]` : dict
        Model, preset, version, parameters, patch geometry, encoder, graph, library size used.

    Raises
    ------
    KeyError
        If a key, library, image or scale factor is missing.
    FileNotFoundError, FileExistsError
        If the model or the image is not there; if `store` is.
    ValueError
        If a value is wrong: coordinates that are NaN, swapped, off the image or at a scale at which spots overlap,
        features of another width, a `key_added` under which others keep something, a layer that the likelihood does
        not have, or a number in it that `dtype` does not hold; another encoder than that of the training.

    Warns
    -----
    UserWarning
        If spots off the image or without coordinates are left out; if more than 5 % are unlike the training tissue; if
        features, or the size of what is predicted (spot, bin or cell), differ from the training; if spots are wider or
        narrower than those of the training by a fifth to a half, and one of the two tells microns by the diameter of
        its spots alone; if images are gray, or their pixels more than one and a half times as wide as those of the
        training. Finer images are brought to these.

    Examples
    --------
    >>> test = h2s.tl.predict(test, model, progress=False)
    >>> test.layers["hist2scrna_mean"].shape
    (30, 12)
    >>> list(test.obs["hist2scrna_cell_type"].cat.categories)
    ['epithelial', 'lymphoid', 'stromal', 'muscle']
    """
    check_arguments(
        adata, key_added, store, batch_size, group_key, copy=copy, progress=progress, another_donor=another_donor
    )
    form = LayerForm(dtype, sparse_below)
    form.check()
    fitted = as_fitted(model)
    form.check(fitted.likelihood)
    wanted = default_layers(fitted) if layers is None else checked_layers(layers)
    if client is None:
        pick_device(accelerator)
    else:
        require_client(client)
        require_sections(fitted)
    spots = read_for(
        fitted,
        adata,
        library_key=library_key,
        spatial_key=spatial_key,
        img_key=img_key,
        image=image,
        features_key=features_key,
        mpp=mpp,
        nuclei=nuclei,
    )
    kept = None if store is None or client is not None else keep_encoded(Path(store), fitted, spots)
    about = adata.obs.iloc[spots.rows]
    imposed = imposed_library(fitted, about, library_size)
    announce_prediction(fitted, spots, "a cluster" if client is not None else str(pick_device(accelerator)))
    writer = PredictionWriter(
        adata,
        rows=spots.rows,
        genes=fitted.genes,
        classes=fitted.classes,
        key=key_added,
        layers=wanted,
        copy=copy,
        store=store,
        form=form,
        called=spots.called,
        several=len(spots.sections) > 1,
    )
    asked = Asked(batch_size or _default_batch(fitted), accelerator, encoder, group_key, another_donor)
    task = PredictionTask(spots, about, imposed, asked)
    try:
        if client is None:
            distance = predict_spots(fitted, task, writer.add, progress=progress, kept=kept)
        else:
            distance = predict_sections(client, fitted, task, writer.add, progress=progress)
        if distance is not None:
            writer.distance[spots.rows] = distance
        writer.of_nuclei = of_nuclei(spots, writer.names)
        written = writer.finish(imposed, written_parameters(fitted, library_size, spots, form))
        if kept is not None and kept.folder is not None:
            shutil.rmtree(kept.folder)
        return written
    finally:
        writer.discard()


def _default_batch(model: FittedModel) -> int:
    return PREDICTION_TILES if model.module.needs == "tiles" else PREDICTION_BATCH
