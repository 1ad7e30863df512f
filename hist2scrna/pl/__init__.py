"""Plots: Matplotlib, each takes axes or the size of a new figure, and returns the axes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_spatial_compare": ["spatial_compare"],
        "_history": ["history"],
        "_scatter": ["scatter"],
        "_gene_correlation": ["gene_correlation"],
        "_ranked_genes": ["ranked_genes"],
        "_expression_levels": ["expression_levels"],
        "_zero_inflation": ["zero_inflation"],
        "_calibration": ["calibration"],
        "_confusion_matrix": ["confusion_matrix"],
        "_reliability": ["reliability"],
        "_benchmark": ["benchmark"],
        "_attention": ["attention"],
    },
)
