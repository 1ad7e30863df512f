"""At what depth log-normalized expression is best read where nobody knows how deep a section was sequenced.

python benchmarks/reading_depth.py [--publish docs/benchmark]

No picture is read. Each gene has its share in each section of HER2ST and each spot its true depth; expected
log(1 + 1e4 x / total) is then read as if the section had been sequenced deeper or shallower by so many nats, and
correlated with what was measured (Pearson by gene, mean). The reading of tissue of another donor was chosen on B4 and
C2 to C6; the sections of donors D to H, which have no images here, show whether it holds. The last column is the mean
over levels of another donor, as far apart as `kernel` takes donors to be where it was trained on one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import peers
import torch
from donors import counts_alone

import hist2scrna as h2s
from hist2scrna.fitting.closed_form.donors import LEVEL_SD
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.zinb import NB

OFF = np.arange(-4.0, 4.01)
SHOWN = (-2.0, -1.0, 0.0, 1.0, 2.0)
CHOSEN_ON = ("B", "C")


def correlations(counts: np.ndarray) -> list[float]:
    """Return the correlation of a section, read as if it were deeper by each of `OFF`."""
    truth, depth = h2s.metrics.log_normalize(counts), counts.sum(axis=1, keepdims=True)
    baselines = Baselines.fit(counts)
    log_mu = torch.from_numpy(np.log(depth) + np.log((counts.sum(axis=0) + 0.5) / (counts.sum() + 0.5)))
    log_theta = torch.from_numpy(np.log(baselines.dispersion)).expand_as(log_mu)
    read = [NB(log_mu + off, log_theta).expected_log1p(torch.from_numpy(1e4 / depth * np.exp(-off))) for off in OFF]
    return [float(np.nanmean(h2s.metrics.pearson_by_gene(truth, values.numpy()))) for values in read]


def expected(found: np.ndarray) -> np.ndarray:
    """Return the mean correlation over levels, where tissue is read `OFF` above that of the one known donor."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    levels = np.sqrt(2) * LEVEL_SD * nodes
    return np.array([np.interp(off - levels, OFF, found) @ weights / weights.sum() for off in OFF])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    adata, asked = peers.her2st(["B4", *peers.SERIAL])
    rows: dict[str, list[np.ndarray]] = {}
    for table in (adata, counts_alone()):
        genes = [gene for gene in asked["genes"] if gene in table.var_names]
        for section in table.obs["library_id"].cat.categories:
            own: ad.AnnData = table[table.obs["library_id"] == section, genes]
            counts = own.X.toarray().astype(np.float64)
            rows.setdefault(str(own.obs["donor"].iloc[0]), []).append(np.array(correlations(counts[counts.sum(1) > 0])))
    means = {donor: np.mean(found, axis=0) for donor, found in rows.items()}
    parts = {"B and C": [means[d] for d in CHOSEN_ON], "D to H": [means[d] for d in means if d not in CHOSEN_ON]}
    shown = {
        name: values
        for part, found in parts.items()
        for name, values in (
            (f"{part}, level known", np.mean(found, axis=0)),
            (f"{part}, level of another donor", np.mean([expected(one) for one in found], axis=0)),
        )
    }
    result = pd.DataFrame(shown, index=pd.Index(OFF, name="read as deeper by")).loc[list(SHOWN)].T
    lines = ["| | " + " | ".join(f"{off:+g}" for off in SHOWN) + " |", "|---|" + "---:|" * len(SHOWN)]
    lines += [f"| {name} | " + " | ".join(f"{x:.3f}" for x in row) + " |" for name, row in result.iterrows()]
    if options.publish is not None:
        (options.publish / "reading_depth.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
