"""An encoder of patches: what it is given, what it returns, and what tells it from others."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hist2scrna.encoders.patch_statistics import describe_middle, feature_names
from hist2scrna.encoders.precision import LOWER, check_precision, has_bfloat16, in_use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hist2scrna.encoders.precision import Precision
    from hist2scrna.encoders.published import Colors

PLAIN: tuple[Colors, Colors] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
DEFAULT_PX = 224
# At the end of the name of an encoder that features by hand are joined to.
WITH_MORPHOLOGY = "+morphology"
UNKNOWN, NONE, OWN = "unknown", "none", "the encoder's own"


@dataclass(frozen=True)
class TileMaps:
    """How the maps of a whole tile stand for those of the patches in it.

    Attributes
    ----------
    network
        The module from normalized tiles `(n, 3, s, s)` to maps `(n, c, s / token_px, s / token_px)`.
    shift_px
        How far right and below the middle of its own pixels the middle of what a token sees lies.
    read
        From tables of integrals of one tile and places of windows to features `(m, d)`, as the network of the encoder
        gives them for a patch; see :func:`~hist2scrna.encoders.windows.statistics_in`.
    """

    network: nn.Module
    shift_px: float
    read: Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder: from RGB patches `(n, 3, px, px)` to features `(n, width)`.

    A patch is as wide as the widest field of view. Narrower ones are its middle; all are shrunk to the pixels of the
    narrowest by averaging, normalized, and passed through the network one after the other. Their features are joined,
    those of the narrowest first.

    Attributes
    ----------
    name
        What it is called in keys and messages.
    network
        The function, or the module, from normalized patches `(n, 3, h, w)`, as wide as one field of view, to `(n, d)`.
    version
        Of its definition; another version gives other features. `"none"` where nobody counts.
    colors
        Mean and standard deviation of red, green and blue in 0..1, by which patches are normalized.
    px
        Side of a patch in pixels.
    um
        Side of a patch in microns; None: its narrowest field of view is one and a half spot diameters wide.
    um_per_px
        Size of a pixel of the patch in microns, from which :meth:`side` derives its side; None: it is `px`.
    fields_of_view
        How many times as wide as the narrowest each is, in rising order, the first 1.
    token_px
        Side of a token, or of a cell of the network's last map, in pixels; each field of view has a whole number.
    least_tokens
        Fewest of these along a side of a field of view.
    fixed
        Whether patches of another side than `px` are refused.
    width
        Number of features of a patch, where it is known beforehand.
    license, hub_id, pooling
        As published; `"unknown"`, `"none"` or `"the encoder's own"` where not.
    weights, sha256
        Where the weights are from, and their SHA-256: of the file where there is one, else of the tensors.
    by_name
        Whether :func:`prepare_encoder` builds it from its name, so that a fitted model need not keep it.
    at_once
        Most patches that pass through the network together, whatever the batch; None: all of the batch.
    with_morphology
        Whether the features by hand of the middle of each patch (`n_morphology`) follow those of the network.
    maps
        Where the image is encoded once by tiles, and each spot reads the maps at its place: how. None: each patch by
        itself.

    Examples
    --------
    >>> def network(patches):
    ...     return patches.mean(dim=(2, 3))
    ...
    >>> encoder = h2s.encoders.Encoder("mean color", network, um=112, px=224)
    >>> h2s.tl.fit(train, model="ridge", encoder=encoder, progress=False).encoder["name"]
    'mean color'
    """

    name: str
    network: Callable[[Tensor], Tensor]
    version: str = NONE
    colors: tuple[Colors, Colors] = PLAIN
    px: int = DEFAULT_PX
    um: float | None = None
    um_per_px: float | None = None
    fields_of_view: tuple[int, ...] = (1,)
    token_px: int = 1
    least_tokens: int = 1
    fixed: bool = False
    width: int | None = None
    license: str = UNKNOWN
    hub_id: str = NONE
    pooling: str = OWN
    weights: str = "as given"
    sha256: str = NONE
    by_name: bool = False
    at_once: int | None = None
    with_morphology: bool = False
    maps: TileMaps | None = None

    @property
    def n_morphology(self) -> int:
        """How many of the features, the last, are by hand."""
        return len(feature_names()) if self.with_morphology else 0

    @property
    def module(self) -> nn.Module | None:
        """The network, where it is a module."""
        return self.network if isinstance(self.network, nn.Module) else None

    @property
    def widest(self) -> int:
        """How many times as wide as the narrowest field of view a patch is."""
        return self.fields_of_view[-1]

    def side(self, um: float) -> int:
        """Return the side in pixels of a patch that is `um` microns wide."""
        if self.um_per_px is None:
            return self.px
        step = self.token_px * self.widest
        return step * max(self.least_tokens, round(um / (step * self.um_per_px)))

    def check_side(self, px: int) -> None:
        """Refuse a side in pixels that the encoder cannot be given.

        Raises
        ------
        ValueError
            If it is fixed and `px` another, or `px` is not a whole number of tokens in each field of view.
        """
        if px == self.px:
            return
        if self.fixed:
            raise ValueError(f"Encoder {self.name!r} reads patches of {self.px} px only, found patch_px={px}.")
        step = self.token_px * self.widest
        if px < step * self.least_tokens or px % step:
            wanted = "positive" if step == 1 else f"a multiple of the {step} px of its tokens"
            wanted += f", {step * self.least_tokens} or more" * (self.least_tokens > 1)
            raise ValueError(f"Expected `patch_px` of encoder {self.name!r} to be {wanted}, found {px}.")

    def token_grid(self, px: int | None = None) -> tuple[int, int] | None:
        """Return rows and columns of the tokens of a patch, in its widest field of view; None where there are none."""
        tokens = (self.px if px is None else px) // (self.widest * self.token_px)
        return None if self.token_px == 1 else (tokens, tokens)

    def precision_on(self, device: torch.device) -> Precision:
        """Return the precision in which it is computed on a device, unless the user says otherwise."""
        return "bf16-mixed" if has_bfloat16(device) else "32-true"

    @contextlib.contextmanager
    def on(self, device: torch.device, precision: str | None = None) -> Iterator[None]:
        """Within it, the network is on the device, in eval mode and in a precision; afterwards it is as it was.

        Parameters
        ----------
        device
            Where to compute. Patches are to be there too.
        precision
            `"32-true"`, `"bf16-mixed"` or `"16-mixed"`; None: that of :meth:`precision_on`.
        """
        precision = self.precision_on(device) if precision is None else precision
        check_precision(precision)
        lower = LOWER[precision]
        autocast = contextlib.nullcontext() if lower is None else torch.autocast(device.type, lower)
        with in_use(self.module, device), autocast:
            yield

    def encode(self, patches: Tensor, um: float | None = None) -> Tensor:
        """Return the features of patches, `(n, width)` float32, on the device of the patches.

        Gradients flow to float patches where the network has any; features by hand have none.

        Parameters
        ----------
        patches
            `(n, 3, px, px)`, uint8, or float in 0..1, on the device of the network.
        um
            Side of the patches in microns, which features by hand need.

        Raises
        ------
        TypeError
            If the network does not return a tensor.
        ValueError
            If it returns a tensor of another shape than `(n, d)`; if `um` is missing.
        """
        chunks = [patches] if self.at_once is None else patches.split(self.at_once)
        features = torch.cat([self.encode_views(self.views(chunk)) for chunk in chunks])
        return self.joined(features, self.by_hand(patches, um))

    def views(self, patches: Tensor) -> list[Tensor]:
        """Return the fields of view of patches as the network reads them, `(n, 3, side, side)` each, normalized.

        Parameters
        ----------
        patches
            `(n, 3, px, px)`, uint8, or float in 0..1.
        """
        pixels = patches.float() / 255 if patches.dtype == torch.uint8 else patches
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in self.colors)
        side = pixels.shape[-1] // self.widest
        views = []
        for wider in self.fields_of_view:
            start = (pixels.shape[-1] - wider * side) // 2
            view = pixels[..., start : start + wider * side, start : start + wider * side]
            views.append(((F.avg_pool2d(view, wider) if wider > 1 else view) - mean) / std)
        return views

    def encode_views(self, views: Sequence[Tensor]) -> Tensor:
        """Return the features by the network of what :meth:`views` returned, `(n, d)` float32, on its device."""
        module = self.module
        floats = () if module is None else (p.dtype for p in module.parameters() if p.is_floating_point())
        dtype = next(iter(floats), views[0].dtype)
        features = []
        for view in views:
            encoded = self.network(view.to(dtype))
            self._check(encoded, len(view))
            # Half precision is widened; a network in double precision stays so.
            features.append(encoded.to(torch.promote_types(encoded.dtype, torch.float32)))
        return torch.cat(features, dim=1)

    def by_hand(self, patches: Tensor, um: float | None) -> Tensor | None:
        """Return the features by hand of patches, `um` microns wide; None where the encoder joins none.

        Raises
        ------
        ValueError
            If it joins some, and `um` is missing.
        """
        if not self.with_morphology:
            return None
        if um is None:
            raise ValueError(f"Encoder {self.name!r} needs to know how wide the patches are: pass um=.")
        return describe_middle(patches, um, um / self.widest)

    def joined(self, features: Tensor, by_hand: Tensor | None) -> Tensor:
        """Return features by the network with those by hand, `(n, width)`."""
        return features if by_hand is None else torch.cat([features, by_hand.to(features)], dim=1)

    def _check(self, encoded: Any, n: int) -> None:
        if not isinstance(encoded, Tensor):
            raise TypeError(
                f"Expected encoder {self.name!r} to return a tensor (n, d), found {type(encoded).__name__}. Wrap it "
                "in a function that returns one vector a patch."
            )
        width = None if self.width is None else (self.width - self.n_morphology) // len(self.fields_of_view)
        if encoded.ndim != 2 or len(encoded) != n or encoded.shape[1] != (width or encoded.shape[1]):
            raise ValueError(
                f"Expected encoder {self.name!r} to return ({n}, {width or 'd'}) for {n} patches, found "
                f"{tuple(encoded.shape)}. Pool maps and tokens to one vector a patch."
            )

    def card(self) -> dict[str, Any]:
        """Return what a fitted model keeps of it, in plain values: all that is needed to build it again, no weights."""
        mean, std = self.colors
        return {
            "name": self.name,
            "version": self.version,
            "by_name": self.by_name,
            "px": self.px,
            "um": self.um,
            "um_per_px": self.um_per_px,
            "fields_of_view": list(self.fields_of_view),
            "width": self.width,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "pooling": self.pooling,
            "license": self.license,
            "hub_id": self.hub_id,
            "weights": self.weights,
            "sha256": self.sha256,
        }
