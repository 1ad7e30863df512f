"""Input and output: folders of patches, Space Ranger, Xenium, SpatialData, several samples."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_read_patch_folder": ["read_patch_folder"],
        "_write_patch_folder": ["write_patch_folder"],
        "_space_ranger": ["read_visium", "read_visium_hd"],
        "_xenium": ["read_xenium"],
        "_read_nuclei": ["read_nuclei"],
        "_from_spatialdata": ["from_spatialdata"],
        "_to_spatialdata": ["to_spatialdata"],
        "_concat": ["concat"],
    },
)
