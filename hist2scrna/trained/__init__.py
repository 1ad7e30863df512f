"""A fitted model: what it is, how it is kept, and how it predicts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"model": ["TrainedModel"]})
