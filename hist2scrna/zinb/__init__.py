"""The distribution of a count: zero-inflated negative binomial, negative binomial, Poisson."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"distribution": ["CountDistribution", "NB", "Poisson", "ZINB"]}
)
