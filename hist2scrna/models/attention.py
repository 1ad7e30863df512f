"""What a model attends to, taken from its own pass: weights between neighboring spots, roll-out within a patch."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hist2scrna.models.contract import Prediction, SpotBatch, SpotModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ASK = "return_attention_weights"


def graph_attention_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that give their attention weights when asked, as those of PyTorch Geometric do.

    That is any module whose `forward` takes `return_attention_weights`, and then returns its output and
    `(edge_index, weights)`: `(2, e)` source and target of each edge, self loops included, and `(e, heads)`.
    """
    return [module for module in model.modules() if ASK in inspect.signature(module.forward).parameters]


def attention_rollout(layers: Sequence[Tensor]) -> Tensor:
    """Trace how far the class token draws on each token of the patch, through all layers.

    Roll-out: Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, equation 1. Each layer passes on
    `0.5 A + 0.5 I`, half by attention and half by the residual connection; the layers' matrices are multiplied.

    Parameters
    ----------
    layers
        Attention weights averaged over heads, `(n, t, t)` each, first layer first; row: the token that attends. The
        class token is the first.

    Returns
    -------
    `(n, t - 1)`, the class token's row without the class token itself, summing to 1; zeros if it draws on nothing else.
    """
    last = layers[-1]
    row = torch.zeros_like(last[:, :1])
    row[:, :, 0] = 1
    # Only the class token's row is read at the end: a vector times a matrix, from the last layer to the first.
    for weights in reversed(layers):
        row = 0.5 * row @ weights + 0.5 * row
    drawn = row[:, 0, 1:]
    return drawn / drawn.sum(dim=1, keepdim=True).clamp(min=torch.finfo(drawn.dtype).tiny)


def explicit_weights(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the weights `(..., t, t)` with which `scaled_dot_product_attention` of these arguments mixes the values.

    What is mixed is the identity matrix in place of the values, so that the result is the weights themselves, by the
    very function that the model calls; in float32 or wider.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    tokens = key.shape[-2]
    identity = torch.eye(tokens, dtype=wide, device=key.device).expand(*key.shape[:-1], tokens)
    with torch.autocast(query.device.type, enabled=False):
        return F.scaled_dot_product_attention(query.to(wide), key.to(wide), identity, *args, **kwargs)


class FusedAttention(TorchFunctionMode):
    """Within it, each call of `scaled_dot_product_attention` leaves its weights, which the fused kernel does not give.

    Attributes
    ----------
    layers
        `(n, t, t)` weights of each call, averaged over heads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function as it is, and also compute the weights that it does not return."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.layers.append(explicit_weights(*args, **kwargs).mean(dim=1))
        return func(*args, **kwargs)


@contextlib.contextmanager
def graph_weights(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Within it, each graph attention layer leaves its edges `(2, e)` and their weights `(e,)`, averaged over heads."""
    layers: list[tuple[Tensor, Tensor]] = []

    def ask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, ASK: True}

    def keep(module: nn.Module, args: Any, output: Any) -> Tensor:
        result, (edges, weights) = output
        layers.append((edges, weights.flatten(1).mean(dim=1)))
        return result

    handles = []
    for layer in graph_attention_layers(model):
        handles += [layer.register_forward_pre_hook(ask, with_kwargs=True), layer.register_forward_hook(keep)]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


class AttentionRecorder(SpotModel):
    """A model as it is, that keeps what it attends to.

    Its passes are those of the model, number for number; the weights are computed in addition.

    Attributes
    ----------
    tokens
        `(n, d)` of each call of `encode`, on the CPU.
    rollouts
        `(n, t)` of each call of `encode`, by :func:`attention_rollout`, on the CPU; empty without a vision transformer.
    graph_layers
        Edges `(2, e)` and weights `(e,)` of each graph attention layer, of the last call of `decode`.
    """

    def __init__(self, model: SpotModel) -> None:
        super().__init__()
        self.model = model
        self.context, self.needs, self.likelihood = model.context, model.needs, model.likelihood
        self.has_patch_attention = model.token_grid is not None
        self.tokens: list[Tensor] = []
        self.rollouts: list[Tensor] = []
        self.graph_layers: list[tuple[Tensor, Tensor]] = []

    def encode(self, batch: SpotBatch) -> Tensor:
        """Encode as the model does."""
        if self.has_patch_attention:
            with FusedAttention() as fused:
                tokens = self.model.encode(batch)
            self.rollouts.append(attention_rollout(fused.layers).cpu())
        else:
            tokens = self.model.encode(batch)
        self.tokens.append(tokens.float().cpu())
        return tokens

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict as the model does."""
        with graph_weights(self.model) as self.graph_layers:
            return self.model.decode(tokens, batch)
