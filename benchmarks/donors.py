"""What counts of further donors, and a few measured spots, are worth on tissue of another donor.

python benchmarks/donors.py [--split NAME ...] [--network] [--out benchmarks/results/donors] [--publish docs/benchmark]

HER2ST: C2 to C6, serial sections of donor C, or two of them, train and B4, of donor B, is predicted; the other way
round; and both donors but one section of C train, and this section is predicted, which is a further section of a known
donor. Each model is fitted as it is and with the counts of donors D to H (`fit(expression=)`). On another donor each is
then brought to it (`adapt`) by 5 and by 10 % of the spots, scattered or side by side, drawn three times on B4 and once
on each section of C, and scored on the spots at least two pitches away from all of these, as is the same model without
them.

With `--network`, `hist2scrna-lightweight` (preset `tiny`, at most 60 epochs) takes the place of `kernel`, on C to B4
and back: as it is, with rates of gene programs of the training sections, and with programs of D to H too; three seeds.
It cannot be adapted.

Set `HIST2SCRNA_CACHE_DIR`, or the patches that train are encoded again for each model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import peers

import hist2scrna as h2s
from hist2scrna import keys

COUNTS_ALONE = "D to H"
KNOWN = "B4 and C to"
SPLITS = {
    "C to B4": (peers.SERIAL, ["B4"]),
    "C2 and C3 to B4": (["C2", "C3"], ["B4"]),
    "B4 to C": (["B4"], peers.SERIAL),
    **{f"{KNOWN} {one}": (["B4", *(s for s in peers.SERIAL if s != one)], [one]) for one in peers.SERIAL},
}
SHARES, LAYOUTS = (0.05, 0.1), ("scattered", "side by side")
DRAWS_ALONE = 3
NETWORK = "hist2scrna-lightweight"
NETWORK_SPLITS, SEEDS, N_PROGRAMS = ("C to B4", "B4 to C"), (0, 1, 2), 10
PITCHES = 2.0
FEATURES, MEASURED = "X_encoded", "measured"
LEVELS = ("50", "80", "95")
SCORES = [
    "pearson",
    "depth_partial",
    "log_likelihood",
    *(f"{kind}_{n}" for kind in ("coverage", "width") for n in LEVELS),
]


def counts_alone() -> ad.AnnData:
    folder = peers.SHARED / "data" / "her2st_counts"
    return h2s.datasets.her2st_counts(folder if folder.is_dir() else None)


def measured_spots(section: ad.AnnData, share: float, layout: str, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which spots are measured, and which are far enough from all of these to be scored."""
    rng = np.random.default_rng(draw)
    place = section.obs[list(keys.ARRAY_COORDINATES)].to_numpy(dtype=float)
    n = round(share * section.n_obs)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    if layout == "scattered":
        chosen = rng.choice(section.n_obs, n, replace=False)
    else:
        chosen = np.argsort(distance[rng.integers(section.n_obs)], kind="stable")[:n]
    measured = np.isin(np.arange(section.n_obs), chosen)
    return measured, (distance[:, measured] >= PITCHES).all(axis=1)


def scores(section: ad.AnnData, predicted: ad.AnnData, genes: list[str], rows: np.ndarray) -> dict[str, float]:
    """Score some spots of a section."""
    counts = section[rows, genes].X.toarray().astype(np.float64)
    layers = {name: layer[rows] for name, layer in predicted.layers.items()}
    truth, ours = h2s.metrics.log_normalize(counts), layers["hist2scrna_log_normalized"]
    found = h2s.metrics.count_scores(
        counts, *(layers[f"hist2scrna_{name}"] for name in ("mu", "dispersion", "dropout"))
    )
    return {
        "n_spots": int(rows.sum()),
        "pearson": float(np.nanmean(h2s.metrics.pearson_by_gene(truth, ours))),
        "depth_partial": float(np.nanmean(h2s.metrics.depth_partial_pearson(truth, ours, counts.sum(axis=1)))),
        "log_likelihood": found.scores["log_likelihood"],
        **{f"{kind}_{n}": found.scores[kind][n] for kind in ("coverage", "width") for n in LEVELS},
    }


def predict(section: ad.AnnData, model: h2s.TrainedModel) -> ad.AnnData:
    return h2s.tl.predict(
        section,
        model,
        features_key=FEATURES,
        layers=["mu", "dispersion", "dropout", "log_normalized"],
        copy=True,
        progress=False,
    )


def rows_of(split: str, adata: ad.AnnData, others: ad.AnnData, genes: list[str]) -> Iterator[dict[str, object]]:
    """Yield the scores of a split, one by one."""
    train, test = SPLITS[split]
    own = adata[adata.obs["library_id"].isin(train)].copy()
    for counts, expression in (("none", None), (COUNTS_ALONE, others)):
        model = h2s.tl.fit(own, model="kernel", genes=genes, group_key="donor", expression=expression, progress=False)
        for number, name in enumerate(test):
            section = adata[adata.obs["library_id"] == name].copy()
            about = {"split": split, "expression": counts, "section": name}
            before = predict(section, model)
            yield {**about, "spots": "all", **scores(section, before, genes, np.ones(section.n_obs, dtype=bool))}
            if set(section.obs["donor"]) <= set(own.obs["donor"]):
                continue
            draws = range(DRAWS_ALONE) if len(test) == 1 else [number]
            for share, layout, draw in ((s, where, d) for s in SHARES for where in LAYOUTS for d in draws):
                section.obs[MEASURED], rows = measured_spots(section, share, layout, draw)
                adapted = h2s.tl.adapt(model, section, measured=MEASURED, features_key=FEATURES, progress=False)
                about |= {
                    "spots": f"{layout}, {share:.0%}",
                    "draw": draw,
                    "n_measured": int(section.obs[MEASURED].sum()),
                }
                yield {**about, "adapted": False, **scores(section, before, genes, rows)}
                yield {**about, "adapted": True, **scores(section, predict(section, adapted), genes, rows)}


def network_rows_of(split: str, adata: ad.AnnData, others: ad.AnnData, genes: list[str]) -> Iterator[dict[str, object]]:
    """Yield the scores of the network on a split, one by one."""
    train, test = SPLITS[split]
    own = adata[adata.obs["library_id"].isin(train)].copy()
    variants = {
        "none": {},
        "of the training": {"n_programs": N_PROGRAMS},
        f"of the training and {COUNTS_ALONE}": {"n_programs": N_PROGRAMS, "expression": others},
    }
    shared = {"model": NETWORK, "features_key": FEATURES, "group_key": "donor", **peers.OURS}
    for seed, (programs, arguments) in product(SEEDS, variants.items()):
        model = h2s.tl.fit(own, genes=genes, seed=seed, progress=False, **shared, **arguments)
        for name in test:
            section = adata[adata.obs["library_id"] == name].copy()
            found = scores(section, predict(section, model), genes, np.ones(section.n_obs, dtype=bool))
            yield {"split": split, "programs": programs, "seed": seed, "section": name, **found}


def network_table(rows: pd.DataFrame) -> str:
    """Return means over sections as a table of Markdown, with the least and the largest of the seeds."""
    shown = ("pearson", "depth_partial", "log_likelihood")
    text = ["| split | gene programs | Pearson | depth-partial | log-likelihood |", "|---|---|---:|---:|---:|"]
    for (split, programs), own in rows.groupby(["split", "programs"], sort=False):
        by_seed = own.groupby("seed")[list(shown)].mean()
        cells = [f"{by_seed[n].mean():.3f} ({by_seed[n].min():.3f} to {by_seed[n].max():.3f})" for n in shown]
        text.append(f"| {' | '.join([split, programs, *cells])} |")
    return "\n".join(text) + "\n"


def table(rows: pd.DataFrame) -> str:
    """Return means over sections and draws as a table of Markdown: on another donor, then on a known one."""
    known = rows["split"].str.startswith(KNOWN)
    rows = rows.assign(split=rows["split"].where(~known, "B4 and the others of C to each of C"))
    text = []
    for split, part in rows.groupby("split", sort=False):
        text += [
            f"**{split}**\n",
            "| counts alone | measured spots | adapted | Pearson | depth-partial | log-likelihood | coverage 50/80/95 "
            "| width 50/80/95 |",
            "|---|---|---|---:|---:|---:|---:|---:|",
        ]
        for (counts, spots, adapted), own in part.groupby(["expression", "spots", "adapted"], sort=False, dropna=False):
            mean = own[SCORES].mean()
            cells = [
                counts,
                "-" if spots == "all" else spots,
                "-" if spots == "all" else ("yes" if adapted else "no"),
                *(f"{mean[name]:.3f}" for name in ("pearson", "depth_partial", "log_likelihood")),
                " / ".join(f"{mean[f'coverage_{n}']:.0%}" for n in LEVELS),
                " / ".join(f"{mean[f'width_{n}']:.2f}" for n in LEVELS),
            ]
            text.append(f"| {' | '.join(cells)} |")
        text.append("")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", nargs="+", choices=list(SPLITS), help="these alone; default: all of the model")
    parser.add_argument("--network", action="store_true", help="fit the network instead of the kernel model")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/donors"))
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    adata, asked = peers.her2st(["B4", *peers.SERIAL])
    h2s.pp.extract_features(adata, "imagenet+morphology", key_added=FEATURES, library_key="library_id")
    name, splits, run, show = "another_donor", tuple(SPLITS), rows_of, table
    if options.network:
        name, splits, run, show = "another_donor_network", NETWORK_SPLITS, network_rows_of, network_table
    found = [row for split in options.split or splits for row in run(split, adata, counts_alone(), asked["genes"])]
    rows = pd.DataFrame(found)
    for folder in [options.out] + ([options.publish] if options.publish else []):
        folder.mkdir(parents=True, exist_ok=True)
        rows.to_csv(folder / f"{name}.csv", index=False, float_format="%.4g")
        (folder / f"{name}.md").write_text(show(rows))
    print(show(rows))


if __name__ == "__main__":
    main()
