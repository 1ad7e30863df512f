"""In what form layers are written: the type of their numbers, and which of them are sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.arguments import require_number, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = ("float32", "float16")
# Layers whose small values are left out: expected counts, and what their logarithm is then.
SPARSE = ("mean", "log_normalized")


@dataclass(frozen=True)
class LayerForm:
    """The form of layers.

    Attributes
    ----------
    dtype
        `"float32"` or `"float16"`.
    sparse_below
        Expected count below which mean and log-normalized expression are zero, and not stored; None: all is stored.
    """

    dtype: str = "float32"
    sparse_below: float | None = None

    def check(self, likelihood: str | None = None) -> None:
        """Refuse what cannot be written or read again; the likelihood of the model where it is known.

        Raises
        ------
        ValueError
            If the type is not known, the threshold not positive, or the two do not go together.
        """
        if self.dtype not in DTYPES:
            raise ValueError(f"Expected `dtype` to be one of {list(DTYPES)}, found {shown(self.dtype)}.")
        if self.sparse_below is None:
            return
        require_number("sparse_below", self.sparse_below, 0, above=True)
        if self.dtype == "float16":
            raise ValueError(
                "SciPy has no sparse matrix of float16, so that nobody could read it: pass dtype='float16' or "
                "sparse_below=, not both."
            )
        if likelihood == "mse":
            raise ValueError(
                "This model (mse) predicts log-normalized expression, of which no value is a count that is nearly "
                "zero: leave out `sparse_below`. dtype='float16' halves the layers."
            )

    def is_sparse(self, layer: str) -> bool:
        """Return whether a layer is sparse."""
        return self.sparse_below is not None and layer in SPARSE

    def of(self, layer: str, values: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[Any]:
        """Return predicted values of a layer as they are written; `mean` are the expected counts there.

        What is above zero remains so in float16, and a probability below one: a count would else be impossible.

        Raises
        ------
        ValueError
            If a value is too large for float16.
        """
        if self.is_sparse(layer):
            return np.where(mean < np.float32(self.sparse_below), np.float32(0), values)
        if self.dtype == "float32":
            return values
        limits = np.finfo(np.float16)
        largest = float(np.nanmax(np.abs(values), initial=0))
        if largest > limits.max:
            raise ValueError(
                f"Layer {layer!r} holds {largest:,.0f}, and float16 ends at {limits.max:,.0f}. Pass dtype='float32', "
                f"or `layers` without {layer!r}."
            )
        written = values.astype(np.float16)
        written[(written == 0) & (values > 0)] = limits.smallest_subnormal
        if layer == "dropout":
            written = np.minimum(written, np.nextafter(np.float16(1), np.float16(0)))
        return written
