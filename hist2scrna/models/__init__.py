"""Models: a batch of spots in, a prediction out. They know nothing of AnnData."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "contract": ["Context", "Prediction", "SpotBatch", "SpotModel"],
        "kernel": ["FewFeatures", "FewSections"],
        "registry": ["create_model"],
    },
)
