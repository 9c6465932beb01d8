"""Random waves by fast transforms: O(m log d) a record instead of O(m d).

With H the Walsh-Hadamard matrix of size p >= d, a power of two, and random signs D1, D2,

    w_j = c_j (row j of H D2 H D1),    c_j = norm_j / p,

norm_j drawn as the norm of a wave of the wanted law. Rows of H D2 H are orthogonal with norm p, and
their coordinates are nearly normal, so the waves have the right norms and nearly isotropic,
mutually orthogonal directions: m waves take m / p blocks with signs of their own. The bias against
the exact law falls with d; below a few dozen coordinates dense waves are as quick and exact.

Everything stays a function of the record alone, in whole numbers: the transform of 20-bit integers
fits float64 exactly, and a phase is needed modulo one turn of 2^32 units only, which int64 products
give even where they wrap around.

Sources: Yu et al., Orthogonal random features, NeurIPS 2016 (structured version); Le, Sarlos and
Smola, Fastfood, ICML 2013. Integer form: ours.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from probkit.similarity.design import quantise
from probkit.similarity.waves import (
    QUANTA,
    RECORD_BITS,
    TABLE_BITS,
    Signed,
    random_signs,
    table_of_waves,
)

__all__ = ["StructuredWaves"]

_TURN_BITS = 32
_ROWS = 128


class StructuredWaves(Signed):
    """m waves in d dimensions by two Walsh-Hadamard transforms a block.

    Args:
        norms: (m,) norms of the waves, float64.
        dim: d.
        bandwidth: the smallest length that must be resolved.
        center: (d,) middle of the domain.
        seed: public; of the signs.
        signs: (2, blocks, p) of plus and minus one; None to draw them.
    """

    def __init__(
        self,
        norms: Tensor,
        dim: int,
        bandwidth: float,
        center: Tensor,
        seed: int,
        signs: Tensor | None = None,
    ) -> None:
        self.num, self.dim, self.center = len(norms), dim, center
        self.quantum = bandwidth / QUANTA
        self._size = 2 ** max(1, math.ceil(math.log2(dim)))
        # two transforms multiply by up to size^2: all stays below 2^53
        self._limit = 2 ** min(RECORD_BITS, 52 - 2 * round(math.log2(self._size)))
        blocks = math.ceil(self.num / self._size)
        self._signs = random_signs((2, blocks, self._size), seed, signs)
        # a wave's norm over the d coordinates that there are, not the p of the transform
        scale = norms / math.sqrt(self._size * dim)
        turns = scale * (self.quantum * 2.0**_TURN_BITS / (2 * math.pi))
        self._turns = torch.floor(turns + 0.5).to(torch.int64)
        self._scale = self._turns * (2 * math.pi / 2.0**_TURN_BITS / self.quantum)

    @property
    def frequencies(self) -> Tensor:
        """(m, d) angular frequencies as realised."""
        unit = torch.eye(self.dim, dtype=torch.float64)
        return (self._mixed(unit) * self._scale).mT.contiguous()

    def sums(self, records: Tensor) -> Tensor:
        """Sums over the records of (cos, sin), int64 (m, 2)."""
        total = torch.zeros(self.num, 2, dtype=torch.int64, device=records.device)
        for part in records.split(_ROWS):
            pair = self._columns(part)
            total += torch.stack([values.sum(-1, dtype=torch.int64) for values in pair], -1)
        return total

    def pairs(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """Integer (cos, sin) of every record, two int32 (B, m)."""
        cosine, sine = self._columns(records)
        return cosine.mT.contiguous(), sine.mT.contiguous()

    def _columns(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """``pairs`` with a column a record, two int32 (m, B)."""
        phase = self._mixed_whole(records).mul_(self._turns[:, None].to(records.device))
        drop = _TURN_BITS - TABLE_BITS
        index = phase.add_(2 ** (drop - 1)).bitwise_right_shift_(drop)
        index.bitwise_and_(2**TABLE_BITS - 1)
        cosine, sine = (table.to(index.device) for table in table_of_waves())
        return cosine[index], sine[index]

    def real_pairs(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin) of the same waves at points that need not be rounded, (Q, m) float64."""
        centred = (points - self.center.to(points)).to(torch.float64)
        angle = self._mixed(centred) * self._scale.to(centred)
        return angle.cos(), angle.sin()

    def _mixed_whole(self, records: Tensor) -> Tensor:
        """H D2 H D1 of the rounded records, int64 (m, B): ``_mixed`` with a column a record."""
        centred = records.to(torch.float64) - self.center.to(records.device)
        whole = quantise(centred, self.quantum, self._limit).mT.contiguous()
        first, second = self._signs.to(whole)[..., None]
        table = whole.new_zeros(len(first), self._size, len(records))
        torch.mul(whole, first[:, : self.dim], out=table[:, : self.dim])
        mixed = _butterflies(table, self._size).mul_(second)
        return _butterflies(mixed, min(self.num, self._size)).flatten(0, 1)[: self.num].long()

    def _mixed(self, x: Tensor) -> Tensor:
        """H D2 H D1 x of every block, (B, m)."""
        first, second = self._signs.to(x)
        padded = torch.nn.functional.pad(x, (0, self._size - self.dim))
        mixed = _transform(_transform(padded[:, None] * first) * second)
        return mixed.flatten(1)[:, : self.num]


def _transform(x: Tensor) -> Tensor:
    """Walsh-Hadamard transform of the last dimension, a power of two; exact for whole numbers."""
    size = x.shape[-1]
    left = 2 ** (round(math.log2(size)) // 2)
    # as two products with small matrices, H being the Kronecker product of two others
    table = x.unflatten(-1, (left, size // left))
    return (_hadamard(left).to(x) @ table @ _hadamard(size // left).to(x)).flatten(-2)


def _butterflies(x: Tensor, keep: int) -> Tensor:
    """The first ``keep`` rows of the transform of the last but one dimension; overwrites ``x``.

    log2(size) additions a number where ``_transform`` makes some sqrt(size) products, and all of
    them on long rows: for many columns the faster. Up to ``keep``, the smallest power of two that
    is not below it, rows are sums alone, so the differences need not be made.
    """
    *batch, size, columns = x.shape
    other = torch.empty_like(x)
    half = size // 2
    while half:
        pairs = x.view(*batch, -1, 2, half, columns)
        if half >= keep:
            x = pairs[..., 0, :, :].add_(pairs[..., 1, :, :]).flatten(-3, -2)
            other = other[..., :half, :]
        else:
            found = other.view(pairs.shape)
            torch.add(pairs[..., 0, :, :], pairs[..., 1, :, :], out=found[..., 0, :, :])
            torch.sub(pairs[..., 0, :, :], pairs[..., 1, :, :], out=found[..., 1, :, :])
            x, other = other, x
        half //= 2
    return x[..., :keep, :]


@cache
def _hadamard(size: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
