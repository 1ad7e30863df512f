"""Preprocessing: features of the image around each spot, and spots or nuclei where there is only an image."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_extract_features": ["extract_features"],
        "_morphology": ["morphology_features"],
        "_normalize_stain": ["normalize_stain"],
        "_pool_patches": ["pool_patches"],
        "_pseudo_spots": ["pseudo_spots"],
        "_reference_profiles": ["reference_profiles"],
        "_segment_nuclei": ["segment_nuclei"],
        "_tissue_grid": ["tissue_grid"],
    },
)
