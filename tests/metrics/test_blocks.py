"""What every score refuses: tables that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("score", [metrics.pearson_by_gene, metrics.spearman_by_spot, metrics.overall])
def test_bad_tables_are_refused(score, counts, prediction) -> None:
    with pytest.raises(ValueError, match=r"one shape, found \(60, 13\) and \(60, 12\)"):
        score(counts, prediction[:, 1:])
    with pytest.raises(ValueError, match=r"spots x genes, found shape \(60,\)"):
        score(counts[:, 0], prediction)
    prediction[3, 4] = np.nan
    with pytest.raises(ValueError, match="`prediction` to hold finite numbers"):
        score(counts, prediction)
