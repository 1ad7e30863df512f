"""From predictions back to AnnData: every slot is computed first, then all are written together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.files import Scratch, require_room
from hist2scrna.messages import percent, warn_user
from hist2scrna.spots.library import libraries
from hist2scrna.trained.destination import destination
from hist2scrna.trained.layer_form import LayerForm
from hist2scrna.trained.owned import clear
from hist2scrna.trained.sparse_layer import SparseLayer
from hist2scrna.trained.store import ZarrRows, backed
from hist2scrna.trained.written import writable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.models.contract import Prediction

ROWS_PER_CHUNK = 256
# Of the spots; as far off as 1 % of the training spots are by definition.
MOST_UNLIKE = 0.05
# Of keys.TISSUE: light gray, and Okabe and Ito's vermilion.
TISSUE_COLORS = ("#BBBBBB", "#D55E00")


class PredictionWriter:
    """Collects blocks of predictions, and writes all slots at the end.

    Parameters
    ----------
    adata
        What was predicted for.
    rows
        `(k,)` numbers of the rows that are predicted; the others get NaN.
    genes, classes
        Genes and cell types of the model.
    key
        Prefix of the slots.
    layers
        Which of :data:`hist2scrna.keys.LAYERS` to write.
    copy
        Return a new AnnData of the model's genes.
    store
        A `.zarr` or `.h5ad` path: the layers are streamed there.
    form
        The type of their numbers, and which are sparse.
    called
        What the rows are called, for messages.
    several
        Whether they are of several sections.
    """

    def __init__(
        self,
        adata: ad.AnnData,
        *,
        rows: NDArray[np.int64],
        genes: Sequence[str],
        classes: Sequence[str],
        key: str,
        layers: Sequence[str],
        copy: bool,
        store: str | Path | None,
        form: LayerForm,
        called: str,
        several: bool,
    ) -> None:
        self.names = keys.OutputKeys(key)
        self.classes = list(classes)
        self.layers = list(dict.fromkeys(layers))
        self.called, self.several, self.form = called, several, form
        self.store = None if store is None else Path(store)
        self.out, self.fresh, self.columns = destination(adata, genes, copy=copy, new=self.store is not None)
        self.mean_is_x = self.fresh and self.out.X is None
        self.modeled = np.zeros(self.out.n_vars, dtype=bool)
        self.modeled[self.columns] = True
        as_x = self.mean_is_x and self.store is None and "mean" not in self.layers
        wanted = [*self.layers, *(["mean"] if as_x else [])]
        n = adata.n_obs
        self.rows = rows
        self.library = np.full(n, np.nan, dtype=np.float32)
        # How unlike the training tissue each row is, 1 at the limit; whoever predicts sets it before `finish`.
        self.distance = np.full(n, np.nan, dtype=np.float32)
        self.probability = np.full((n, len(self.classes)), np.nan, dtype=np.float32)
        self.composition: NDArray[np.float32] | None = None
        # Columns of `.obs` that tell of the nuclei of each row, `(k,)`.
        self.of_nuclei: Mapping[str, NDArray[np.int64]] = {}
        self.embedding: NDArray[np.float32] | None = None
        # Inverse dispersion of each gene, as long as all spots have the same.
        self.dispersion: NDArray[np.float32] | None = None
        self.dispersion_by_spot = False
        self._scratch: Scratch | None = None
        self._file: Any = None
        self.arrays: dict[str, Any] = {}
        shape = (n, self.out.n_vars)
        stored = [name for name in wanted if not form.is_sparse(name)]
        if self.store is None:
            self.arrays = {name: np.full(shape, np.nan, dtype=form.dtype) for name in stored}
        else:
            self._open_store(stored, shape)
        self.arrays |= {name: SparseLayer(shape) for name in wanted if form.is_sparse(name)}

    def _open_store(self, wanted: Sequence[str], shape: tuple[int, int]) -> None:
        assert self.store is not None
        layers = len(wanted) * shape[0] * shape[1] * np.dtype(self.form.dtype).itemsize
        require_room(self.store, layers + self.out.__sizeof__())
        self._scratch = Scratch(self.store)
        path = self._scratch.new
        chunks = (min(ROWS_PER_CHUNK, shape[0]), shape[1])
        if self.store.suffix == ".h5ad":
            import h5py

            self._file = h5py.File(path, "w")
        else:
            import zarr

            self._file = zarr.open_group(path, mode="w", zarr_format=2)
        group = self._file.create_group("layers")
        empty = {"fillvalue" if self.store.suffix == ".h5ad" else "fill_value": np.nan}
        for name in wanted:
            dataset = group.create_dataset if self.store.suffix == ".h5ad" else group.create_array
            array = dataset(self.names.layer(name), shape=shape, dtype=self.form.dtype, chunks=chunks, **empty)
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            self.arrays[name] = array if self.store.suffix == ".h5ad" else ZarrRows(array)

    def add(self, core: NDArray[np.int64], prediction: Prediction) -> None:
        """Take one block; the means of a prediction that has no such layer are refused."""
        order = np.argsort(core)
        core = self.rows[core]
        rows = core[order]
        for name, array in self.arrays.items():
            value = _layer(prediction, name)
            if value is None:
                raise ValueError(
                    f"This model's likelihood has no {name!r}. Choose `layers` from what it has: "
                    f"{[k for k in keys.LAYERS if _layer(prediction, k) is not None]}."
                )
            block = np.full((len(rows), self.out.n_vars), np.nan, dtype=self.form.dtype)
            mean = prediction.mean if self.form.is_sparse(name) else value
            values, means = (tensor.float().cpu().numpy()[order] for tensor in (value, mean))
            block[:, self.columns] = self.form.of(name, values, means)
            array[rows] = block
        vectors = prediction.embedding.float().cpu().numpy()
        if self.embedding is None:
            self.embedding = np.full((len(self.library), vectors.shape[1]), np.nan, dtype=np.float32)
        self.embedding[core] = vectors
        if prediction.composition is not None:
            if self.composition is None:
                self.composition = np.full_like(self.probability, np.nan)
            self.composition[core] = prediction.composition.float().cpu().numpy()
        if prediction.label_logits is not None:
            self.probability[core] = prediction.label_logits.float().softmax(dim=1).cpu().numpy()
        if prediction.log_library is not None:
            self.library[core] = prediction.log_library.float().exp().cpu().numpy()
        if prediction.log_dispersion is not None and prediction.log_dispersion.ndim > 1:
            self.dispersion_by_spot = True
        elif prediction.log_dispersion is not None:
            dispersion = prediction.log_dispersion.float().exp().cpu().numpy()
            self.dispersion = dispersion if self.dispersion is None else self.dispersion
            self.dispersion_by_spot |= not np.array_equal(dispersion, self.dispersion)

    def finish(self, library_size: NDArray[np.float32] | None, parameters: Mapping[str, Any]) -> ad.AnnData:
        """Write all slots and return the AnnData.

        Parameters
        ----------
        library_size
            `(k,)` library sizes that were imposed; None: those that the model gave.
        parameters
            What goes to `.uns`.

        Warns
        -----
        UserWarning
            If more than 5 % of the spots are unlike the training tissue.
        """
        names, out = self.names, self.out
        obs: dict[str, Any] = {}
        obsm: dict[str, Any] = {names.embedding: self.embedding}
        here = np.zeros(len(self.library), dtype=bool)
        here[self.rows] = True
        if library_size is not None:
            self.library[self.rows] = library_size
        # Cells without a nucleus have no library size.
        if np.isfinite(self.library[here]).any():
            obs[names.library_size] = self.library
        compared = np.isfinite(self.distance)
        unlike = self.distance[compared] > 1
        if compared.any():
            obs[names.tissue_distance] = self.distance
            obs[names.unlike_training] = _categories(np.where(compared, self.distance > 1, -1), keys.TISSUE)
        if self.classes:
            # Spots without a place, and cells without a nucleus, have no class.
            known = here & np.isfinite(self.probability).all(axis=1)
            best = np.where(known, self.probability.argmax(axis=1), -1)
            obs[names.cell_type] = _categories(best, self.classes)
            obs[names.cell_type_confidence] = self.probability.max(axis=1)
            obsm[names.cell_type_probability] = pd.DataFrame(
                self.probability, index=out.obs_names, columns=pd.Index(self.classes)
            )
        if self.composition is not None:
            obsm[names.composition] = pd.DataFrame(
                self.composition, index=out.obs_names, columns=pd.Index(self.classes)
            )
        for name, number in self.of_nuclei.items():
            # No tile predicts what was left out.
            obs[name] = np.full(len(self.library), -1 if name == names.tile else 0, dtype=np.int64)
            obs[name][self.rows] = number
        clear(out, names)
        if self.store is None:
            arrays = {name: a.to_memory() if isinstance(a, SparseLayer) else a for name, a in self.arrays.items()}
            for name in self.layers:
                out.layers[names.layer(name)] = arrays[name]
            if self.mean_is_x:
                out.X = arrays["mean"]
        for key, column in obs.items():
            out.obs[key] = column
        if names.unlike_training in obs:
            there = obs[names.unlike_training].categories
            out.uns[names.unlike_training_colors] = [TISSUE_COLORS[keys.TISSUE.index(name)] for name in there]
        for key, matrix in obsm.items():
            out.obsm[key] = matrix
        out.var[names.modeled] = self.modeled
        if self.dispersion is not None and not self.dispersion_by_spot:
            column = np.full(out.n_vars, np.nan, dtype=np.float32)
            column[self.columns] = self.dispersion
            out.var[names.dispersion] = column
        out.uns[names.parameters] = writable(parameters)
        written = out if self.store is None else self._close_store()
        # By section Squidpy looks for the scale of a picture, of which those in files have none.
        in_memory = all(entry.get("images") for entry in libraries(out).values())
        _warn_of_unlike(unlike, names, self.called, self.several and in_memory)
        return written

    def _close_store(self) -> ad.AnnData:
        assert self.store is not None and self._scratch is not None
        for key in ("obs", "var", "obsm", "obsp", "varm", "varp", "uns"):
            ad.io.write_elem(
                self._file, key, getattr(self.out, key) if key in ("obs", "var") else dict(getattr(self.out, key))
            )
        create = "create_dataset" if self.store.suffix == ".h5ad" else "create_array"
        for name, array in self.arrays.items():
            if isinstance(array, SparseLayer):
                array.write(self._file["layers"].create_group(self.names.layer(name)), create)
        for key, layer in self.out.layers.items():
            if f"layers/{key}" not in self._file:
                ad.io.write_elem(self._file, f"layers/{key}", layer)
        if not self.mean_is_x and self.out.X is not None:
            ad.io.write_elem(self._file, "X", self.out.X)
        self._file["layers"].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        self._file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        if self.store.suffix == ".h5ad":
            self._file.close()
        self._scratch.take_place()
        self.discard()
        return backed(self.store, self.out)

    def discard(self) -> None:
        """Remove what was streamed so far; the store itself appears only when it is complete."""
        if self._scratch is not None:
            if self.store is not None and self.store.suffix == ".h5ad" and self._file:
                self._file.close()
            self._scratch.discard()
            self._scratch = None


def _warn_of_unlike(unlike: NDArray[np.bool_], names: keys.OutputKeys, called: str, by_section: bool) -> None:
    """Warn where more than 5 % of what was compared is unlike the training."""
    if len(unlike) and unlike.mean() > MOST_UNLIKE:
        far = f"{int(unlike.sum())} of {len(unlike)} {called} ({percent(unlike.mean())})"
        # Without it Squidpy draws all sections in one frame.
        each = "library_key=..., " if by_section else ""
        warn_user(
            f"{far} are unlike the training tissue (adata.obs[{names.unlike_training!r}]): predictions there are "
            f"extrapolation. See where: squidpy.pl.spatial_scatter(adata, color={names.tissue_distance!r}, "
            f"{each}shape=None); if all over the section, its stain, focus, scanner or scale may be another one."
        )


def _categories(codes: NDArray[np.integer], names: Sequence[str]) -> pd.Categorical:
    """Return a column of the categories that occur: Scanpy and Squidpy fail on those without a spot."""
    return pd.Categorical.from_codes(codes, categories=pd.Index(names)).remove_unused_categories()


def _layer(prediction: Prediction, name: str) -> Tensor | None:
    """Return what one of :data:`hist2scrna.keys.LAYERS` holds: the attribute of that name."""
    layer: Tensor | None = getattr(prediction, name)
    return layer
