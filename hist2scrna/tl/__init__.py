"""Tools: fit, predict, refine types, adapt, evaluate, attention, benchmark."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_fit": ["fit"],
        "_predict": ["predict"],
        "_refine_types": ["refine_types"],
        "_adapt": ["adapt"],
        "_evaluate": ["evaluate"],
        "_attention": ["attention"],
        "_benchmark": ["benchmark"],
    },
)
