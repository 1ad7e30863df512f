"""Expression of a nucleus in GHIST: a mixture of reference profiles, and a correction of it."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F


def perceptron(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """Return a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out))


class MixedExpression(nn.Module):
    """Expression of a nucleus: a mixture of reference profiles (or a free one), and a linear correction of it.

    The original calls the correction the cross-attention of the composition over the mixture, and gives it a sequence
    of length one: each softmax is 1, queries and keys get no gradient, and what is left are four linear maps, exactly.
    The queries and keys are not kept here.
    """

    def __init__(self, n_genes: int, width: int, n_reference: int) -> None:
        super().__init__()
        self.mixture = perceptron(width, width, n_reference or n_genes)
        inner = (nn.Linear(width, width), nn.Linear(width, width))
        self.refine = nn.Sequential(nn.Linear(n_genes, width), *inner, nn.Linear(width, n_genes))
        # The packed projection of queries, keys and values starts as one matrix, (3 width, width), of Xavier's range.
        bound = math.sqrt(6 / (4 * width))
        nn.init.uniform_(inner[0].weight, -bound, bound)
        for layer in inner:
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, profiles: Tensor | None) -> Tensor:
        """Return `(n, G)`, 5 ln(1 + count)."""
        weights = self.mixture(hidden)
        if profiles is None:
            return F.relu(self.refine(F.relu(weights)))
        mixed = weights.softmax(dim=1) @ profiles
        return F.relu(mixed + self.refine(mixed))
