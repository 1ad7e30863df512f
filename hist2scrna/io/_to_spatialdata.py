"""From AnnData with images to SpatialData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

from hist2scrna import keys
from hist2scrna.messages import sections_counted
from hist2scrna.spots.coordinates import read_coordinates
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.spots.window import spot_diameter

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from hist2scrna.images.base import SectionImage

TABLE, REGION, INSTANCE = "table", "region", "instance_id"
GLOBAL = "global"
TILE_PX = 2048


@sections_counted
def to_spatialdata(
    adata: ad.AnnData,
    *,
    library_key: str | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | None = None,
    image: Any = None,
) -> SpatialData:
    """Turn AnnData with images into SpatialData; `adata` is not changed.

    Parameters
    ----------
    adata
        Annotated data, for instance with predictions.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: `"library_id"` if it is
        there and names libraries of `.uns["spatial"]`, else one section.
    spatial_key
        Slot of `.obsm` with the coordinates.
    img_key, image
        Which image, as in :func:`hist2scrna.tl.fit`; files are read lazily, by tiles.

    Returns
    -------
    SpatialData, with for each section

    - `images["{section}_image"]`: its image (c, y, x), scaled to full-resolution pixels; none where patches are
      files.
    - `shapes["{section}"]`: circles at the spots, in full-resolution pixels.

    and `tables["table"]`: a copy of `adata` that annotates the circles, its images left out. The coordinate system,
    whose unit is the full-resolution pixel, is `"global"` for one section; of several, each has its own, by its name.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        If a slot or file is missing or wrong.

    Examples
    --------
    >>> sdata = h2s.io.to_spatialdata(test)
    >>> sorted(sdata.tables)
    ['table']
    """
    import spatialdata as sd
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    opened = open_sections(adata, Source(library_key, spatial_key, img_key, image))
    xy = read_coordinates(adata, spatial_key)
    if not adata.obs_names.is_unique:
        raise ValueError(
            "adata.obs_names are not unique, so spots cannot be matched by name. Call adata.obs_names_make_unique()."
        )
    images, shapes, entries = {}, {}, {}
    for part in opened.members:
        name, rows, entry = part.name, part.rows, part.entry
        system = GLOBAL if len(opened.members) == 1 else name
        radius = spot_diameter(entry, xy[rows]) / 2
        shapes[name] = ShapesModel.parse(
            xy[rows], geometry=0, radius=radius, index=adata.obs_names[rows], transformations={system: Identity()}
        )
        in_folder = keys.PATCH_FOLDER in (entry.get(keys.METADATA) or {})
        if image is not None or img_key is not None or not in_folder:
            pixel = 1 / part.image.scale
            images[f"{name}_image"] = Image2DModel.parse(
                _lazy(part.image).transpose(2, 0, 1),
                dims=("c", "y", "x"),
                c_coords=["r", "g", "b"],
                transformations={system: Scale([pixel, pixel], axes=("x", "y"))},
            )
        entries[name] = {key: dict(entry.get(key) or {}) for key in (keys.SCALEFACTORS, keys.METADATA)}
    table = _without_images(adata, entries)
    table.obs[REGION] = np.array(opened.names, dtype=object)[opened.codes]
    table.obs[REGION] = table.obs[REGION].astype("category")
    table.obs[INSTANCE] = adata.obs_names.to_numpy()
    parsed = TableModel.parse(table, region=list(opened.names), region_key=REGION, instance_key=INSTANCE)
    return sd.SpatialData(images=images, shapes=shapes, tables={TABLE: parsed})


def _without_images(adata: ad.AnnData, entries: dict[str, Any]) -> ad.AnnData:
    return ad.AnnData(
        X=adata.X,
        obs=adata.obs,
        var=adata.var,
        layers=dict(adata.layers),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        uns={**{k: v for k, v in adata.uns.items() if k != keys.SPATIAL}, keys.SPATIAL: entries},
    ).copy()


def _lazy(image: SectionImage) -> Any:
    """Return the finest level as a Dask array (height, width, 3), read by tiles."""
    import dask.array as da

    width, height = image.size()
    tiles = da.core.normalize_chunks((TILE_PX, TILE_PX, 3), shape=(height, width, 3), dtype=np.uint8)

    def read(block_info: Any = None) -> NDArray[np.uint8]:
        (top, bottom), (left, right), _ = block_info[None]["array-location"]
        return image.read(0, left, top, right - left, bottom - top)

    return da.map_blocks(read, chunks=tiles, dtype=np.uint8, meta=np.empty((0, 0, 0), dtype=np.uint8))
