"""How long things take, as ratios and growth: encoding, reading, graph, likelihood, models, evaluation.

python benchmarks/speed.py [--parts encoding likelihood ...] [--sizes 1000 4000 16000] [--history speed.jsonl]

Each part runs in a process of its own with one thread, and counts the time of the processor, so that other programs
matter little. What is compared is compared side by side in that process; growth is the exponent of time over the number
of spots, 1 where twice as many take twice as long. Every result is a line of the history, with the commit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

N_FEATURES, GENES, PATCHES, PITCH = 64, 300, 24, 100.0
ROWS, COLUMNS, SHARE_COUNTED = 4096, 2000, 0.18
NETWORK = {"preset": "tiny", "training": {"max_epochs": 1, "validation": 0, "patience": 0}}
MODELS = {"kernel": {}, "ridge": {}, "hist2scrna-lightweight": NETWORK}


def spent(work: Callable[[], object], times: int = 1) -> float:
    """Return the least processor time of a piece of work, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def peak_mb() -> float:
    """Return the most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def exponent(sizes: list[int], seconds: ArrayLike) -> float:
    """Return the slope of the logarithm of time over that of size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def spots(n: int, genes: int = GENES, seed: int = 0) -> ad.AnnData:
    """Return spots in two sections, on square lattices, whose counts follow their features."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, N_FEATURES)).astype(np.float32)
    effect = np.random.default_rng(1).standard_normal((N_FEATURES, genes)) * 0.1
    counts = rng.poisson(np.exp(features @ effect - 1)).astype(np.float32)
    counts[:, 0] += 1
    place = np.arange(n) // 2
    side = int(np.ceil(np.sqrt(n / 2)))
    adata = ad.AnnData(
        sparse.csr_matrix(counts),
        obs={"library_id": np.array(["s0", "s1"])[np.arange(n) % 2]},
        obsm={"X": features, "spatial": np.stack([place % side, place // side], axis=1) * PITCH},
    )
    scale = {"spot_diameter_fullres": 55.0, "mpp": 1.0}
    adata.uns["spatial"] = {name: {"images": {}, "scalefactors": scale} for name in ("s0", "s1")}
    return adata


def part_likelihood(sizes: list[int]) -> dict[str, float]:
    """ZINB forward and backward, 4,096 x 2,000, 18 % above zero, against the formula differentiated step by step."""
    import torch
    from torch.nn.functional import softplus

    from hist2scrna.zinb import ZINB

    generator = torch.Generator().manual_seed(0)
    rate = torch.full((ROWS, COLUMNS), -float(np.log1p(-SHARE_COUNTED)))
    x = torch.poisson(rate, generator=generator)
    given = [torch.randn(shape, generator=generator) for shape in ((ROWS, COLUMNS), (COLUMNS,), (ROWS, COLUMNS))]
    parameters = [tensor.requires_grad_() for tensor in given]

    def plain() -> torch.Tensor:
        log_mu, log_theta, logits = parameters
        theta, log_total = log_theta.exp(), torch.logaddexp(log_mu, log_theta)
        at_zero = theta * (log_theta - log_total)
        counted = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1) + x * (log_mu - log_total)
        value = torch.where(
            x > 0, -softplus(logits) + counted + at_zero, softplus(at_zero - logits) - softplus(-logits)
        )
        return -value.mean()

    def ours() -> torch.Tensor:
        return -ZINB(*parameters).log_prob(x).mean()

    def saved_tables(loss: Callable[[], torch.Tensor]) -> float:
        kept: dict[int, int] = {}
        pack = lambda tensor: kept.update({tensor.data_ptr(): tensor.nbytes}) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss()
        return sum(kept.values()) / x.nbytes

    return {
        "time, of the plain formula": spent(lambda: ours().backward(), 3) / spent(lambda: plain().backward(), 3),
        "tables kept": saved_tables(ours),
        "tables kept by the plain formula": saved_tables(plain),
    }


def part_encoding(sizes: list[int]) -> dict[str, float]:
    """Built-in encoder, 896 px: two looks against torch without a runtime; reading; again from the cache."""
    import torch

    import hist2scrna as h2s
    from hist2scrna.encoders import prepare_encoder
    from hist2scrna.encoders.compiled import compiled_on
    from hist2scrna.fitting.augment import ImageVariation, StainVariation
    from hist2scrna.fitting.encode import encode_patches
    from hist2scrna.fitting.look import Look
    from hist2scrna.spots.patches import encoder_patch_size
    from hist2scrna.spots.read import read_spots
    from hist2scrna.spots.sections import open_sections
    from hist2scrna.spots.source import Source

    (section,) = h2s.datasets.simulate(n_sections=1, n_spots=64, seed=0)
    encoder, cpu = prepare_encoder("imagenet+morphology"), torch.device("cpu")
    read = read_spots(open_sections(section, Source("library_id")), patch=encoder_patch_size(encoder))
    members = np.arange(min(PATCHES, len(read)))
    assert read.patches is not None and read.geometry is not None
    patches = torch.from_numpy(read.patches.cut(members))
    compiled_on(encoder, cpu, "32-true", px=read.geometry.px, n_patches=1000)
    looks = [Look.of(variation, read, 0) for variation in (StainVariation(), ImageVariation())]

    def encode() -> None:
        encode_patches(encoder, read, members, batch_size=16, device=cpu, progress=False, looks=looks)

    with encoder.on(cpu, "32-true"), torch.no_grad():
        eager = spent(lambda: encoder.encode(patches, read.geometry.um))
    both, cut = spent(encode), spent(lambda: read.patches.cut(members))
    with tempfile.TemporaryDirectory() as folder:
        h2s.settings.cache_dir = folder
        encode()
        again = spent(encode)
    return {
        "two looks, of two in torch": both / (2 * eager),
        "reading, share of two looks": cut / both,
        "again from the cache, of two looks": again / both,
    }


def part_graph(sizes: list[int]) -> dict[str, float]:
    """Neighbors on a lattice."""
    from hist2scrna.spots.graph import Neighbors, build_graph

    build = [spots(n, 2) for n in (sizes[0], *sizes)]
    seconds = []
    for adata in build:
        code = (adata.obs["library_id"] == "s1").to_numpy(dtype=np.int64)
        seconds.append(
            spent(lambda a=adata, c=code: build_graph(a, a.obsm["spatial"], c, ("s0", "s1"), Neighbors(), None))
        )
    return {"growth": exponent(sizes, seconds[1:])}


def part_models(sizes: list[int]) -> dict[str, float]:
    """Every model on features: fit, predict, evaluate."""
    import hist2scrna as h2s

    h2s.settings.verbosity = "error"
    found: dict[str, float] = {}
    for name in MODELS:
        seconds = np.array([_model_seconds(name, n) for n in (sizes[0], *sizes)])[1:]
        for what, values in zip(("fit", "predict", "evaluate"), seconds.T, strict=True):
            found[f"{name}: growth of {what}"] = exponent(sizes, values)
        found[f"{name}: predict, of fit"] = seconds[-1, 1] / seconds[-1, 0]
    return found


def _model_seconds(name: str, n: int) -> tuple[float, float, float]:
    """Return the time of fit, prediction and evaluation of a model on so many spots."""
    import hist2scrna as h2s

    adata = spots(n)
    fitted: list[h2s.TrainedModel] = []

    def fit() -> None:
        fitted.append(h2s.tl.fit(adata, model=name, features_key="X", progress=False, **MODELS[name]))

    return (
        spent(fit),
        spent(lambda: h2s.tl.predict(adata, fitted[0], progress=False)),
        spent(lambda: h2s.tl.evaluate(adata, fitted[0], progress=False)),
    )


PARTS = {name.removeprefix("part_"): part for name, part in list(globals().items()) if name.startswith("part_")}


def main() -> None:
    """Run each part in a process of its own, print what it found, and add it to the history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 4000, 16000])
    parser.add_argument("--history", type=Path, help="a file of JSON lines to which the results are added")
    parser.add_argument("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        import torch

        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        found = PARTS[options.one](options.sizes)
        print(json.dumps({**found, "peak MB": peak_mb()}))
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for name in options.parts:
        command = [sys.executable, __file__, "--one", name, "--sizes", *map(str, options.sizes)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=one_thread)
        found = json.loads(run.stdout.splitlines()[-1])
        for what, value in found.items():
            print(f"{name:12s} {what:45s} {value:8.2f}", flush=True)
        if options.history is not None:
            with options.history.open("a", encoding="utf-8") as history:
                history.write(json.dumps({"part": name, "commit": commit, "sizes": options.sizes, **found}) + "\n")


if __name__ == "__main__":
    main()
