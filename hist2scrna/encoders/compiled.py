"""The frozen network of an encoder on a CPU, compiled by OpenVINO: the same features, several times as fast."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hist2scrna.encoders.encoder import WITH_MORPHOLOGY

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from hist2scrna.encoders.encoder import Encoder
    from hist2scrna.encoders.precision import Precision

log = logging.getLogger(__name__)

# Pixels of all patches from which on to compile takes less time than it saves: ten patches of 896 pixels a side.
WORTHWHILE = 8_000_000
# Largest difference from torch, as a share of the largest feature: rounding adds up to some 1e-5 in deep networks.
TOLERANCE = 1e-3
# Networks by name, weights and side; None where OpenVINO could not compile one.
_COMPILED: dict[tuple[str, str, int], CompiledNetwork | None] = {}


class CompiledNetwork:
    """A network compiled for one patch of one size at a time, as many at once as torch has threads.

    One patch a request stays in the cache of its core, and scales with the cores; a batch does neither.

    Parameters
    ----------
    network
        The network, on the CPU, in eval mode.
    example
        A normalized patch `(1, 3, h, w)` of the size that it will be given.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with torch.no_grad(), warnings.catch_warnings():
            # Sizes become constants, as they shall: the network is compiled for this one.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))
            # The frontend itself, and not `convert_model`, which reports each use to its maker.
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced, skip_freeze=True)
            graph = frontend.convert(frontend.load(decoder))
        graph.reshape(list(example.shape))
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = openvino.Core().compile_model(graph, "CPU", settings)
        self.shape = tuple(int(edge) for edge in compiled.output(0).shape[1:])
        self.queue = openvino.AsyncInferQueue(compiled)

    def __call__(self, patches: Tensor) -> Tensor:
        """Map normalized patches `(n, 3, h, w)` to features `(n, width)`, or to maps, float32."""
        features: NDArray[np.float32] = np.empty((len(patches), *self.shape), dtype=np.float32)

        def keep(request: Any, place: int) -> None:
            features[place] = request.get_output_tensor(0).data[0]

        self.queue.set_callback(keep)
        for place, patch in enumerate(patches.float().contiguous().numpy()):
            self.queue.start_async([patch[None]], place)
        self.queue.wait_all()
        return torch.from_numpy(features)


def compiled_on(encoder: Encoder, device: torch.device, precision: Precision, *, px: int, n_patches: int) -> Encoder:
    """Return the encoder with its network compiled, where that pays and OpenVINO can; else as it is.

    That is on a CPU, in float32, and for encoders by name, whose weights nobody changes: a compiled network is kept as
    long as the process lives. Each is compared with torch on one patch first.

    Parameters
    ----------
    encoder
        The encoder.
    device, precision
        Where it computes, and in what.
    px
        Side of the patches.
    n_patches
        How many it is about to encode: for a few, compiling takes longer than it saves.
    """
    module = encoder.module
    if module is None or not encoder.by_name or device.type != "cpu" or precision != "32-true":
        return encoder
    # With features by hand or without, the network is one.
    key = (encoder.name.removesuffix(WITH_MORPHOLOGY), encoder.sha256, px)
    if key not in _COMPILED:
        if n_patches * px**2 < WORTHWHILE:
            return encoder
        _COMPILED[key] = _compile(encoder, module, px // encoder.widest)
    compiled = _COMPILED[key]
    return encoder if compiled is None else replace(encoder, network=compiled)


def _compile(encoder: Encoder, module: nn.Module, side: int) -> CompiledNetwork | None:
    example = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0)) * 2 - 1
    try:
        compiled = CompiledNetwork(module, example)
    except Exception as error:  # noqa: BLE001 -- a faster way that fails must not stop the slower one
        log.info("Encoder %r runs in torch: OpenVINO could not compile it (%s)", encoder.name, error)
        return None
    with torch.no_grad():
        expected = module(example)
    off = float((compiled(example) - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if off > TOLERANCE:
        log.info("Encoder %r runs in torch: compiled by OpenVINO, its features differ by %.1e", encoder.name, off)
        return None
    log.debug("Encoder %r runs in OpenVINO", encoder.name)
    return compiled
