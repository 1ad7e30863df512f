"""Every name that is read from or written to AnnData, in one place.

Readers and writers elsewhere in the package import the names from here, so that a slot is spelled once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

# -- read -------------------------------------------------------------------------------------------------------------
SPATIAL = "spatial"
IMAGES = "images"
SCALEFACTORS = "scalefactors"
METADATA = "metadata"
SPOT_DIAMETER = "spot_diameter_fullres"
SPOT_DIAMETER_UM = "spot_diameter_um"
MPP = "mpp"
MICRONS_PER_PIXEL = "microns_per_pixel"
CHEMISTRY = "chemistry_description"
SOURCE_IMAGE_PATH = "source_image_path"
PATCH_FOLDER = "patch_folder"
PATCH_SIDE_UM = "patch_side_um"
PATCH_FILE = "patch_file"
CONNECTIVITIES = "spatial_connectivities"
ARRAY_COORDINATES = ("array_col", "array_row")
IN_TISSUE = "in_tissue"
LIBRARY = "library_id"
CELL_TYPE = "cell_type"
# Label of each row in a label image of nuclei; area of the nucleus in square microns, as Xenium has it.
NUCLEUS = "nucleus"
NUCLEUS_AREA = "nucleus_area"
# Affine matrix from Xenium's microns to full-resolution pixels, in the metadata of a section.
PIXELS_FROM_UM = "pixels_from_um"

# -- written by datasets.simulate -------------------------------------------------------------------------------------
TRUE_MU = "true_mu"
TRUE_DISPERSION = "true_dispersion"
TRUE_DROPOUT = "true_dropout"
TRUE_MEAN = "true_mean"

# -- written by io ---------------------------------------------------------------------------------------------------
FOLDER_METADATA = "folder_metadata"

# -- written by pp ---------------------------------------------------------------------------------------------------
MORPHOLOGY = "X_morphology"
TISSUE_FRACTION = "tissue_fraction"
# `.uns` of slides that pool_patches made, and their number of patches in `.obs`.
POOLED = "pooled"
N_PATCHES = "n_patches"
# Number of cells of a reference profile, in `.obs`.
N_CELLS = "n_cells"
# Number of single cells that a pseudo-spot is the sum of, in `.obs`.
PSEUDO_SPOT_CELLS = "pseudo_spot_cells"
# What `.uns` says of features, and a model that is trained on them keeps: some licenses bind such models too.
ENCODER_FIELDS = ("encoder", "license", "hub_id", "weights", "weights_sha256")

# -- written by predict -----------------------------------------------------------------------------------------------
KEY_ADDED = "hist2scrna"
LAYERS = ("mean", "dropout", "mu", "dispersion", "log_normalized", "uncertainty")
# Whether the tissue of a spot is within what the training tissue spans, or beyond.
TISSUE = ("like training", "unlike training")
DEFAULT_LAYERS = ("mean", "dropout", "log_normalized")


def image_scale(img_key: str) -> str:
    """Scale factor of the image `img_key`: image pixels per full-resolution pixel, in `scalefactors`."""
    return f"tissue_{img_key}_scalef"


@dataclass(frozen=True)
class OutputKeys:
    """Names under which :func:`hist2scrna.tl.predict` and `tl.attention` write, for one `key_added`."""

    key: str = KEY_ADDED

    def layer(self, name: str) -> str:
        """Layer of one of :data:`LAYERS`."""
        return f"{self.key}_{name}"

    @property
    def cell_type(self) -> str:
        """Column of `.obs` with the most probable class."""
        return f"{self.key}_cell_type"

    @property
    def cell_type_confidence(self) -> str:
        """Column of `.obs` with the probability of that class."""
        return f"{self.key}_cell_type_confidence"

    @property
    def cell_type_probability(self) -> str:
        """Data frame in `.obsm`, spots x classes."""
        return f"{self.key}_cell_type_probability"

    @property
    def library_size(self) -> str:
        """Column of `.obs` with the library size at which the means stand."""
        return f"{self.key}_library_size"

    @property
    def tissue_distance(self) -> str:
        """Column of `.obs` with the distance to the training tissue."""
        return f"{self.key}_tissue_distance"

    @property
    def unlike_training(self) -> str:
        """Column of `.obs`, one of :data:`TISSUE` for each spot."""
        return f"{self.key}_unlike_training"

    @property
    def unlike_training_colors(self) -> str:
        """Entry of `.uns` with a color for each of these, where Scanpy and Squidpy look for it."""
        return f"{self.unlike_training}_colors"

    @property
    def composition(self) -> str:
        """Data frame in `.obsm`, nuclei x classes: estimated shares in the tile that shows the nucleus."""
        return f"{self.key}_composition"

    @property
    def nucleus_px(self) -> str:
        """Column of `.obs` with the pixels of the nucleus that were seen."""
        return f"{self.key}_nucleus_px"

    @property
    def tile(self) -> str:
        """Column of `.obs` with the number of the tile that the nucleus is predicted by, -1 for none."""
        return f"{self.key}_tile"

    @property
    def refined_cell_type(self) -> str:
        """Column of `.obs` with the type that the composition of the tile may have changed."""
        return f"{self.key}_refined_cell_type"

    @property
    def refined_mean(self) -> str:
        """Layer with the expected counts after that, by the heads of the types that nuclei were changed to."""
        return f"{self.key}_refined_mean"

    @property
    def n_nuclei(self) -> str:
        """Column of `.obs` with the number of nuclei in the spot."""
        return f"{self.key}_n_nuclei"

    @property
    def embedding(self) -> str:
        """Array in `.obsm`, the embedding before the heads."""
        return f"X_{self.key}"

    @property
    def modeled(self) -> str:
        """Column of `.var`, true for genes that the model predicts."""
        return f"{self.key}_modeled"

    @property
    def dispersion(self) -> str:
        """Column of `.var` with the inverse dispersion, of models that have one a gene."""
        return f"{self.key}_dispersion"

    @property
    def parameters(self) -> str:
        """Entry of `.uns`: model name, version, parameters, geometry, library size used."""
        return self.key

    @property
    def attention(self) -> str:
        """Matrix in `.obsp`, and entry of `.uns` with what it takes to read and draw it."""
        return f"{self.key}_attention"

    @property
    def attention_patch(self) -> str:
        """Array in `.obsm`, spots x tokens of their patch."""
        return f"{self.key}_attention_patch"

    def saliency(self, gene: str) -> str:
        """Array in `.obsm`, spots x tokens of their patch or features."""
        return f"{self.key}_saliency_{gene}"


def prediction_keys(uns: Mapping[str, Any], layers: Collection[str]) -> list[str]:
    """Return each `key_added` under which there are predictions: what `.uns` says of them, and one of their layers."""
    return [
        key
        for key, entry in uns.items()
        if isinstance(entry, Mapping) and "model" in entry and any(OutputKeys(key).layer(n) in layers for n in LAYERS)
    ]
