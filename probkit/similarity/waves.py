"""Random waves in exact integer arithmetic.

A record's coordinates are rounded to whole quanta (bandwidth / 1024) and clipped to 20 bits, that
is to +-1024 bandwidths; a wave is a vector of whole numbers of 2^-22 turns a quantum, of which
only the value modulo one turn matters. The phase is then an integer product below 2^53, exact in
float64 matrix products in any order of summation, and cosine and sine come from one table of 2^14
entries, truncated to 20 bits. So a record's feature is a function of the record alone, bit for
bit, on every machine.

Rounding a wave gives another wave (queries use the same rounded one); rounding a record moves it
by at most half a quantum: the kernel that is realised differs from the wanted one by 1e-5.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from probkit.random import as_generator
from probkit.similarity.design import quantise

__all__ = [
    "QUANTA",
    "RECORD_BITS",
    "TABLE_BITS",
    "UNIT",
    "Signed",
    "Waves",
    "pair_bounds",
    "random_signs",
    "table_of_waves",
]

QUANTA = 1024
RECORD_BITS = 20
_TURN_BITS = 22
TABLE_BITS = 14
_BITS = 20
_CHUNK = 512
UNIT = 2**_BITS
"""value of a feature of 1 in the integer state"""


class Waves:
    """m integer waves in d dimensions.

    Args:
        waves: (m, d) angular frequencies, float64.
        bandwidth: the smallest length that must be resolved.
        center: (d,) middle of the domain.
    """

    def __init__(self, waves: Tensor, bandwidth: float, center: Tensor) -> None:
        self.num, self.dim = waves.shape
        self.quantum = bandwidth / QUANTA
        self.center = center
        # integer products must stay below 2^53: fewer bits a coordinate in very high dimension
        room = 52 - (_TURN_BITS - 1) - math.ceil(math.log2(self.dim))
        self._limit = 2 ** min(RECORD_BITS, room)
        turns = waves * (self.quantum * 2.0**_TURN_BITS / (2 * math.pi))
        half = 2.0 ** (_TURN_BITS - 1)
        whole = torch.floor(turns + 0.5)
        self._turns = torch.remainder(whole + half, 2 * half) - half  # (m, d), in [-half, half)
        self._step = 2 * math.pi / 2.0**_TURN_BITS / self.quantum

    @property
    def frequencies(self) -> Tensor:
        """(m, d) angular frequencies as realised (modulo one turn a quantum)."""
        return self._turns * self._step

    def sums(self, records: Tensor) -> Tensor:
        """Sums over the records of (cos, sin), int64 (m, 2)."""
        x = self._whole(records)
        turns = self._turns.to(records.device)
        parts = []
        for some in turns.split(_CHUNK):
            index = _table_index(x, some)
            cosine = self._table.to(x.device)[index].sum(0, dtype=torch.int64)
            sine = self._sine.to(x.device)[index].sum(0, dtype=torch.int64)
            parts.append(torch.stack([cosine, sine], -1))
        return torch.cat(parts)

    def pairs(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """Integer (cos, sin) of every record, two int32 (B, m)."""
        index = _table_index(self._whole(records), self._turns.to(records.device))
        return self._table.to(index.device)[index], self._sine.to(index.device)[index]

    def _whole(self, records: Tensor) -> Tensor:
        centred = records.to(torch.float64) - self.center.to(records.device)
        return quantise(centred, self.quantum, self._limit)

    def real_pairs(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin) of the same waves at points that need not be rounded, (Q, m) float64."""
        x = (points - self.center.to(points)).to(torch.float64)
        angle = x @ self.frequencies.mT.to(x)
        return angle.cos(), angle.sin()

    @property
    def _table(self) -> Tensor:
        return table_of_waves()[0]

    @property
    def _sine(self) -> Tensor:
        return table_of_waves()[1]


@cache
def table_of_waves() -> tuple[Tensor, Tensor]:
    """Cosines and sines of all phases, two int32 (2^14,)."""
    cosines = _cosines()
    return cosines, torch.roll(cosines, 2 ** (TABLE_BITS - 2))


def pair_bounds() -> tuple[int, int]:
    """Bounds on the L1 and (rounded up) L2 norm of an integer pair, read off the table."""
    table, other = (part.to(torch.int64) for part in table_of_waves())
    l1 = int((table.abs() + other.abs()).max())
    square = int((table**2 + other**2).max())
    root = math.isqrt(square)
    return l1, root if root * root == square else root + 1


class Signed:
    """Waves that are made by random signs, which a release stores with them."""

    _signs: Tensor

    @property
    def signs(self) -> Tensor:
        """The random signs in the shape in which they were drawn, int8."""
        return self._signs.to(torch.int8)


def random_signs(shape: tuple[int, ...], seed: int, drawn: Tensor | None = None) -> Tensor:
    """Plus and minus one at random, float64; those that were drawn before, if they are given.

    Raises:
        ValueError: what is given is of another shape, or holds other numbers.

    Example:
        >>> bool((random_signs((2, 5), 0).abs() == 1).all())
        True
    """
    if drawn is None:
        coins = torch.randint(0, 2, shape, generator=as_generator(seed))
        return (2 * coins - 1).to(torch.float64)
    signs = drawn.to(torch.float64)
    if signs.shape != shape or not bool((signs.abs() == 1).all()):
        raise ValueError("signs of another shape, or other numbers")
    return signs


def _table_index(whole: Tensor, turns: Tensor) -> Tensor:
    """(B, M) entries of the table: the exact phase modulo one turn, rounded to 14 bits."""
    phase = (whole @ turns.mT).to(torch.int64)
    drop = _TURN_BITS - TABLE_BITS
    return phase.add_(2 ** (drop - 1)).bitwise_right_shift_(drop).bitwise_and_(2**TABLE_BITS - 1)


def _cosines() -> Tensor:
    angle = 2 * math.pi * torch.arange(2**TABLE_BITS, dtype=torch.float64) / 2**TABLE_BITS
    return torch.trunc(torch.cos(angle) * UNIT).to(torch.int32)
