"""What the tests of encoders share: the optional libraries, and weights without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@pytest.fixture
def timm():
    """The library timm, or a skip: it is an extra, and its torchvision must be that of torch."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported: {error}")
    return timm


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def random_weights() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """Return a maker of weights for a module: normal, and larger than those of its own start."""

    def make(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(seed)
        return {name: 0.2 * torch.randn(value.shape, generator=rng) for name, value in model.state_dict().items()}

    return make
