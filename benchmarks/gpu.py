"""What a GPU gives: spots a second, utilization, peak memory of `hist2scrna`; encoders; ZINB against its floor.

python benchmarks/gpu.py [--device cuda] [--presets small base] [--batch 256] [--json gpu.json] [--quick]

For a machine with torch, torch_geometric and lightning alone: run it from a checkout with PYTHONPATH=. ; packages that
the machine lacks are replaced by stand-ins, which nothing that is measured calls. Patches are of noise, in the memory
of the device, so that no reader is measured. Utilization is the floating-point operations of products and convolutions
(as `torch.utils.flop_counter` counts them; of training those of the backward pass too) a second, of the rate of a large
product in bfloat16, which is measured first. The floor of ZINB is the time in which its tables are read once and its
gradients written once at the bandwidth of a copy, also measured.

It has not been run on a GPU yet; a test runs it by `--device cpu --quick`, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import json
import statistics
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hist2scrna.models.contract import SpotBatch, SpotModel

GENES, CLASSES, ROWS, COLUMNS = 2000, 8, 4096, 2000
LACKING = ("lazy_loader", "safetensors", "scipy")
QUICK = {"batch": 4, "presets": ["tiny"], "product": 256, "rows": 64, "repeats": 2, "px": 256}
FULL = {"product": 8192, "rows": ROWS, "repeats": 20, "px": 896}


class StandIn(types.ModuleType):
    """A module of which any name may be imported; nothing of it can be called."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}")


def attach(package: str, submodules: Any = (), submod_attrs: Any = ()) -> tuple[Any, Any, list[str]]:
    """Look names of a package up in its modules when they are asked for, as lazy_loader does."""
    where = {name: module for module, names in dict(submod_attrs).items() for name in names}

    def find(name: str) -> Any:
        if name in where:
            return getattr(importlib.import_module(f"{package}.{where[name]}"), name)
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: list(where), list(where)


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what nobody else does, of the packages that importing our modules asks for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return how a package that is lacking is loaded."""
        known = name.partition(".")[0] in LACKING
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return the stand-in."""
        module = StandIn(spec.name)
        if spec.name == "lazy_loader":
            module.attach = attach
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Run nothing."""


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of a piece of work, after two runs that are not counted."""
    taken = []
    for number in range(repeats + 2):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        if number > 1:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_gib(device: torch.device, work: Callable[[], object]) -> float | None:
    """Return the most memory of the device that a piece of work takes; None where it is not counted."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 2**30


def operations(work: Callable[[], object]) -> int:
    """Return the floating-point operations of products and convolutions in a piece of work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def product_rate(n: int, device: torch.device, repeats: int) -> float:
    """Return the operations a second of a product of two square bfloat16 matrices."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b, device, repeats)


def bandwidth(device: torch.device, repeats: int, megabytes: int) -> float:
    """Return the bytes a second that a copy reads and writes together."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device, repeats)


def lattice_batch(n: int, px: int, device: torch.device) -> SpotBatch:
    """Return neighboring spots on a square lattice, all of them core, with patches and counts of noise."""
    from hist2scrna.models.contract import SpotBatch

    side = int(n**0.5) + 1
    place = torch.arange(n)
    right = place[(place % side < side - 1) & (place + 1 < n)]
    below = place[place + side < n]
    one_way = torch.cat([torch.stack([right, right + 1]), torch.stack([below, below + side])], dim=1)
    counts = torch.poisson(torch.full((n, GENES), 0.3)) + 1
    batch = SpotBatch(
        n_core=n,
        xy=torch.stack([place % side, place // side], dim=1).float(),
        edge_index=torch.cat([one_way, one_way.flip(0)], dim=1),
        section=torch.zeros(n, dtype=torch.int64),
        patches=torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8),
        counts=counts,
        log_library=counts.sum(dim=1).log(),
        label=place % CLASSES,
    )
    return batch.to(device)


def training_step(model: SpotModel, batch: SpotBatch, device: torch.device) -> Callable[[], None]:
    from hist2scrna.fitting.objective import Objective

    optimizer, objective = torch.optim.AdamW(model.parameters(), lr=1e-4), Objective()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            prediction = model(batch)
        objective(prediction, batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def of_model(preset: str, how: dict[str, Any], device: torch.device, rate: float) -> Iterator[dict[str, Any]]:
    """Yield what training and prediction of a preset at 224 px give."""
    from hist2scrna.models.hist2scrna import Hist2scRNA
    from hist2scrna.models.registry import model_entry

    options = model_entry("hist2scrna").presets[preset]
    model = Hist2scRNA(GENES, CLASSES, **options).to(device)
    batch = lattice_batch(how["batch"], options.get("patch_px", 224), device)

    @torch.no_grad()
    def predict() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            model(batch)

    for what, work in (("training", training_step(model.train(), batch, device)), ("prediction", predict)):
        model.train(what == "training")
        taken, counted = seconds(work, device, how["repeats"]), operations(work)
        yield {
            "what": f"hist2scrna {preset}: {what}",
            "spots/s": how["batch"] / taken,
            "utilization": counted / taken / rate,
            "peak GiB": peak_gib(device, work),
        }


@torch.no_grad()
def of_encoders(how: dict[str, Any], device: torch.device, rate: float) -> Iterator[dict[str, Any]]:
    """Yield what the built-in networks give, on patches of three fields of view and on tiles; weights are random."""
    from hist2scrna.encoders.imagenet import ImageNetPair, JoinedMaps, imagenet_encoder

    pair, encoder = ImageNetPair().eval().to(device), imagenet_encoder(pretrained=False)
    patches = torch.randint(0, 256, (how["batch"], 3, how["px"], how["px"]), dtype=torch.uint8, device=device)
    tile = torch.randn(1, 3, how["px"], how["px"], device=device)
    maps = JoinedMaps(pair)

    def encode() -> list[Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            return [pair(view) for view in encoder.views(patches)]

    def encode_tile() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return maps(tile)

    for what, work, n in (("patches", encode, how["batch"]), ("tiles", encode_tile, 1)):
        taken = seconds(work, device, how["repeats"])
        yield {
            "what": f"imagenet: {what} of {how['px']} px",
            "spots/s": n / taken,
            "utilization": operations(work) / taken / rate,
            "peak GiB": peak_gib(device, work),
        }


def of_zinb(how: dict[str, Any], device: torch.device, copied: float) -> dict[str, Any]:
    """Return the time of the likelihood and its gradient, of the time of its tables at the bandwidth of a copy."""
    from hist2scrna.zinb.distribution import ZINB

    shape = (how["rows"], COLUMNS)
    x = torch.poisson(torch.full(shape, 0.2)).to(device)
    log_mu, logits = (torch.randn(shape, device=device, requires_grad=True) for _ in range(2))
    log_theta = torch.randn(COLUMNS, device=device, requires_grad=True)

    def work() -> None:
        log_mu.grad = logits.grad = log_theta.grad = None
        (-ZINB(log_mu, log_theta, logits).log_prob(x).mean()).backward()

    # Counts, means and logits are read; the gradients of means and logits are written.
    floor = 5 * x.nbytes / copied
    taken = seconds(work, device, how["repeats"])
    return {
        "what": f"ZINB, {shape[0]:,} x {shape[1]:,}, forward and backward",
        "times the floor": taken / floor,
        "peak GiB": peak_gib(device, work),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--presets", nargs="+", default=["small", "base"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--quick", action="store_true", help="try whether it runs, with small sizes")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu --quick tries whether the benchmark runs")
    # These ask what else is there before the stand-ins are.
    importlib.import_module("lightning")
    importlib.import_module("torch_geometric.nn")
    sys.meta_path.append(StandIns())
    torch.manual_seed(0)
    how = {"batch": options.batch, "presets": options.presets, **FULL, **(QUICK if options.quick else {})}
    device = torch.device(options.device)
    rate = product_rate(how["product"], device, how["repeats"])
    copied = bandwidth(device, how["repeats"], 16 if options.quick else 1024)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    print(f"{name}: products {rate / 1e12:.3g} TFLOP/s in bfloat16, copies {copied / 1e9:.3g} GB/s")
    rows = [row for preset in how["presets"] for row in of_model(preset, how, device, rate)]
    rows += [*of_encoders(how, device, rate), of_zinb(how, device, copied)]
    for row in rows:
        facts = "  ".join(f"{key} {value:.3g}" for key, value in row.items() if key != "what" and value is not None)
        print(f"{row['what']:50s} {facts}")
    if options.json is not None:
        found = {"device": name, "product flop/s": rate, "copy bytes/s": copied, "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
