"""What a job is given of a data set: the slots that are read, and a digest that tells whether they changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from hist2scrna import keys
from hist2scrna.images.base import ArrayImage
from hist2scrna.spots.counts import read_counts
from hist2scrna.spots.sections import read_groups, read_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_SIDE = 1024
# Columns of `.obs` that say where a spot is, or which file shows it.
PLACES = (*keys.ARRAY_COORDINATES, keys.PATCH_FILE)


@dataclass(frozen=True)
class Reads:
    """Which slots of a data set the models of a benchmark read.

    Attributes
    ----------
    library_key
        Column of `.obs` with the section of each spot.
    labels_key
        Column of `.obs` with cell types, or None.
    layer
        Layer with raw counts; None: `.X`.
    obsm
        Slots of `.obsm`: coordinates, features.
    group_key
        Column of `.obs` with the group of each section, or None.
    """

    library_key: str
    labels_key: str | None
    layer: str | None
    obsm: tuple[str, ...]
    group_key: str | None = None

    @property
    def obs(self) -> list[str]:
        """Columns of `.obs` that must be there."""
        return [key for key in (self.library_key, self.group_key, self.labels_key) if key]


def check_slots(adata: ad.AnnData, reads: Reads) -> None:
    """Raise `KeyError` if a slot that is read is missing."""
    for key in reads.obs:
        if key not in adata.obs:
            raise KeyError(f"Key {key!r} not found in adata.obs. Available keys: {list(adata.obs.columns)}.")
    for key in reads.obsm:
        if key not in adata.obsm:
            raise KeyError(f"Key {key!r} not found in adata.obsm. Available keys: {list(adata.obsm)}.")
    if reads.layer is not None and reads.layer not in adata.layers:
        raise KeyError(f"Layer {reads.layer!r} not found in adata.layers. Available layers: {list(adata.layers)}.")


def restrict(adata: ad.AnnData, rows: NDArray[np.bool_], genes: Sequence[str], reads: Reads) -> ad.AnnData:
    """Return a new AnnData of some spots and genes with nothing but the slots that are read, counts in `.X`.

    Pictures are those of the sections at hand, and are not copied.
    """
    view = adata[rows]
    columns = dict.fromkeys([*reads.obs, *PLACES])
    obs = view.obs[[c for c in columns if c in view.obs]].copy()
    for key in filter(None, (reads.library_key, reads.group_key)):
        obs[key] = pd.Categorical(obs[key].astype(str))
    if reads.labels_key:
        obs[reads.labels_key] = obs[reads.labels_key].astype("category").cat.remove_unused_categories()
    kept = ad.AnnData(
        X=sparse.csr_matrix(read_counts(view, list(genes), reads.layer)),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(list(genes))),
        obsm={key: _in_memory(view.obsm[key]) for key in reads.obsm},
    )
    for name in (keys.TRUE_MEAN, keys.TRUE_MU, keys.TRUE_DISPERSION, keys.TRUE_DROPOUT):
        if name in view.layers:
            kept.layers[name] = _in_memory(view[:, list(genes)].layers[name])
    if keys.CONNECTIVITIES in view.obsp:
        kept.obsp[keys.CONNECTIVITIES] = view.obsp[keys.CONNECTIVITIES].copy()
    libraries = adata.uns.get(keys.SPATIAL, {})
    present = set(obs[reads.library_key].cat.categories)
    kept.uns[keys.SPATIAL] = {name: _entry(entry) for name, entry in libraries.items() if name in present}
    if not kept.uns[keys.SPATIAL]:
        del kept.uns[keys.SPATIAL]
    return kept


def without_expression(section: ad.AnnData, reads: Reads) -> ad.AnnData:
    """Return what a slide has before it is sequenced: pictures, coordinates, features, names of the sections."""
    columns = [c for c in (reads.library_key, *PLACES) if c in section.obs]
    return ad.AnnData(
        obs=section.obs[columns].copy(), obsm=dict(section.obsm), obsp=dict(section.obsp), uns=dict(section.uns)
    )


def digests(adata: ad.AnnData, genes: Sequence[str], reads: Reads) -> dict[str, str]:
    """Return a short SHA-256 of each part of the data: spots, sections, counts, `.obsm`, labels and pictures.

    Pictures in memory are told by at most 1,024 x 1,024 of their pixels, evenly spaced, files by name and size.
    """
    sections, section = read_sections(adata, reads.library_key)
    counts = read_counts(adata, list(genes), reads.layer)
    counts.sort_indices()
    found = {
        "spots": _digest(adata.obs_names),
        "sections": _digest([*sections, section]),
        "counts": _digest([*sorted(genes), *_by_name(counts, genes)]),
    }
    if reads.group_key:
        groups, group = read_groups(adata, reads.library_key, reads.group_key)
        found["groups"] = _digest([*groups, group])
    for key in reads.obsm:
        values = adata.obsm[key]
        found[f"obsm[{key!r}]"] = _digest([values.to_numpy() if isinstance(values, pd.DataFrame) else values])
    if reads.labels_key:
        found["labels"] = _digest(adata.obs[reads.labels_key].astype(str))
    pictures: list[Any] = []
    for name in sections:
        entry = _entry(adata.uns.get(keys.SPATIAL, {}).get(name, {}), whole=False)
        pictures += [name, *entry[keys.IMAGES], *entry[keys.IMAGES].values(), *_told(entry)]
    return found | {"pictures": _digest(pictures)}


def _by_name(counts: sparse.csr_array, genes: Sequence[str]) -> list[Any]:
    ordered = counts[:, np.argsort(np.array(genes), kind="stable")].tocsr()
    ordered.sort_indices()
    return [ordered.indptr.astype(np.int64), ordered.indices.astype(np.int64), ordered.data.astype(np.float32)]


def _told(entry: Mapping[str, Any]) -> list[str]:
    """Return what else an entry says of its picture; a file goes by name and size, so that it may be moved."""
    told = {**entry[keys.SCALEFACTORS], **entry[keys.METADATA]}
    if keys.SOURCE_IMAGE_PATH in told:
        path = Path(str(told[keys.SOURCE_IMAGE_PATH]))
        told[keys.SOURCE_IMAGE_PATH] = f"{path.name}, {path.stat().st_size if path.is_file() else None} bytes"
    return sorted(f"{key}={value}" for key, value in told.items())


def _entry(entry: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """Return the parts of a library's entry that are read, as AnnData can write them."""
    images = entry.get(keys.IMAGES) or {}
    metadata = entry.get(keys.METADATA) or {}
    simple = {k: str(v) if isinstance(v, Path) else v for k, v in metadata.items()}
    return {
        keys.IMAGES: {name: _pixels(image, name, whole) for name, image in images.items()},
        keys.SCALEFACTORS: dict(entry.get(keys.SCALEFACTORS) or {}),
        keys.METADATA: {k: v for k, v in simple.items() if isinstance(v, str | int | float | bool | np.generic)},
    }


def _pixels(image: Any, name: str, whole: bool) -> NDArray[Any]:
    array = ArrayImage(image, 1.0, f"images[{name!r}]").array
    step = [1 if whole else max(1, -(-side // LONGEST_SIDE)) for side in array.shape[:2]]
    return np.asarray(array[:: step[0], :: step[1]])


def _in_memory(values: Any) -> Any:
    return values.to_memory() if hasattr(values, "to_memory") else values


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        elif sparse.issparse(part):
            digest.update(_digest([part.tocsr().toarray()]).encode())
        else:
            digest.update(f"{part}\n".encode())
    return digest.hexdigest()[:16]
