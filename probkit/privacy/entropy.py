"""Exact random integers and exact coin tosses from the operating system's randomness.

Everything here is integer arithmetic on uniform 64-bit words, vectorised over the draws:

- ``below(m)``: a uniform integer in {0, ..., m-1}, by rejection of words above the largest
  multiple of m, so that no value is more likely than another;
- ``bernoulli_exp(a, b)``: heads with probability exactly exp(-a/b). For a <= b it counts how many
  tosses of odds a/(b k), k = 1, 2, ..., come up in a row: the count is even with probability
  1 - x + x^2/2! - ... = exp(-x). For a > b the whole part is split off into tosses of exp(-1).

No floating-point number is involved, so the low-order bits of a release cannot betray a record
(Mironov, CCS 2012). Source: Canonne, Kamath, Steinke, arXiv 2004.00010, algorithms 1 and 2.
Running times depend on the draws: this code is not hardened against timing measurements.
"""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entropy", "OSEntropy", "TestingEntropy", "below", "bernoulli_exp"]

Words = NDArray[np.uint64]
_ONE = np.uint64(1)
_TOP = np.uint64(2**63)


class Entropy(Protocol):
    """A source of uniform 64-bit words."""

    private: bool

    def words(self, count: int) -> Words:
        """``count`` independent uniform words."""


class OSEntropy:
    """The operating system's cryptographic generator; safe after a fork, never seeded."""

    private = True

    def words(self, count: int) -> Words:
        return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)


class TestingEntropy:
    """Reproducible words for tests. NOT PRIVATE: whoever knows the seed can remove the noise."""

    private = False
    __test__ = False  # the name is not that of a test case

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def words(self, count: int) -> Words:
        return self._generator.integers(0, 2**64, count, dtype=np.uint64)


def below(limit: Words, entropy: Entropy) -> Words:
    """Uniform integers in {0, ..., limit-1}, elementwise; every limit in [1, 2^62].

    Example:
        >>> limits = np.array([1, 2, 3], dtype=np.uint64)
        >>> bool((below(limits, OSEntropy()) < limits).all())
        True
    """
    out = np.empty(limit.shape, dtype=np.uint64)
    usable = (_TOP // limit) * limit
    todo = np.arange(len(limit))
    while len(todo):
        words = entropy.words(len(todo)) >> _ONE
        good = words < usable[todo]
        kept = todo[good]
        out[kept] = words[good] % limit[kept]
        todo = todo[~good]
    return out


def bernoulli_exp(numerator: Words, denominator: Words, entropy: Entropy) -> NDArray[np.bool_]:
    """Heads with probability exp(-numerator / denominator), exactly, elementwise.

    The denominators must be below 2^56, which leaves room for the factors k of the series.
    """
    whole = numerator // denominator
    heads = _bernoulli_exp_fraction(numerator - whole * denominator, denominator, entropy)
    alive = np.flatnonzero(heads & (whole > 0))
    left = whole[alive]
    while len(alive):
        ones = np.ones(len(alive), dtype=np.uint64)
        good = _bernoulli_exp_fraction(ones, ones, entropy)
        heads[alive[~good]] = False
        left = left[good] - _ONE
        alive = alive[good]
        alive, left = alive[left > 0], left[left > 0]
    return heads


def _bernoulli_exp_fraction(
    numerator: Words, denominator: Words, entropy: Entropy
) -> NDArray[np.bool_]:
    """The case numerator <= denominator."""
    count = np.zeros(len(numerator), dtype=np.int64)
    alive = np.arange(len(numerator))
    k = 1
    while len(alive):
        hit = below(denominator[alive] * np.uint64(k), entropy) < numerator[alive]
        alive = alive[hit]
        count[alive] = k
        k += 1
    return count % 2 == 0
