"""What `model="auto"` should choose by the number of spots: kernel, hist2scrna-lightweight, and the mean of both.

python benchmarks/choice.py [--sizes 1000 5000 20000] [--preset small] [--epochs 50] [--lr 1e-4] [--from-neighbors 0.3]

Simulated sections without a picture, features alone: four to train on, of a size that is varied, and two that are
scored, of one donor. What features show is nonlinear in the states of a spot, of which some are smooth over the section
and some the spot's own; sections differ in stain. Expression follows eight programs, nonlinear in these states, and,
for a share of their variance (`--from-neighbors`), in the mean states of the neighbors. Prints Pearson and
depth-partial Pearson on log-normalized expression, mean over genes and sections, the log-likelihood of a count, and the
processor time of the fit, with one thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass

import anndata as ad
import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree

import hist2scrna as h2s
from hist2scrna.zinb import ZINB

N_FEATURES, N_SMOOTH, N_OWN, N_PROGRAMS, N_TRAINING, N_SCORED, SCORED_SPOTS = 128, 6, 4, 8, 4, 2, 2500
# Width in spots of what is smooth; deviation of stain and noise; inverse dispersion.
WIDTH, STAIN, NOISE, THETA = 6.0, 0.3, 0.7, 3.0
LAYERS = ["mean", "mu", "dispersion", "dropout", "log_normalized"]


@dataclass(frozen=True)
class World:
    """What is the same in all sections: how states look, and what they do to genes."""

    look: tuple[np.ndarray, np.ndarray]
    own: tuple[np.ndarray, np.ndarray]
    near: tuple[np.ndarray, np.ndarray]
    loadings: np.ndarray
    rate: np.ndarray
    from_neighbors: float

    @classmethod
    def draw(cls, genes: int, from_neighbors: float, rng: np.random.Generator) -> World:
        """Draw one; `from_neighbors` is the share of the programs' variance that neighbors tell."""
        n = N_SMOOTH + N_OWN

        def layers(out: int) -> tuple[np.ndarray, np.ndarray]:
            return rng.normal(0, 1.2 / np.sqrt(n), (n, 32)), rng.normal(0, 1 / np.sqrt(32), (32, out))

        loadings = rng.normal(0, 0.35, (N_PROGRAMS, genes))
        maps = layers(N_FEATURES), layers(N_PROGRAMS), layers(N_PROGRAMS)
        return cls(*maps, loadings, rng.gamma(1.0, 0.6, genes), from_neighbors)

    def section(self, name: str, n: int, rng: np.random.Generator) -> ad.AnnData:
        """Return a section of spots on a square lattice."""
        side = int(np.ceil(np.sqrt(n)))
        xy = np.stack([np.arange(n) % side, np.arange(n) // side], axis=1).astype(float)
        # Waves of random direction make a smooth Gaussian field.
        waves = rng.normal(0, 1 / WIDTH, (2, 64 * N_SMOOTH))
        smooth = np.cos(xy @ waves + rng.uniform(0, 2 * np.pi, 64 * N_SMOOTH)).reshape(n, N_SMOOTH, 64).sum(axis=2)
        states = np.concatenate([smooth / np.sqrt(32), rng.standard_normal((n, N_OWN))], axis=1)
        around = states[cKDTree(xy).query(xy, 5)[1][:, 1:]].mean(axis=1)
        seen = standard(hidden(states, self.look)) + rng.normal(0, STAIN, N_FEATURES)
        features = seen + rng.normal(0, NOISE, seen.shape)
        programs = np.sqrt(1 - self.from_neighbors) * standard(hidden(states, self.own))
        programs += np.sqrt(self.from_neighbors) * standard(hidden(around, self.near))
        depth = 0.2 * states[:, 0] + rng.normal(0, 0.3, n)
        mu = np.exp(programs @ self.loadings + depth[:, None]) * self.rate
        counts = rng.poisson(rng.gamma(THETA, mu / THETA)).astype(np.float32)
        counts[counts.sum(axis=1) == 0, 0] = 1
        adata = ad.AnnData(sparse.csr_matrix(counts), obs={"library_id": np.repeat(name, n)})
        adata.obs_names = [f"{name}-{i}" for i in range(n)]
        adata.obsm.update({"X": features.astype(np.float32), "spatial": 100 * xy})
        scale = {"spot_diameter_fullres": 55.0, "mpp": 1.0}
        adata.uns["spatial"] = {name: {"images": {}, "scalefactors": scale}}
        return adata


def hidden(states: np.ndarray, layers: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return what a small network with fixed weights makes of states."""
    return np.tanh(2 * states @ layers[0]) @ layers[1]


def standard(values: np.ndarray) -> np.ndarray:
    """Return columns in standard deviations."""
    return (values - values.mean(axis=0)) / values.std(axis=0)


def scores(section: ad.AnnData, predicted: list[ad.AnnData]) -> np.ndarray:
    """Return Pearson, depth-partial Pearson and log-likelihood of the mean of predictions, or of the one."""
    truth = h2s.metrics.log_normalize(section.X).toarray()
    log = np.mean([p.layers["hist2scrna_log_normalized"] for p in predicted], axis=0)
    library = np.asarray(section.X.sum(axis=1)).ravel()
    counts = torch.from_numpy(section.X.toarray()).double()
    each = [log_likelihood(counts, p) for p in predicted]
    mixture = torch.logsumexp(torch.stack(each), dim=0) - np.log(len(each))
    return np.array(
        [
            np.nanmean(h2s.metrics.pearson_by_gene(truth, log)),
            np.nanmean(h2s.metrics.depth_partial_pearson(truth, log, library)),
            float(mixture.mean()),
        ]
    )


def log_likelihood(counts: torch.Tensor, predicted: ad.AnnData) -> torch.Tensor:
    """Return the log-likelihood of each count."""
    mu, theta, pi = (
        torch.from_numpy(np.asarray(predicted.layers[f"hist2scrna_{name}"])).double()
        for name in ("mu", "dispersion", "dropout")
    )
    return ZINB(mu.log(), theta.log(), torch.logit(pi, 1e-7)).log_prob(counts)


def main() -> None:
    """Fit and score both models at each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 5000, 20_000])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--epochs", nargs="+", type=int, default=[50], help="one for all sizes, or one for each")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--from-neighbors", type=float, default=0.3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    h2s.settings.verbosity = "error"
    world = World.draw(options.genes, options.from_neighbors, np.random.default_rng(0))
    scored = [world.section(f"scored{i}", SCORED_SPOTS, np.random.default_rng(100 + i)) for i in range(N_SCORED)]
    print(f"{'spots':>8s}  {'model':24s} {'Pearson':>8s} {'partial':>8s} {'log p':>8s} {'seconds':>8s}")
    epochs = options.epochs * len(options.sizes) if len(options.epochs) == 1 else options.epochs
    for size, most in zip(options.sizes, epochs, strict=True):
        parts = [world.section(f"s{i}", size // N_TRAINING, np.random.default_rng(i)) for i in range(N_TRAINING)]
        train = h2s.io.concat(parts)
        network = {"max_epochs": most, "lr": options.lr, "batch_size": options.batch_size}
        given = {"kernel": {}, "hist2scrna-lightweight": {"preset": options.preset, "training": network}}
        predicted: list[list[ad.AnnData]] = []
        for name, arguments in given.items():
            start = time.process_time()
            model = h2s.tl.fit(train, model=name, features_key="X", progress=False, **arguments)
            seconds = time.process_time() - start
            donor = {"another_donor": False} if name == "kernel" else {}
            where = {"layers": LAYERS, "progress": False, "copy": True, **donor}
            predicted.append([h2s.tl.predict(section, model, **where) for section in scored])
            show(size, name, scored, [[p] for p in predicted[-1]], f"{seconds:8.0f}")
        show(size, "mean of both", scored, [list(both) for both in zip(*predicted, strict=True)], "")


def show(size: int, name: str, scored: list[ad.AnnData], predicted: list[list[ad.AnnData]], seconds: str) -> None:
    """Print a line."""
    mean = np.mean([scores(section, each) for section, each in zip(scored, predicted, strict=True)], axis=0)
    print(f"{size:8,d}  {name:24s} {mean[0]:8.3f} {mean[1]:8.3f} {mean[2]:8.4f} {seconds}", flush=True)


if __name__ == "__main__":
    main()
