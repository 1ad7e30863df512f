"""What a fitted model consists of, as data, and how it introduces itself."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.fitting.result import useless
from hist2scrna.messages import listed, percent
from hist2scrna.models.registry import model_entry
from hist2scrna.provenance import fingerprint
from hist2scrna.spots.unit import Unit

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.encoders import Encoder
    from hist2scrna.fitting.tissue import Tissue
    from hist2scrna.images.patches import PatchGeometry
    from hist2scrna.metrics.baselines import Baselines
    from hist2scrna.models.contract import SpotModel

SHOWN_CLASSES = 6


@dataclass(kw_only=True)
class FittedModel:
    """All that is known of a fitted model.

    Attributes
    ----------
    module
        The model itself, a :class:`torch.nn.Module`, on the CPU, in eval mode.
    name, options
        Name in the registry, and all options of the model.
    choice
        Why `model="auto"` chose this one; empty where it was named.
    genes, classes
        Genes and cell types, in the order of the model's outputs; no classes: no cell-type head.
    geometry
        Side of a patch in microns and in pixels; None for features that were extracted beforehand.
    encoder
        Name, version, geometry, license and SHA-256 of the frozen encoder in front of the model; None without one.
    parameters
        What :func:`~hist2scrna.tl.fit` was called with.
    training
        Summary of the training: sections, numbers of spots, `n_nuclei` (how many nuclei lie in the training spots,
        where these are fitted as sums of them), `unit` (what they are, and their size in microns), `pitch_um` (the
        distance between neighbors), `pixel_um` (side in microns of the pixels of the finest and of the coarsest image),
        split, best epoch, seconds, package versions; `variance_explained`, the share of the variance of spots left out,
        or of those that validate.
    baselines
        Mean and depth baseline, fitted on the training counts.
    fingerprints
        `(n,)` int64, one a training or validation spot, from its counts: tells whether a spot was seen.
    history
        Losses, one row an epoch; for models in closed form, one a penalty.
    tissue
        Some spots of the training, and how far tissue may be from them: what tells unlike tissue. None of fewer than
        ten spots, and of tiles of fewer than 64 pixels.
    encoder_in_memory
        The encoder itself, where it is at hand. It is not saved.
    """

    module: SpotModel
    name: str
    choice: str = ""
    options: dict[str, Any]
    genes: list[str]
    classes: list[str]
    geometry: PatchGeometry | None
    encoder: dict[str, Any] | None = None
    parameters: dict[str, Any]
    training: dict[str, Any]
    baselines: Baselines
    fingerprints: NDArray[np.int64]
    history: pd.DataFrame
    tissue: Tissue | None = field(default=None, repr=False, compare=False)
    encoder_in_memory: Encoder | None = field(default=None, repr=False, compare=False)

    @property
    def likelihood(self) -> str:
        """`"zinb"`, `"nb"`, `"poisson"` or `"mse"`."""
        return self.module.likelihood

    @property
    def n_parameters(self) -> int:
        """Number of weights; of a model in closed form, of its coefficients. Without those of its encoder."""
        trained = sum(p.numel() for p in self.module.parameters())
        return trained or sum(b.numel() for b in self.module.buffers())

    def has_seen(self, counts: sparse.csr_array) -> NDArray[np.bool_]:
        """Tell which spots were in the data that the model was fitted on.

        Parameters
        ----------
        counts
            `(n, G)` CSR counts of the model's genes, in its order.
        """
        return np.isin(fingerprint(counts), self.fingerprints)

    @property
    def preset(self) -> str:
        """Name of the preset, the default one where none was asked for."""
        return self.parameters.get("preset") or model_entry(self.name).default

    def __repr__(self) -> str:
        facts = "\n".join(f"  {name:<10}  {value}" for name, value in self._facts().items())
        return f"{self._title()}\n{facts}"

    def _repr_html_(self) -> str:
        """Return the same for a notebook, in the colors of its theme."""
        left = 'style="text-align:left;vertical-align:top"'
        rows = "".join(
            f'<tr><th scope="row" {left}>{html.escape(name)}</th><td {left}>{html.escape(value)}</td></tr>'
            for name, value in self._facts().items()
        )
        return (
            f'<div style="color:inherit;background:inherit"><p><strong>{html.escape(self._title())}</strong></p>'
            f'<table style="color:inherit;background:inherit"><tbody>{rows}</tbody></table></div>'
        )

    def _title(self) -> str:
        return f"TrainedModel {self.name!r}, preset {self.preset!r}, {self.n_parameters:,} parameters"

    def _facts(self) -> dict[str, str]:
        """Return what is to be known of the model at a glance, by name."""
        training = self.training
        more = ", ..." if len(self.classes) > SHOWN_CLASSES else ""
        classes = f"{len(self.classes)} ({', '.join(self.classes[:SHOWN_CLASSES])}{more})" if self.classes else "none"
        chosen = {"chosen": f"by model='auto': {self.choice}"} if self.choice else {}
        return {
            **chosen,
            "reads": self._reads(),
            "predicts": f"{len(self.genes)} genes ({', '.join(self.genes[:3])}, ...), {self.likelihood}",
            "cell types": classes,
            "trained on": f"{training['n_training']} {self._rows}{self._nuclei()} of {listed(training['sections'])}",
            **self._donors(),
            "unit": str(Unit(**training["unit"])) if "unit" in training else self._rows,
            **self._adapted(),
            "validation": self._validation(),
            **self._best(),
            **self._explains(),
        }

    def _donors(self) -> dict[str, str]:
        """Return whose sections these are, and whose counts came without an image."""
        named, counts = (self.training.get(key) or [] for key in ("donors", "donors_without_images"))
        said = [listed(named)] if named else []
        said += [f"counts without images of {listed(counts)}"] if counts else []
        return {"donors": "; ".join(said)} if said else {}

    def _nuclei(self) -> str:
        """Return how many nuclei lie in the spots of the training, where these were fitted as sums of their nuclei."""
        n_nuclei = self.training.get("n_nuclei")
        return "" if n_nuclei is None else f" ({n_nuclei:,} nuclei)"

    def _adapted(self) -> dict[str, str]:
        """Return what measured spots of another donor the model was adapted to."""
        to = self.training.get("adapted_to")
        return {} if to is None else {"adapted to": f"{to['n_spots']} {self._rows} of {listed(to['sections'])}"}

    def _validation(self) -> str:
        """Return what was left out of the fit, to choose by or to stop by."""
        n_validation = self.training["n_validation"]
        return f"{self.training['validation']}{f' ({n_validation} {self._rows})' if n_validation else ''}"

    def _explains(self) -> dict[str, str]:
        """Return what share of the variance of spots left out the model explains, and what that means."""
        explained = self.training.get("variance_explained")
        if explained is None:
            return {}
        share = {"explains": f"{percent(explained)} of the variance of spots left out"}
        verdict = useless(explained)
        return share if verdict is None else {**share, "WARNING": f"{verdict}."}

    def _best(self) -> dict[str, str]:
        """Return the epoch that was kept or, of a model in closed form, the penalty."""
        best, monitor = self.training["best_epoch"], self.training["monitor"]
        row = self.history.iloc[best]
        loss = f"{monitor} {row[monitor]:.4f}"
        if "penalty" in row:
            return {"penalty": f"{row['penalty']:.3g}, the best of {len(self.history)}, {loss}"}
        return {"best epoch": f"{best} of {len(self.history)}, {loss}"}

    @property
    def _rows(self) -> str:
        return Unit(**self.training["unit"]).rows if "unit" in self.training else "spots"

    def _reads(self) -> str:
        if self.geometry is None:
            key, width = self.parameters.get("features_key"), self.options.get("n_features")
            reads = f"features adata.obsm[{key!r}] ({width} wide)"
        else:
            what = "tiles" if self.module.needs == "tiles" else "patches"
            reads = f"{what} of {self.geometry.um:g} um, {self.geometry.px} px"
        about = self.training.get("features") or {}
        encoder = self.encoder or ({"name": about["encoder"], **about} if "encoder" in about else None)
        if encoder is not None and self.geometry is not None and len(views := encoder.get("fields_of_view", ())) > 1:
            widths = [f"{self.geometry.um * view / max(views):g}" for view in views]
            reads += f" (seen {', '.join(widths[:-1])} and {widths[-1]} um wide)"
        if encoder is not None:
            reads += f", encoded by {encoder['name']} (license: {encoder.get('license', 'unknown')})"
        return reads
