"""Gene expression, as counts, from H&E histology: reads and writes AnnData."""

import lazy_loader

from hist2scrna.verbosity import settings as settings

__version__ = "0.1.0"

# Torch, Lightning, Squidpy and Matplotlib take seconds to import: each namespace loads on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={"datasets", "encoders", "io", "metrics", "models", "pl", "pp", "tl", "zinb"},
    submod_attrs={
        "models.training": ["Training"],
        "spots.graph": ["Neighbors"],
        "trained": ["TrainedModel"],
        "reporting.page": ["report"],
        "verbosity": ["settings"],
    },
)
