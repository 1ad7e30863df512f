"""Heads: from one vector a spot to the parameters of its counts and to its cell type."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hist2scrna.models.contract import LIKELIHOODS, Likelihood, Prediction, TrainingStatistics
from hist2scrna.models.program_rates import ProgramRates

Dispersion = Literal["gene", "spot"]
# Beyond these the likelihood is flat in float32, and a diverging head could not come back.
LOG_MU_BOUNDS = (-18.0, 16.0)
LOG_DISPERSION_BOUNDS = (-7.0, 9.0)
LOGIT_BOUND = 15.0


class ExpressionHeads(nn.Module):
    """Shared heads of the count models: rate, dispersion, dropout, library size, cell type.

    The mean of the count component is `mu = library size x rate`. The library size is that of the batch where it is
    given (training), else the one that the model reads from the tissue.

    Parameters
    ----------
    width
        Width of the vector that the heads read.
    n_genes, n_classes
        Number of genes; number of cell types, 0 for no such head.
    likelihood
        `"zinb"`, `"nb"`, `"poisson"`, or `"mse"` on log-normalized expression.
    dispersion
        `"gene"`: one inverse dispersion a gene, shared by all spots, which few spots can support. `"spot"`: one for
        each gene and spot, as in the first publications.
    n_programs
        Rates are made of so many gene programs, whose loadings are given (:class:`ProgramRates`); 0: of none.

    Raises
    ------
    ValueError
        If the likelihood or the dispersion is not known, or programs are asked of a model without counts.
    """

    reference_log_library: Tensor
    log_library_scale: Tensor

    def __init__(
        self,
        width: int,
        n_genes: int,
        n_classes: int,
        likelihood: Likelihood = "zinb",
        dispersion: Dispersion = "gene",
        n_programs: int = 0,
    ) -> None:
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"Expected `likelihood` to be one of {list(LIKELIHOODS)}, found {likelihood!r}.")
        if dispersion not in ("gene", "spot"):
            raise ValueError(f"Expected `dispersion` to be 'gene' or 'spot', found {dispersion!r}.")
        if n_programs and likelihood == "mse":
            raise ValueError(
                "Gene programs (`n_programs`, which `expression=` sets) make the rates of counts, and likelihood='mse' "
                "has none. Pass likelihood='zinb', 'nb' or 'poisson'."
            )
        self.likelihood: Likelihood = likelihood
        self.rate = ProgramRates(width, n_genes, n_programs) if n_programs else nn.Linear(width, n_genes)
        has_dispersion = likelihood in ("zinb", "nb")
        self.gene_dispersion = nn.Parameter(torch.zeros(n_genes)) if has_dispersion and dispersion == "gene" else None
        self.spot_dispersion = nn.Linear(width, n_genes) if has_dispersion and dispersion == "spot" else None
        self.dropout = nn.Linear(width, n_genes) if likelihood == "zinb" else None
        self.library = nn.Linear(width, 1) if likelihood != "mse" else None
        self.cell_type = nn.Linear(width, n_classes) if n_classes else None
        self.register_buffer("reference_log_library", torch.zeros(()))
        self.register_buffer("log_library_scale", torch.ones(()))
        for head in (self.rate, self.spot_dispersion, self.dropout, self.library):
            if isinstance(head, nn.Linear):
                nn.init.normal_(head.weight, std=0.01)
                nn.init.zeros_(head.bias)

    @torch.no_grad()
    def start_at(self, statistics: TrainingStatistics) -> None:
        """Start at the training data's own gene means, so that training begins at the mean baseline, not at chaos."""
        self.rate.bias.copy_(statistics.mean_log_normalized if self.likelihood == "mse" else statistics.log_rate)
        if isinstance(self.rate, ProgramRates):
            self.rate.start_at(statistics)
        if self.gene_dispersion is not None:
            self.gene_dispersion.copy_(statistics.log_dispersion)
        if self.spot_dispersion is not None:
            self.spot_dispersion.bias.copy_(statistics.log_dispersion)
        if self.dropout is not None:
            nn.init.constant_(self.dropout.bias, -3.0)
        median, deviation = statistics.log_library
        self.reference_log_library.fill_(median)
        self.log_library_scale.fill_(deviation)

    def forward(self, hidden: Tensor, embedding: Tensor, log_library: Tensor | None) -> Prediction:
        """Predict from `(n_core, width)`; `log_library` is `(n_core,)` or None for the model's own."""
        prediction = Prediction(embedding=embedding)
        if self.cell_type is not None:
            prediction.label_logits = self.cell_type(hidden)
        rate = self.rate(hidden).float()
        if self.library is None:
            prediction.value = rate
            return prediction
        predicted = self.library(hidden).float().squeeze(-1) * self.log_library_scale + self.reference_log_library
        prediction.log_library = predicted
        # Detached: an error in the library head must not be paid for by the rates.
        log_library = predicted.detach() if log_library is None else log_library
        prediction.log_mu = (rate + log_library[:, None]).clamp(*LOG_MU_BOUNDS)
        if self.gene_dispersion is not None:
            prediction.log_dispersion = self.gene_dispersion.float().clamp(*LOG_DISPERSION_BOUNDS)
        elif self.spot_dispersion is not None:
            prediction.log_dispersion = self.spot_dispersion(hidden).float().clamp(*LOG_DISPERSION_BOUNDS)
        if self.dropout is not None:
            prediction.dropout_logits = self.dropout(hidden).float().clamp(-LOGIT_BOUND, LOGIT_BOUND)
        return prediction
