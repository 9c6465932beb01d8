"""Random waves after a Johnson-Lindenstrauss reduction: O(d k + m k) a record instead of O(m d).

With A of k x d random signs, z = A x / sqrt(k) has norms and distances of x up to a relative error
of about sqrt(1 / (2 k)), so that waves of the k-dimensional law answer the kernel of the reduced
records: a bias that more waves do not lower, in exchange for k of some dozens in place of a large
d. Only kernels of the l2 distance survive the reduction. Structured waves (``structured_waves``)
are as quick without that bias; this one is the paper's.

All stays a function of the record alone in whole numbers: A x is an exact integer product, rounded
to the quanta of the reduced record.

Sources: Achlioptas, J. Comput. Syst. Sci. 66 (2003), random signs; Backurs et al., ICLR 2024,
sec. 5. Integer form: ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probkit.similarity.design import quantise
from probkit.similarity.waves import QUANTA, RECORD_BITS, Signed, Waves, random_signs

__all__ = ["ReducedWaves"]

_ROWS = 4096


class ReducedWaves(Signed):
    """m integer waves in k dimensions of records in d.

    Args:
        waves: (m, k) angular frequencies, float64.
        dim: d.
        bandwidth: the smallest length that must be resolved.
        center: (d,) middle of the domain.
        seed: public; of the signs.
        signs: (k, d) of plus and minus one; None to draw them.

    Example:
        >>> waves = torch.ones(5, 8, dtype=torch.float64)
        >>> reduced = ReducedWaves(waves, 100, 1.0, torch.zeros(100, dtype=torch.float64), 0)
        >>> reduced.sums(torch.zeros(3, 100)).shape, reduced.frequencies.shape
        (torch.Size([5, 2]), torch.Size([5, 100]))
    """

    def __init__(
        self,
        waves: Tensor,
        dim: int,
        bandwidth: float,
        center: Tensor,
        seed: int,
        signs: Tensor | None = None,
    ) -> None:
        self.num, self.reduced_dim = waves.shape
        self.dim, self.center = dim, center
        self.quantum = bandwidth / QUANTA
        # sums of d coordinates must stay below 2^53
        self._limit = 2 ** min(RECORD_BITS, 52 - math.ceil(math.log2(dim)))
        self._signs = random_signs((self.reduced_dim, dim), seed, signs)
        # whole sums of quanta are coarsened to about one quantum of the reduced record
        self._coarse = float(max(1, round(math.sqrt(self.reduced_dim))))
        self._unit = self.quantum * self._coarse / math.sqrt(self.reduced_dim)
        origin = torch.zeros(self.reduced_dim, dtype=torch.float64)
        self._inner = Waves(waves, self._unit * QUANTA, origin)

    @property
    def frequencies(self) -> Tensor:
        """(m, d) angular frequencies as realised, of unreduced records."""
        return self._inner.frequencies @ self._signs / math.sqrt(self.reduced_dim)

    def sums(self, records: Tensor) -> Tensor:
        """Sums over the records of (cos, sin), int64 (m, 2)."""
        total = torch.zeros(self.num, 2, dtype=torch.int64, device=records.device)
        for part in records.split(_ROWS):
            total += self._inner.sums(self._reduced(part))
        return total

    def pairs(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """Integer (cos, sin) of every record, two int32 (B, m)."""
        return self._inner.pairs(self._reduced(records))

    def real_pairs(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin) of the same waves at points that need not be rounded, (Q, m) float64."""
        centred = (points - self.center.to(points)).to(torch.float64)
        short = centred @ self._signs.mT.to(centred) / math.sqrt(self.reduced_dim)
        return self._inner.real_pairs(short)

    def _reduced(self, records: Tensor) -> Tensor:
        """(B, k) reduced records, whole multiples of their quantum."""
        centred = records.to(torch.float64) - self.center.to(records.device)
        whole = quantise(centred, self.quantum, self._limit)
        sums = whole @ self._signs.mT.to(whole.device)  # exact: integers below 2^53
        return torch.floor(sums / self._coarse + 0.5) * self._unit
