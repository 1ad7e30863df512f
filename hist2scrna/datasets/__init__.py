"""Example data: simulated sections, and public ones that are downloaded."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"_simulate": ["simulate"], "_her2st": ["her2st"], "_her2st_counts": ["her2st_counts"]},
)
