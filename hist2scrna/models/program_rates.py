"""Rates made of gene programs: a network tells how far each is on, and counts alone told what each does to genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from hist2scrna.models.contract import TrainingStatistics


class ProgramRates(nn.Module):
    r"""Log rates that are linear in the scores of a few gene programs.

    .. math:: \log r_{ig} = b_g + \sum_{q=0}^{p} w_{gq} s_{iq}, \qquad s_i = S v_i + s_0

    Scores :math:`s` are read from the last hidden layer :math:`v`, and learned, as is the intercept :math:`b`; loadings
    :math:`w` are those that the counts told before training, and stay. The first score is depth: its loadings are what
    the log library size does to the share of a gene.

    Parameters
    ----------
    width
        Width of the vector that scores are read from.
    n_genes, n_programs
        Number of genes, and of programs beside depth.
    """

    loadings: Tensor

    def __init__(self, width: int, n_genes: int, n_programs: int) -> None:
        super().__init__()
        self.scores = nn.Linear(width, 1 + n_programs)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.zeros_(self.scores.bias)
        self.bias = nn.Parameter(torch.zeros(n_genes))
        # A row a gene, as in a linear map.
        self.register_buffer("loadings", torch.zeros(n_genes, 1 + n_programs))

    @torch.no_grad()
    def start_at(self, statistics: TrainingStatistics) -> None:
        """Take the loadings that the counts tell."""
        if statistics.program_loadings is not None:
            self.loadings.copy_(statistics.program_loadings)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `(n, width)` to log rates, `(n, n_genes)`."""
        return F.linear(self.scores(hidden), self.loadings, self.bias)
