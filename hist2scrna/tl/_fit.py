"""Fit a model on AnnData with an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from hist2scrna import keys
from hist2scrna.spots.source import Source
from hist2scrna.trained.fit import fit_model
from hist2scrna.trained.plan import FitRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from hist2scrna.models.contract import Likelihood, Term
    from hist2scrna.models.training import Training
    from hist2scrna.spots.graph import Neighbors
    from hist2scrna.trained.model import TrainedModel


def fit(
    adata: AnnData,
    *,
    model: str = "auto",
    preset: str | None = None,
    genes: Sequence[str] | str | None = None,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    group_key: str | None = None,
    expression: AnnData | Sequence[AnnData] | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    mpp: float | None = None,
    features_key: str | None = None,
    encoder: Any = None,
    patch_um: float | None = None,
    nuclei: Any = None,
    reference: Any = None,
    neighbors: Literal["knn", "delaunay"] | Neighbors | Mapping[str, Any] | None = None,
    likelihood: Likelihood | None = None,
    losses: Mapping[str, float | Term | tuple[Term, float]] | None = None,
    init_from: TrainedModel | str | Path | None = None,
    training: Training | Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
    **model_options: Any,
) -> TrainedModel:
    """Fit a model that predicts counts and cell types from histology. `adata` is not changed.

    `model` says which model is fitted, and nothing else does: an argument or option that it does not have is refused,
    and the models that have it are named. With `"auto"`, up to 20,000 spots are fitted with `"kernel"`, in closed form,
    which was better than every network on the sections at hand (see the benchmark in the documentation); more spots
    with `"hist2scrna-lightweight"`; images of several stains, and patches in files, with `"hist2scrna"`. The log, the
    model's `repr` and `.uns` say what was chosen and why.

    Networks are trained on spatially contiguous blocks of spots, each with the halo of neighbors that the graph layers
    need, so that every spot sees its true neighborhood; models that read a whole section train on one section a step.
    The loss is the negative log-likelihood of the counts (the squared error, for models of log-normalized expression) +
    `alpha` x cross-entropy of the cell type + 0.5 x squared error of the log library size, where the model has these,
    + the model's own terms + `losses`. The weights of the epoch with the lowest validation loss are kept; without
    validation, those of the last. Then one number, chosen on the validation spots, is added to the dispersion 1 / theta
    of our networks, which holds the error of the mean on tissue not trained on (`.training["dispersion_shift"]`).

    Parameters
    ----------
    adata
        Annotated data: counts in `.X` or `layer`, coordinates in `.obsm[spatial_key]` (full-resolution pixels, x right,
        y down), images in `.uns["spatial"]`.
    model
        `"auto"`: what suits the data. On features of a frozen encoder: `"kernel"`, `"hist2scrna-lightweight"`,
        `"ridge"`. On patches: `"hist2scrna"`, `"hist2st"`, `"histogene"`, `"stnet"`, `"transformerst"`. On tiles with
        nuclei: `"ghist"`. On slides: `"hist2rna"`. Or the name of a model that was registered
        (:func:`hist2scrna.models.register`).
    preset
        Size of the model: of `"hist2scrna"` `"tiny"` (for CPU and tests), `"small"` or `"base"`; the others have their
        own. None: the default size.
    genes
        Genes to model: names, a boolean column of `.var`, or None for all.
    layer
        Layer with raw counts; None: `.X`.
    labels_key
        Categorical column of `.obs` with cell types; spots without a label train on counts alone. None: no such head.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`. None: `"library_id"`, if it is
        there and names these; else all spots are one section.
    group_key
        Column of `.obs` with the group to which a section belongs, for instance the donor. Whole groups, not sections,
        are then left out for validation, penalties and dispersions. Give it wherever there are donors: the kernel model
        then learns within donors, since how deep one was sequenced, and how much of a gene it has, no picture tells;
        and `predict` knows by name which tissue is of a donor of the training. None: sections.
    expression
        Counts of further donors without images, as AnnData or several, for models that have it (`kernel`,
        `hist2scrna`, `hist2scrna-lightweight`): spots of the same kind, genes matched by name, donors by `group_key`
        and sections by `library_key` in their `.obs`. Which genes go together is learned from them too. Networks then
        predict how far each of these gene programs is on (`n_programs`, 10 unless given), with loadings that stay as
        the counts tell them. With `kernel`, the depth and the rate of each gene in tissue of another donor are also
        the means over all donors, and how far its depth may be off is theirs. Sections of `adata` that have no image,
        where others have one, are taken so too. Single cells are no spots: sum them first
        (:func:`hist2scrna.pp.pseudo_spots`).
    spatial_key
        Key of `.obsm` with the coordinates.
    img_key
        Which image in `.uns["spatial"][library]["images"]`; None: the finest, be it there or in the file named in
        `metadata["source_image_path"]`. Several names, as `["he", "ihc"]`: registered stains of each section, stacked.
    image
        A full-resolution image instead: a path, an array, a list of these for several registered stains, or a
        dictionary by section. An array may have more channels than colors: RGB first, then one for each marker.
    mpp
        Microns per full-resolution pixel; None: from the metadata, else from the spot diameter (65 um for Space Ranger
        data, else 100 um; logged).
    features_key
        Key of `.obsm` with features that were extracted beforehand, for models on features; no image is needed then.
    encoder
        What turns a patch into features, for models on features: `"imagenet"` (the default: two networks pretrained on
        ImageNet, in three fields of view), `"imagenet-tiles"` (the same for dense cells, which read the maps of an
        image that is encoded once), `"morphology"` (color, stain and texture), a published pathology encoder
        such as `"uni2-h"`, a model of timm, or any function or module; see :func:`hist2scrna.pp.extract_features`. It
        is not trained. The fitted model keeps its name and the SHA-256 of its weights, not the weights.
    patch_um
        Side of a patch in microns; None: one and a half spot diameters (`hist2st` and `histogene`: 112/136, which is
        112 full-resolution pixels on HER2ST), or what the encoder was trained on. An encoder with several fields of
        view also sees wider ones; this is the narrowest.
    nuclei
        For models on tiles (`"ghist"`), where the nuclei are. A label image on the pixels of the image or on a whole
        fraction of these (an array, a TIFF, a Zarr folder, labels of SpatialData), with the label of each row in
        `.obs["nucleus"]`. Or polygons in full-resolution pixels (GeoJSON as QuPath exports it, Parquet of GeoPandas, a
        GeoDataFrame, shapes of SpatialData) or Xenium's `nucleus_boundaries.parquet`, named as `.obs["nucleus"]` or,
        without that column, as the rows. Several sections: a dictionary of these. None: each is drawn, as the ellipse
        of `major_axis_um`, `minor_axis_um` and `orientation_deg` in `.obs` (:func:`hist2scrna.pp.segment_nuclei`
        writes these), else as a disc of `nucleus_area` (in square microns), else of 8 um; where two overlap, the
        nearer center wins. Or AnnData of nuclei, or the path of its `.h5ad`, as :func:`hist2scrna.pp.segment_nuclei`
        and :func:`hist2scrna.io.read_nuclei` return it: the rows of `adata` are then spots, and what is predicted for
        the nuclei in a spot is summed and compared with its counts. Cell types, `labels_key`, are those of the nuclei.
    reference
        For `"ghist"`, average single-cell profiles that expression is a mixture of, log-normalized: AnnData (one
        profile a row, as :func:`hist2scrna.pp.reference_profiles` makes them) or a DataFrame (profiles x genes). Only
        genes that it has are fitted; with `genes`, it must have all of them.
    neighbors
        Which spots or cells are neighbors: `"knn"`, the nearest 6, `"delaunay"`, those with a common edge of the
        triangulation, or a :class:`hist2scrna.Neighbors` (or a dictionary of its fields) with their number and largest
        distance. None: `.obsp["spatial_connectivities"]` if it is there, else 6 on a hexagonal lattice, 4 on a square
        one, and the nearest 6 of scattered cells. Prediction builds them in the same way.
    likelihood
        `"zinb"` (default), `"nb"`, `"poisson"`, or `"mse"` on log-normalized expression. The published models and
        `ridge` predict log-normalized expression, and have no such option.
    losses
        Further loss terms, for networks: `{"smoothness": weight, "pearson": weight, "distillation": weight}`, or your
        own by a name of your choice, as `function(prediction, batch) -> scalar` or `(function, weight)`. They replace
        the model's own of the same name (`hist2st`: `"counts"` and `"distillation"`).
    init_from
        A trained network, or its folder, of the same architecture to start from; genes are matched by name. Or a file
        (`.safetensors`, or `.pt`, `.pth`, `.ckpt`, read with `weights_only=True`) with the state dict of the published
        implementation, as the model's `load_reference_state_dict` takes it: for `stnet`, a DenseNet-121.
    training
        How to train: a :class:`hist2scrna.Training`, or a dictionary of its fields, such as `{"max_epochs": 20}`:
        epochs, batch size, learning rate, augmentation, validation, device. What is not given is the model's own
        default: the published schedule, where there is one.
    seed
        Of the weights, the blocks, the split and the augmentation. The global random state is left as it was.
    progress
        Show a bar.
    **model_options
        Options of the model (see its class in :mod:`hist2scrna.models`), for example `depth=4`, `n_programs=5`.

    Returns
    -------
    The trained model; `.history` holds the losses of every epoch.

    Raises
    ------
    KeyError
        If a key, gene, layer, library, image or scale factor is missing.
    ValueError
        If a value is wrong: counts that are not whole or are negative, coordinates that are NaN, swapped, off the image
        or at a scale at which spots overlap, too few spots, an unknown model, preset or option, or one that this model
        does not have.
    FloatingPointError
        If the loss becomes NaN or infinite.

    Warns
    -----
    UserWarning
        If the model explains nothing of the spots that were left out to choose penalties, or of those that validate.

    Examples
    --------
    >>> model = h2s.tl.fit(train, encoder="morphology", labels_key="cell_type", progress=False)
    >>> model.name, len(model.genes)
    ('kernel', 12)
    >>> model.save("my model")
    PosixPath('my model')
    """
    request = FitRequest(
        source=Source(library_key, spatial_key, img_key, image, features_key, mpp, nuclei),
        model=model,
        preset=preset,
        genes=genes,
        layer=layer,
        labels_key=labels_key,
        group_key=group_key,
        expression=expression,
        encoder=encoder,
        patch_um=patch_um,
        reference=reference,
        neighbors=neighbors,
        likelihood=likelihood,
        losses=losses,
        init_from=init_from,
        training=training,
        seed=seed,
        progress=progress,
        options=model_options,
    )
    return fit_model(adata, request)
