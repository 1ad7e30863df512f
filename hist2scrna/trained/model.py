"""A trained model: what it is, where it is kept, and how it predicts."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

import hist2scrna
from hist2scrna import keys
from hist2scrna.fitting.inference import pick_device, predict_blocks
from hist2scrna.images.patches import PatchGeometry
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.models.registry import create_model
from hist2scrna.provenance import fingerprint
from hist2scrna.spots.graph import Neighbors
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.trained.writer import PredictionWriter, checked_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.models.contract import SpotModel
    from hist2scrna.spots.read import Spots

FORMAT_VERSION = 1
WEIGHTS, REFERENCE, CARD, HISTORY = "model.safetensors", "training.safetensors", "model.json", "history.csv"
PREDICTION_BATCH = 64


@dataclass
class TrainedModel:
    """A model with the genes, classes and patch geometry that it was trained on. :func:`hist2scrna.tl.fit` returns it.

    Attributes
    ----------
    module
        The network, a :class:`torch.nn.Module`, on the CPU, in eval mode.
    name, options
        Name in the registry, and all options of the network.
    genes, classes
        Genes and cell types, in the order of the network's outputs; no classes: no cell-type head.
    geometry
        Side of a patch in microns and in pixels; None for models on features.
    parameters
        What :func:`~hist2scrna.tl.fit` was called with.
    training
        Summary of the training: sections, numbers of spots, split, best epoch, seconds, package versions.
    baselines
        Null predictors fitted on the training counts.
    fingerprints
        `(n,)` int64, one a training or validation spot, from its counts: tells whether a spot was seen.
    history
        Losses, one row an epoch.
    """

    module: SpotModel
    name: str
    options: dict[str, Any]
    genes: list[str]
    classes: list[str]
    geometry: PatchGeometry | None
    parameters: dict[str, Any]
    training: dict[str, Any]
    baselines: Baselines
    fingerprints: NDArray[np.int64]
    history: pd.DataFrame

    @property
    def likelihood(self) -> str:
        """`"zinb"`, `"nb"`, `"poisson"` or `"mse"`."""
        return self.module.likelihood

    @property
    def n_parameters(self) -> int:
        """Number of weights; of a model that is solved at once, of its coefficients."""
        trained = sum(p.numel() for p in self.module.parameters())
        return trained or sum(b.numel() for b in self.module.buffers())

    def __repr__(self) -> str:
        geometry = self.geometry
        reads = (
            f"features adata.obsm[{self.parameters.get('features_key')!r}] ({self.options.get('n_features')} wide)"
            if geometry is None
            else f"patches of {geometry.um:g} um, {geometry.px} px"
        )
        if (about := self.training.get("features")) and "encoder" in about:
            reads += f", by {about['encoder']} (license: {about.get('license', 'not known')})"
        training = self.training
        classes = f"{len(self.classes)} ({', '.join(self.classes[:6])}{', ...' if len(self.classes) > 6 else ''})"
        lines = [
            f"TrainedModel {self.name!r}, {self.n_parameters:,} parameters",
            f"  reads       {reads}",
            f"  predicts    {len(self.genes)} genes ({', '.join(self.genes[:3])}, ...), {self.likelihood}",
            f"  cell types  {classes if self.classes else 'none'}",
            f"  trained on  {training['n_training']} spots of {', '.join(training['sections'])}",
            f"  validation  {training['validation']} ({training['n_validation']} spots)",
            f"  best epoch  {training['best_epoch']} of {len(self.history)}, {training['monitor']} "
            f"{self.history[training['monitor']].iloc[training['best_epoch']]:.4f}",
        ]
        return "\n".join(lines)

    # -- files --------------------------------------------------------------------------------------------------------
    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the model to a folder: safetensors, JSON and CSV, no pickle.

        Parameters
        ----------
        folder
            Where to; it appears only once it is complete.
        overwrite
            Replace a model that is there. A folder that holds anything else is never replaced.

        Returns
        -------
        The folder.

        Raises
        ------
        FileExistsError
            If something is there already.
        """
        folder = Path(folder)
        if folder.exists() and not overwrite:
            raise FileExistsError(f"'{folder}' exists already. Pass overwrite=True to replace the model there.")
        if folder.exists() and not (folder / CARD).is_file() and (folder.is_file() or any(folder.iterdir())):
            raise FileExistsError(f"'{folder}' exists and holds no {CARD}: it is no model, and is left as it is.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        scratch.chmod(0o755)
        try:
            save_file({k: v.contiguous() for k, v in self.module.state_dict().items()}, scratch / WEIGHTS)
            save_arrays({**self.baselines.to_arrays(), "fingerprints": self.fingerprints}, scratch / REFERENCE)
            self.history.to_csv(scratch / HISTORY)
            (scratch / CARD).write_text(json.dumps(self._card(), indent=2) + "\n", encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return folder

    def _card(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "options": self.options,
            "likelihood": self.likelihood,
            "genes": self.genes,
            "classes": self.classes,
            "geometry": None if self.geometry is None else asdict(self.geometry),
            "parameters": self.parameters,
            "training": self.training,
        }

    @classmethod
    def load(cls, folder: str | Path) -> TrainedModel:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder or a file in it is missing.
        ValueError
            If a file is damaged, or written by a newer version.
        """
        folder = Path(folder)
        if not (folder / CARD).is_file():
            what = "no folder" if not folder.is_dir() else f"no {CARD} in it: it is no saved model"
            raise FileNotFoundError(f"'{folder}': {what}. Give the folder that TrainedModel.save wrote.")
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            version = card["format_version"]
            if version > FORMAT_VERSION:
                raise ValueError(
                    f"'{folder}' was written in format {version}; this hist2scrna {hist2scrna.__version__} reads up to "
                    f"{FORMAT_VERSION}. Install a newer one."
                )
            weights = load_file(folder / WEIGHTS)
            arrays = load_arrays(folder / REFERENCE)
            history = pd.read_csv(folder / HISTORY, index_col="epoch")
            module = create_model(
                card["name"],
                preset=card["parameters"].get("preset"),
                n_genes=len(card["genes"]),
                n_classes=len(card["classes"]),
                **card["options"],
            )
            module.load_state_dict(weights)
            fingerprints = arrays.pop("fingerprints")
            baselines = Baselines.from_arrays(arrays)
        except (
            json.JSONDecodeError,
            KeyError,
            TypeError,
            SafetensorError,
            RuntimeError,
            pd.errors.ParserError,
        ) as error:
            raise ValueError(f"The model in '{folder}' is damaged: {error}. Save or copy it again.") from error
        geometry = None if card["geometry"] is None else PatchGeometry(**card["geometry"])
        return cls(
            module.eval(),
            card["name"],
            card["options"],
            card["genes"],
            card["classes"],
            geometry,
            card["parameters"],
            card["training"],
            baselines,
            fingerprints,
            history,
        )

    # -- prediction ---------------------------------------------------------------------------------------------------
    def predict(
        self,
        adata: AnnData,
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
        """Predict counts and cell types; see :func:`hist2scrna.tl.predict`."""
        wanted = checked_layers(self._default_layers() if layers is None else layers)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"Expected `batch_size` to be at least 1, found {batch_size}.")
        device = pick_device(accelerator)
        imposed = self._imposed_library(adata, library_size)
        spots = self.read(
            adata,
            library_key=library_key,
            spatial_key=spatial_key,
            img_key=img_key,
            image=image,
            features_key=features_key,
            mpp=mpp,
        )
        writer = PredictionWriter(
            adata, genes=self.genes, classes=self.classes, key=key_added, layers=wanted, copy=copy, store=store
        )
        try:
            for core, prediction in predict_blocks(
                self.module,
                spots,
                batch_size=batch_size or PREDICTION_BATCH,
                device=device,
                log_library=None if imposed is None else np.log(imposed),
                progress=progress,
            ):
                writer.add(core, prediction)
            return writer.finish(imposed, self._written_parameters(library_size, spots))
        finally:
            self.module.cpu()
            writer.discard()

    def _default_layers(self) -> list[str]:
        absent = {"mse": {"dropout", "log_normalized"}, "zinb": set()}.get(self.likelihood, {"dropout"})
        return [name for name in keys.DEFAULT_LAYERS if name not in absent]

    def read(
        self,
        adata: AnnData,
        *,
        library_key: str | None = None,
        spatial_key: str | None = None,
        img_key: str | Sequence[str] | None = None,
        image: Any = None,
        features_key: str | None = None,
        mpp: float | None = None,
    ) -> Spots:
        """Read the spots of `adata` in this model's geometry; slots that are not named are those of the training."""
        if library_key is None and self.parameters.get("library_key") in adata.obs:
            library_key = self.parameters["library_key"]
        if img_key is None and image is None:
            img_key = self.parameters.get("img_key")
        source = Source(
            library_key=library_key,
            spatial_key=spatial_key or self.parameters["spatial_key"],
            img_key=img_key,
            image=image,
            features_key=features_key or self.parameters.get("features_key"),
            mpp=mpp,
        )
        spots = read_spots(
            open_sections(adata, source),
            patch=None if self.geometry is None else PatchSize(self.geometry.px, self.geometry.um),
            n_features=self.options.get("n_features"),
            on_array=self.module.on_array,
            neighbors=Neighbors(*(self.parameters.get(k) for k in ("neighbors", "n_neighbors", "radius_um"))),
        )
        channels = self.options.get("channels", 3)
        if spots.patches is not None and spots.patches.channels != channels:
            raise ValueError(
                f"The model reads {channels} channels, the picture here has {spots.patches.channels}. Pass the stains "
                f"of the training, in their order: img_key={self.parameters.get('img_key')!r} or image=[...]."
            )
        self._compare_scale(spots.geometry)
        self._compare_encoder(adata, features_key or self.parameters.get("features_key"))
        return spots

    def _compare_encoder(self, adata: AnnData, features_key: str | None) -> None:
        """Warn where the features are known to come from another encoder than in training."""
        trained = self.training.get("features") or {}
        here = adata.uns.get(features_key, {}) if features_key else {}
        for field in ("encoder", "weights_sha256"):
            if field in trained and field in here and str(here[field]) != trained[field]:
                warnings.warn(
                    f"The features in adata.obsm[{features_key!r}] have {field} {here[field]!s}, those in training had "
                    f"{trained[field]}: the model then reads noise. Extract them with the same encoder.",
                    UserWarning,
                    stacklevel=4,
                )

    def _compare_scale(self, here: PatchGeometry | None) -> None:
        """Warn where microns are measured in one of training and prediction, and inferred in the other."""
        if here is None or self.geometry is None or here.scale_from == self.geometry.scale_from:
            return
        if "spot diameter" in (here.scale_from, self.geometry.scale_from):
            warnings.warn(
                f"Microns are known from the {here.scale_from} here, but were from the {self.geometry.scale_from} in "
                "training: if the two do not agree, the model sees the tissue at another scale. Pass mpp= to be sure.",
                UserWarning,
                stacklevel=4,
            )

    def _imposed_library(self, adata: AnnData, library_size: str) -> NDArray[np.float32] | None:
        if self.likelihood == "mse" or library_size == "predicted":
            return None
        if library_size == "median":
            return np.full(adata.n_obs, self.baselines.median_library, dtype=np.float32)
        if library_size not in adata.obs:
            raise ValueError(
                "Expected `library_size` to be 'predicted', 'median' or a column of adata.obs "
                f"({list(adata.obs.columns)}), found {library_size!r}."
            )
        sizes = pd.to_numeric(adata.obs[library_size], errors="coerce").to_numpy(dtype=np.float32)
        if not (np.isfinite(sizes) & (sizes > 0)).all():
            raise ValueError(f"Expected adata.obs[{library_size!r}] to hold positive library sizes in every spot.")
        return sizes

    def _written_parameters(self, library_size: str, spots: Spots) -> dict[str, Any]:
        return {
            "model": self.name,
            "version": hist2scrna.__version__,
            "likelihood": self.likelihood,
            "scale": "log_normalized" if self.likelihood == "mse" else "counts",
            "library_size": "none" if self.likelihood == "mse" else library_size,
            "median_library_size": float(self.baselines.median_library),
            "options": self.options,
            "geometry": None if self.geometry is None else asdict(self.geometry),
            "graph": list(spots.graph.origin),
            "trained_on": self.training["sections"],
            "params": self.parameters,
        }

    def has_seen(self, counts: sparse.csr_array) -> NDArray[np.bool_]:
        """Tell which spots were in the data that the model was fitted on.

        Parameters
        ----------
        counts
            `(n, G)` CSR counts of the model's genes, in its order.
        """
        return np.isin(fingerprint(counts), self.fingerprints)


def as_trained(model: TrainedModel | str | Path) -> TrainedModel:
    """Return the model, loading it if a folder is given.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(model, str | Path):
        return TrainedModel.load(model)
    if not isinstance(model, TrainedModel):
        raise TypeError(f"Expected `model` to be a TrainedModel or the folder of one, found {type(model).__name__}.")
    return model
