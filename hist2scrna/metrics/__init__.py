"""Scores of predicted expression and cell types: arrays in, plain numbers and arrays out.

Tables are spots x genes, dense or sparse; they are read in blocks of genes or of spots, so that sparse counts are never
made dense at once. A gene that is constant in the truth has no correlation (NaN); one that is constant in the
prediction correlates with nothing, and counts as 0.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "scales": ["log_normalize", "pearson_residuals"],
        "correlation": [
            "pearson_by_gene",
            "spearman_by_gene",
            "depth_partial_pearson",
            "pearson_by_spot",
            "spearman_by_spot",
        ],
        "errors": ["errors_by_gene", "overall"],
        "thinning": ["thinning_reliability", "noise_ceiling"],
        "zeros": ["zero_scores", "auroc"],
        "labels": ["cell_type_scores", "cluster_agreement", "expected_calibration_error"],
        "calibration": ["CountScores", "count_scores"],
        "spatial": ["morans_i_by_gene"],
    },
)
