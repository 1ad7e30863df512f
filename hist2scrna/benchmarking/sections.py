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
from hist2scrna.messages import require_key
from hist2scrna.spots.counts import read_counts
from hist2scrna.spots.sections import read_groups, read_sections
from hist2scrna.spots.slides import pooled

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images in memory are told apart by at most so many pixels a side.
LONGEST_SIDE = 1024
LABELS = "labels"
# Columns of `.obs` that say where a spot is, which file shows it, or of how many patches a slide is the mean.
PLACES = (*keys.ARRAY_COORDINATES, keys.PATCH_FILE, keys.N_PATCHES)


@dataclass(frozen=True)
class SlotSelection:
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

    def includes(self, part: str) -> bool:
        """Tell whether a part of the data, as :func:`digests` names it, is read."""
        if part == LABELS:
            return self.labels_key is not None
        return not part.startswith("obsm") or part in {_obsm_part(key) for key in self.obsm}


def check_slots(adata: ad.AnnData, slots: SlotSelection) -> None:
    """Raise `KeyError` if a slot that is read is missing."""
    for key in slots.obs:
        require_key(adata.obs, key, "adata.obs")
    for key in slots.obsm:
        require_key(adata.obsm, key, "adata.obsm")
    if slots.layer is not None:
        require_key(adata.layers, slots.layer, "adata.layers")


def restrict(adata: ad.AnnData, rows: NDArray[np.bool_], genes: Sequence[str], slots: SlotSelection) -> ad.AnnData:
    """Return a new AnnData of some spots and genes with nothing but the slots that are read, counts in `.X`.

    Images are those of the sections at hand, and are not copied.
    """
    view = adata[rows]
    columns = dict.fromkeys([*slots.obs, *PLACES])
    obs = view.obs[[c for c in columns if c in view.obs]].copy()
    for key in filter(None, (slots.library_key, slots.group_key)):
        obs[key] = pd.Categorical(obs[key].astype(str))
    if slots.labels_key:
        obs[slots.labels_key] = obs[slots.labels_key].astype("category").cat.remove_unused_categories()
    kept = ad.AnnData(
        X=sparse.csr_matrix(read_counts(view, list(genes), slots.layer, whole=not pooled(adata))),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(list(genes))),
        obsm={key: _in_memory(view.obsm[key]) for key in slots.obsm},
    )
    for name in (keys.TRUE_MEAN, keys.TRUE_MU, keys.TRUE_DISPERSION, keys.TRUE_DROPOUT):
        if name in view.layers:
            kept.layers[name] = _in_memory(view[:, list(genes)].layers[name])
    if keys.CONNECTIVITIES in view.obsp:
        kept.obsp[keys.CONNECTIVITIES] = view.obsp[keys.CONNECTIVITIES].copy()
    libraries = adata.uns.get(keys.SPATIAL, {})
    present = set(obs[slots.library_key].cat.categories)
    kept.uns[keys.SPATIAL] = {name: _entry(entry) for name, entry in libraries.items() if name in present}
    if not kept.uns[keys.SPATIAL]:
        del kept.uns[keys.SPATIAL]
    if pooled(adata):
        kept.uns[keys.POOLED] = dict(pooled(adata))
    return kept


def without_expression(section: ad.AnnData, slots: SlotSelection) -> ad.AnnData:
    """Return what a section has before it is sequenced: images, coordinates, features, names of sections and donors."""
    columns = [c for c in dict.fromkeys((slots.library_key, slots.group_key, *PLACES)) if c in section.obs]
    return ad.AnnData(
        obs=section.obs[columns].copy(), obsm=dict(section.obsm), obsp=dict(section.obsp), uns=dict(section.uns)
    )


def digests(adata: ad.AnnData, genes: Sequence[str], slots: SlotSelection) -> dict[str, str]:
    """Return a short SHA-256 of each part of the data: spots, sections, counts, `.obsm`, labels and images.

    Images in memory are told apart by at most 1,024 x 1,024 of their pixels, evenly spaced, files by name and size.
    """
    sections, section = read_sections(adata, slots.library_key)
    counts = read_counts(adata, list(genes), slots.layer, whole=not pooled(adata))
    parts = {
        "spots": _digest(adata.obs_names),
        "sections": _digest([*sections, section]),
        "counts": _digest([*sorted(genes), *_by_name(counts, genes)]),
    }
    if slots.group_key:
        groups, group = read_groups(adata, slots.library_key, slots.group_key)
        parts["groups"] = _digest([*groups, group])
    for key in slots.obsm:
        values = adata.obsm[key]
        parts[_obsm_part(key)] = _digest([values.to_numpy() if isinstance(values, pd.DataFrame) else values])
    if slots.labels_key:
        parts[LABELS] = _digest(adata.obs[slots.labels_key].astype(str))
    images: list[Any] = []
    for name in sections:
        entry = _entry(adata.uns.get(keys.SPATIAL, {}).get(name, {}), whole=False)
        images += [name, *entry[keys.IMAGES], *entry[keys.IMAGES].values(), *_scale_and_origin(entry)]
    return parts | {"images": _digest(images)}


def _obsm_part(key: str) -> str:
    return f"obsm[{key!r}]"


def _by_name(counts: sparse.csr_array, genes: Sequence[str]) -> list[Any]:
    ordered = counts[:, np.argsort(np.array(genes), kind="stable")].tocsr()
    ordered.sort_indices()
    return [ordered.indptr.astype(np.int64), ordered.indices.astype(np.int64), ordered.data.astype(np.float32)]


def _scale_and_origin(entry: Mapping[str, Any]) -> list[str]:
    """Return what else an entry says of its images; a file is known by name and size, so that it may be moved."""
    values = {**entry[keys.SCALEFACTORS], **entry[keys.METADATA]}
    if keys.SOURCE_IMAGE_PATH in values:
        path = Path(str(values[keys.SOURCE_IMAGE_PATH]))
        values[keys.SOURCE_IMAGE_PATH] = f"{path.name}, {path.stat().st_size if path.is_file() else None} bytes"
    return sorted(f"{key}={value}" for key, value in values.items())


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
