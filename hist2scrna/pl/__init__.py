"""Plots: Matplotlib, each takes axes and returns them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"_spatial_compare": ["spatial_compare"], "_history": ["history"]},
)
