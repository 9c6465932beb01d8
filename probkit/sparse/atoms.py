"""Free variances for the atoms of the kept slices.

A few paths in two or more angles use the diagonal of a Kronecker support: with p paths, p^I atoms
are kept of which p carry signal. Here the atoms of the kept slices get a variance each, by evidence
maximisation with selection on a problem whose only factor holds their columns,

    y = B x + e,  B = (kept columns of A_1) x ... x (kept columns of A_I),

and the model of the larger evidence less the price of its variances is the answer.
Cost: that of a dense problem with prod n_k atoms, n_k being the kept slices.
"""

from __future__ import annotations

import math

from torch import Tensor

from probkit.infer.protocols import State
from probkit.sparse.classic import kronecker_dictionary
from probkit.sparse.evidence import EvidenceProgram
from probkit.sparse.posterior import SparsePosterior
from probkit.sparse.problem import Problem
from probkit.sparse.program import Layout

__all__ = ["AtomProgram", "penalized_evidence"]


class AtomProgram(EvidenceProgram):
    """Evidence maximisation over the atoms of the slices that a recovery of one problem kept.

    Args:
        found: that recovery; its columns are the dictionary.
        y: (1, L, M_1, ..., M_I).
        noise: (1), or None to learn it.
        tolerance: of a climb.
        max_bytes: limit on the dense matrix of the kept atoms.

    Raises:
        ConfigurationError: the matrix would be larger.
    """

    def __init__(
        self,
        found: SparsePosterior,
        y: Tensor,
        noise: Tensor | None,
        *,
        tolerance: float = 1e-6,
        max_bytes: float = 8e9,
    ) -> None:
        columns = kronecker_dictionary(found.factors, max_bytes)
        shape = tuple(a.shape[-1] for a in found.factors)
        layout = Layout((), found.layout["snapshots"], found.layout["order"], shape)
        problem = Problem([columns], y.flatten(2), noise)
        super().__init__(problem, layout, starts=("flat",), tolerance=tolerance)
        self.found = found

    def posterior(self, state: State) -> SparsePosterior:
        """With the atoms at their places among all, and the layout of the recovery."""
        kept = super().posterior(state)
        sizes = self.found.layout["sizes"]
        where = self._places(sizes)
        total = math.prod(sizes)
        mean = kept.mean_grid.new_zeros(*kept.mean_grid.shape[:2], total)
        probability = kept.inclusion[0].new_zeros(1, total)
        kept.mean_grid = mean.index_copy(-1, where, kept.mean_grid)
        kept.inclusion = [probability.index_copy(-1, where, kept.inclusion[0])]
        kept.index = [where[kept.index[0]]]
        kept.layout = {**self.found.layout, "sizes": [total], "shape": sizes}
        return kept

    def _places(self, sizes: list[int]) -> Tensor:
        """Numbers of the kept atoms among all, in C order, (prod n_k)."""
        place = self.found.index[0].new_zeros(1)
        for index, size in zip(self.found.index, sizes, strict=True):
            place = (place.unsqueeze(-1) * size + index[0]).flatten()
        return place


def penalized_evidence(posterior: SparsePosterior, num_data: int) -> float:
    """Log evidence less half the log of the number of data for each variance, of one problem."""
    count = sum(int((g > 0).sum()) for g in posterior.scales)
    return float(posterior.log_evidence.sum()) - 0.5 * math.log(num_data) * count
