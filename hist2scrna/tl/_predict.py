"""Predict counts and cell types for AnnData with a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from hist2scrna import keys
from hist2scrna.trained.model import TrainedModel, as_trained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData


def predict(
    adata: AnnData,
    model: TrainedModel | str | Path,
    *,
    key_added: str = keys.KEY_ADDED,
    store: str | Path | None = None,
    layers: Sequence[str] | None = None,
    copy: bool = False,
    library_size: Literal["predicted", "median"] | str = "predicted",
    batch_size: int | None = None,
    library_key: str | None = None,
    spatial_key: str | None = None,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    features_key: str | None = None,
    mpp: float | None = None,
    accelerator: str = "auto",
    progress: bool = True,
) -> AnnData:
    """Predict gene expression, as counts, and cell types from the picture.

    Every patch is encoded once; then the graph layers run over the whole section. Expression in `adata` is never read.
    Nothing is written unless everything was computed.

    Parameters
    ----------
    adata
        Annotated data with a picture and coordinates (or features). It may have all, some or none of the model's genes.
    model
        What :func:`hist2scrna.tl.fit` returned, or the folder that it was saved to.
    key_added
        Prefix of all slots that are written.
    store
        A `.zarr` or `.h5ad` path that does not exist yet: the results are streamed there, and the returned AnnData
        reads its predicted layers from it. `adata` is left as it is.
    layers
        Which of `"mean"`, `"dropout"`, `"mu"`, `"dispersion"`, `"log_normalized"`, `"uncertainty"` to write; default:
        mean, for ZINB dropout, and, of count models, log-normalized expression.
    copy
        Return a new AnnData restricted to the model's genes, with `X` the mean.
    library_size
        At which library size the means stand: `"predicted"`: read from the tissue by the model; `"median"`: that of the
        training spots, so that spots compare at equal depth; else a column of `.obs` with known sizes.
    batch_size
        Patches encoded at once; default 64. The graph layers run in blocks of 4,096 spots whatever this is.
    library_key
        Column of `.obs` with the section of each spot; default: that of the training, if there.
    spatial_key, img_key, image, mpp
        As in :func:`hist2scrna.tl.fit`; `spatial_key` defaults to that of the training.
    features_key
        Slot of `.obsm` with features; default: that of the training.
    accelerator
        `"auto"`, `"cpu"`, `"gpu"`, `"cuda"` or `"mps"`.
    progress
        Show a bar.

    Returns
    -------
    `adata` itself if it has all the model's genes; else a new AnnData with the model's genes, its `X` the mean, that
    carries over `.obs`, `.obsm`, `.uns` and `.obsp`. With `key = key_added`, these fields are set:

    `.layers[f"{key}_mean"]` : float32 (n_obs, n_vars)
        Expected count, (1 - pi) mu; NaN for genes that the model does not know. For `mse` models, log-normalized
        expression.
    `.layers[f"{key}_dropout"]`, `.layers[f"{key}_mu"]`, `.layers[f"{key}_dispersion"]` : float32 (n_obs, n_vars)
        Zero-inflation probability; mean and inverse dispersion of the count component. As asked by `layers`.
    `.layers[f"{key}_log_normalized"]` : float32 (n_obs, n_vars)
        Expected ln(1 + 1e4 x / library size), on request (`layers`): as the model estimates it, else the expectation
        under its distribution, with the predicted total of the spot over the model's genes for the library size. It
        is what log-normalized counts should be compared with: the logarithm of the mean lies above it, and shows
        nothing of how sparse counts move with the depth.
    `.layers[f"{key}_uncertainty"]` : float32 (n_obs, n_vars)
        Standard deviation of the predicted distribution of the counts, on request: the noise of counting, the spread
        of the gene about its mean, the excess zeros, and, of preset `"few"` and of networks with validation, the error
        of the mean as it was on average on tissue that was left out.
    `.obs[f"{key}_cell_type"]` : categorical
        Most probable class, if the model has classes.
    `.obs[f"{key}_cell_type_confidence"]` : float32
        Its probability.
    `.obs[f"{key}_library_size"]` : float32
        Library size at which the means stand.
    `.obs[f"{key}_tissue_distance"]` : float32
        How unlike the training tissue a spot is, for models that know; 1 is as far as the farthest 1 % of the training
        spots are from the other sections.
    `.obs[f"{key}_unlike_training"]` : bool
        Whether it is above 1: the prediction is then an extrapolation.
    `.obsm[f"{key}_cell_type_probability"]` : DataFrame (n_obs, n_classes)
        Probability of every class.
    `.obsm[f"X_{key}"]` : float32 (n_obs, d)
        Embedding before the heads, for neighbors, clustering, UMAP.
    `.var[f"{key}_modeled"]` : bool
        Genes that the model predicts.
    `.uns[key]` : dict
        Model, version, parameters, patch geometry, graph, library size used.

    Raises
    ------
    KeyError
        If a slot, library, image or scale factor is missing.
    FileNotFoundError, FileExistsError
        If the model or the image is not there; if `store` is.
    ValueError
        If a value is wrong: coordinates that are NaN, swapped or off the picture, features of another width, a layer
        that the likelihood does not have.

    Warns
    -----
    UserWarning
        If more than 5 % of the spots are unlike the training tissue; if features, or the way in which microns are
        known, differ from the training.

    Examples
    --------
    >>> slide = hist2scrna.tl.predict(slide, "breast-model/")
    >>> sq.pl.spatial_scatter(slide, layer="hist2scrna_mean", color=["ERBB2", "hist2scrna_cell_type"])
    """
    return as_trained(model).predict(
        adata,
        key_added=key_added,
        store=store,
        layers=layers,
        copy=copy,
        library_size=library_size,
        batch_size=batch_size,
        library_key=library_key,
        spatial_key=spatial_key,
        img_key=img_key,
        image=image,
        features_key=features_key,
        mpp=mpp,
        accelerator=accelerator,
        progress=progress,
    )
