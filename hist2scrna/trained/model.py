"""A fitted model as a user has it: it saves, loads and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hist2scrna.arguments import shown
from hist2scrna.models.published import model_folder
from hist2scrna.trained.files import load_fields, save_model
from hist2scrna.trained.fitted import FittedModel
from hist2scrna.trained.predict import predict
from hist2scrna.trained.read import read_for

if TYPE_CHECKING:
    from anndata import AnnData

    from hist2scrna.spots.read import Spots


class TrainedModel(FittedModel):
    """A model with all that it takes to predict and to judge it. :func:`hist2scrna.tl.fit` returns it.

    It has the attributes of `FittedModel`: `module`, `name`, `preset`, `choice`, `options`,
    `genes`, `classes`, `geometry`, `encoder`, `parameters`, `training`, `baselines`, `fingerprints` and `history`.

    Examples
    --------
    >>> model.save("model", overwrite=True)
    PosixPath('model')
    >>> h2s.TrainedModel.load("model").genes == model.genes
    True
    """

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the model to a folder: safetensors, JSON and CSV, no pickle. An encoder is named, not copied.

        After training on several devices the first process writes, and the others go on.

        Parameters
        ----------
        folder
            Where to; it appears only once it is complete.
        overwrite
            Replace a model that is there. A folder that holds anything else as well is never replaced.

        Returns
        -------
        The folder.

        Raises
        ------
        FileExistsError
            If a model is there already and `overwrite` is false, or anything else is.
        """
        return save_model(self, Path(folder), overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> TrainedModel:
        """Read a model that :meth:`save` wrote, or one that comes with the package (`models.published`), by name.

        Raises
        ------
        FileNotFoundError
            If the folder or a file in it is missing.
        ValueError
            If a file is damaged, or written by a newer version, or the model is one of your own that is not registered
            in this process.
        """
        return cls(**load_fields(model_folder(folder)))

    def predict(self, adata: AnnData, **arguments: Any) -> AnnData:
        """Predict counts and cell types; see :func:`hist2scrna.tl.predict` for the arguments."""
        return predict(adata, self, **arguments)

    def read(self, adata: AnnData, **where: Any) -> Spots:
        """Read the spots of `adata` in this model's geometry; keys that are not named are those of the training.

        Parameters
        ----------
        adata
            Annotated data.
        **where
            `library_key`, `spatial_key`, `img_key`, `image`, `features_key`, `mpp` and `nuclei`, as in
            :func:`hist2scrna.tl.predict`.
        """
        return read_for(self, adata, **where)


def as_trained(model: TrainedModel | str | Path, argument: str = "model") -> TrainedModel:
    """Return the model that was passed as `argument`, loading it if a folder is given.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(model, str | Path):
        return TrainedModel.load(model)
    if not isinstance(model, TrainedModel):
        raise TypeError(f"Expected `{argument}` to be a TrainedModel or the folder of one, found {shown(model)}.")
    return model
