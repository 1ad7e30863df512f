"""Tools: fit, predict, adapt, evaluate, attention, benchmark."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_fit": ["fit"],
        "_predict": ["predict"],
        "_adapt": ["adapt"],
        "_evaluate": ["evaluate"],
        "_attention": ["attention"],
        "_benchmark": ["benchmark"],
    },
)
