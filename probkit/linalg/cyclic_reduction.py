"""Block-tridiagonal positive definite systems by cyclic reduction.

For ``J`` with diagonal blocks ``D_i`` and lower blocks ``C_i = J[i+1, i]`` (``T`` blocks of size
``n``) this computes solutions, the log-determinant, samples of ``N(0, J^-1)`` and the selected
inverse (the blocks of ``J^-1`` on the pattern of ``J``) in ``O(T n^3)`` work and ``log2 T`` steps.

One step eliminates the odd nodes. With ``D_o = L L'`` and ``V_l, V_r = L^-1 J[o, left], L^-1
J[o, right]`` the even nodes keep the Schur complement, again block tridiagonal and half as long::

    D_even <- D_even - V_l' V_l (left neighbour), - V_r' V_r (right neighbour)
    J[right, left] <- - V_r' V_l

On the way back, with ``G = L^-T V``, the odd nodes follow from their neighbours::

    x_o = L^-T (L^-1 b_o - V_l x_l - V_r x_r)
    S_ol = - G_l S_ll - G_r S_rl,  S_or = - G_l S_lr - G_r S_rr
    S_oo = (L L')^-1 - S_ol G_l' - S_or G_r'

Source: G. Golub and C. Van Loan, Matrix Computations, 4.5 (block cyclic reduction); the selected
inverse is the recursion of Takahashi et al. (1973) in the same elimination order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from probkit.errors import (
    NotPositiveDefiniteError,
    ShapeError,
    message,
)
from probkit.linalg.dense_root import DenseRoot, dense_root
from probkit.linalg.small import SmallCholesky, cholesky, from_trailing, matmul, to_trailing

__all__ = ["CyclicReduction", "factorize", "raise_not_positive"]


# below so many rows the rest is one dense matrix, for few matrices at once: with many in the batch
# the levels' vector operations pay down to a single block
_DENSE_ROWS, _FEW = 128, 4


class _Level(NamedTuple):
    """What one elimination leaves behind: factor of the odd blocks and the scaled couplings."""

    factor: SmallCholesky
    left: Tensor
    right: Tensor
    length: int


class CyclicReduction(NamedTuple):
    """Factorisation of a block-tridiagonal matrix; made by :func:`factorize`."""

    levels: tuple[_Level, ...]
    root: DenseRoot
    log_determinant: Tensor
    shape: torch.Size
    """shape of the diagonal blocks, ``(*batch, T, n, n)``"""

    def logdet(self) -> Float[Tensor, "*batch"]:
        """``log det J``."""
        return self.log_determinant

    def solve(self, rhs: Tensor) -> Tensor:
        """``J^-1 rhs`` for ``rhs`` of shape ``(*batch, T, n)`` or ``(*batch, T, n, k)``."""
        columns, is_vector = self._columns(rhs)
        return self._restore(self._back_substitute(*self._reduce(columns)), is_vector)

    def inv_quad(self, rhs: Tensor) -> Float[Tensor, "*batch"]:
        """``sum(rhs * J^-1 rhs)`` over all but the batch dimensions."""
        columns, _ = self._columns(rhs)
        reduced, root = self._reduce(columns)
        total = root.square().sum((0, 1)).sum(-1)
        for part in reduced:
            total = total + part.square().sum((0, 1)).sum(-1)
        return total

    def selected_inverse(self) -> tuple[Tensor, Tensor]:
        """Diagonal blocks ``(*batch, T, n, n)`` of ``J^-1`` and the blocks below them.

        The second result is ``lower[i] = J^-1[i+1, i]``, i.e. ``Cov(z_{i+1}, z_i)``.
        """
        example = self.log_determinant
        identity = torch.eye(self.shape[-1], dtype=example.dtype, device=example.device)
        diagonal, lower = self.root.selected_inverse()
        for level in reversed(self.levels):
            diagonal, lower = _expand_selected(level, diagonal, lower, identity)
        return from_trailing(diagonal), from_trailing(lower)

    def solve_and_selected_inverse(self, rhs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(solve(rhs), *selected_inverse())``: mean, covariances and neighbour covariances."""
        return (self.solve(rhs), *self.selected_inverse())

    def sample(self, noise: Tensor) -> Tensor:
        """Turn standard normal ``noise`` (shaped like a right-hand side) into ``N(0, J^-1)``."""
        columns, is_vector = self._columns(noise)
        return self._restore(self._back_substitute(*self._deal(columns)), is_vector)

    def root_matmul(self, noise: Tensor) -> Tensor:
        """Turn standard normal ``noise`` into ``N(0, J)``: a root of ``J`` times ``noise``."""
        columns, is_vector = self._columns(noise)
        parts, root = self._deal(columns)
        x = self.root.multiply(root)
        for level, odd in zip(reversed(self.levels), reversed(parts), strict=True):
            left = matmul(level.left.transpose(0, 1), odd)
            right = matmul(level.right.transpose(0, 1), odd)
            even = _subtract_neighbours(x, -left, -right)
            x = _interleave(even, level.factor.multiply(odd))
        return self._restore(x, is_vector)

    def _columns(self, rhs: Tensor) -> tuple[Tensor, bool]:
        is_vector = rhs.shape == self.shape[:-1]
        if not is_vector and rhs.shape[:-1] != self.shape[:-1]:
            raise ShapeError(
                message(
                    "The right-hand side does not fit the block-tridiagonal matrix",
                    where="rhs",
                    got=tuple(rhs.shape),
                    expected=f"{tuple(self.shape[:-1])} or {(*self.shape[:-1], 'k')}",
                )
            )
        return to_trailing(rhs.unsqueeze(-1) if is_vector else rhs), is_vector

    def _deal(self, columns: Tensor) -> tuple[list[Tensor], Tensor]:
        """Share independent columns out to the odd nodes of each level and to the root."""
        parts = []
        for level in self.levels:
            num_odd = level.length // 2
            parts.append(columns[..., :num_odd])
            columns = columns[..., num_odd:]
        return parts, columns

    @staticmethod
    def _restore(columns: Tensor, is_vector: bool) -> Tensor:
        out = from_trailing(columns)
        return out[..., 0] if is_vector else out

    def _reduce(self, columns: Tensor) -> tuple[list[Tensor], Tensor]:
        """Forward elimination: ``L^-1 b`` of the odd nodes of each level and of the root."""
        parts = []
        for level in self.levels:
            odd = level.factor.solve_lower(columns[..., 1::2].contiguous())
            parts.append(odd)
            left = matmul(level.left.transpose(0, 1), odd)
            right = matmul(level.right.transpose(0, 1), odd)
            columns = _subtract_neighbours(columns[..., 0::2], left, right)
        return parts, self.root.solve_lower(columns)

    def _back_substitute(self, parts: list[Tensor], root: Tensor) -> Tensor:
        x = self.root.solve_upper(root)
        for level, odd in zip(reversed(self.levels), reversed(parts), strict=True):
            left, right = _neighbours(x, level.length)
            inner = odd - matmul(level.left, left) - matmul(level.right, right)
            x = _interleave(x, level.factor.solve_upper(inner))
        return x


def factorize(
    diagonal: Float[Tensor, "*batch T n n"], lower: Float[Tensor, "*batch T-1 n n"]
) -> CyclicReduction:
    """Factorise the block-tridiagonal matrix with the given diagonal and lower blocks.

    Args:
        diagonal: symmetric blocks ``J[i, i]``.
        lower: blocks ``J[i+1, i]``.

    Raises:
        ShapeError: the two do not belong together.
        NotPositiveDefiniteError: the matrix is not positive definite to working precision.

    Example:
        >>> J = factorize(2 * torch.ones(3, 1, 1), -torch.ones(2, 1, 1))
        >>> round(float(J.logdet().exp()), 4)
        4.0
        >>> [round(float(v), 4) for v in J.solve(torch.ones(3, 1))]
        [1.5, 2.0, 1.5]
    """
    _check_shapes(diagonal, lower)
    d, c = to_trailing(diagonal), to_trailing(lower)
    levels: list[_Level] = []
    log_pivots = torch.zeros(diagonal.shape[:-3], dtype=diagonal.dtype, device=diagonal.device)
    largest = max(1, _DENSE_ROWS // d.shape[0]) if math.prod(d.shape[2:-1]) <= _FEW else 1
    while d.shape[-1] > largest:
        length, n = d.shape[-1], d.shape[0]
        factor = cholesky(d[..., 1::2].contiguous())
        log_pivots = log_pivots + factor.log_pivots().sum(0).sum(-1)
        upper = c[..., 1::2].transpose(0, 1)
        if length % 2 == 0:
            upper = pad(upper, (0, 1))
        couplings = factor.solve_lower(torch.cat([c[..., 0::2], upper], 1))
        left, right = couplings[:, :n].contiguous(), couplings[:, n:].contiguous()
        levels.append(_Level(factor, left, right, length))
        d = _subtract_neighbours(d[..., 0::2], _gram(left), _gram(right))
        c = -matmul(right.transpose(0, 1), left)[..., : d.shape[-1] - 1]
    root = dense_root(d, c)
    log_pivots = log_pivots + root.log_pivots().sum(0).sum(-1)
    if not bool(torch.isfinite(log_pivots).all()):
        raise_not_positive(diagonal, lower)
    return CyclicReduction(tuple(levels), root, 2 * log_pivots, diagonal.shape)


def _gram(x: Tensor) -> Tensor:
    return matmul(x.transpose(0, 1), x)


def _expand(identity: Tensor, batch: tuple[int, ...]) -> Tensor:
    n = identity.shape[0]
    return identity.reshape(n, n, *(1 for _ in batch)).expand(n, n, *batch)


def _neighbours(x: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Even-node values to the left and right of each odd node; zero beyond the end."""
    padded = pad(x, (0, 1)) if length % 2 == 0 else x
    return padded[..., :-1], padded[..., 1:]


def _subtract_neighbours(even: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``even`` minus what each odd node passes to its left and to its right neighbour."""
    size = even.shape[-1]
    return even - pad(left, (0, size - left.shape[-1])) - pad(right[..., : size - 1], (1, 0))


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    size = even.shape[-1]
    both = torch.stack([even, pad(odd, (0, size - odd.shape[-1]))], -1).flatten(-2)
    return both[..., : size + odd.shape[-1]]


def _expand_selected(
    level: _Level, diagonal: Tensor, lower: Tensor, identity: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the odd nodes of one level to the selected inverse of the even ones."""
    n, batch = identity.shape[0], level.left.shape[2:]
    inverse_root = level.factor.solve_lower(_expand(identity, batch))
    gains = level.factor.solve_upper(torch.cat([level.left, level.right], 1))
    left, right = gains[:, :n], gains[:, n:]
    s_left, s_right = _neighbours(diagonal, level.length)
    across = pad(lower, (0, batch[-1] - lower.shape[-1]))
    to_left = -matmul(left, s_left) - matmul(right, across)
    to_right = -matmul(left, across.transpose(0, 1)) - matmul(right, s_right)
    own = (
        _gram(inverse_root)
        - matmul(to_left, left.transpose(0, 1))
        - matmul(to_right, right.transpose(0, 1))
    )
    own = 0.5 * (own + own.transpose(0, 1))
    pairs = torch.stack([to_left, to_right.transpose(0, 1)], -1).flatten(-2)
    return _interleave(diagonal, own), pairs[..., : level.length - 1]


def _check_shapes(diagonal: Tensor, lower: Tensor) -> None:
    expected = (*diagonal.shape[:-3], diagonal.shape[-3] - 1, *diagonal.shape[-2:])
    if diagonal.shape[-1] != diagonal.shape[-2] or tuple(lower.shape) != expected:
        raise ShapeError(
            message(
                "Diagonal and lower blocks do not form a block-tridiagonal matrix",
                where="lower",
                got=f"{tuple(lower.shape)} for diagonal {tuple(diagonal.shape)}",
                expected=expected,
            )
        )


def raise_not_positive(diagonal: Tensor, lower: Tensor) -> None:
    """Find the first block at which an ordinary elimination breaks down, and say so."""
    schur = diagonal.detach()[..., 0, :, :]
    block = 0
    for block in range(diagonal.shape[-3]):
        factor, info = torch.linalg.cholesky_ex(schur)
        if bool((info > 0).any()) or not bool(torch.isfinite(factor).all()):
            break
        if block < lower.shape[-3]:
            scaled = torch.linalg.solve_triangular(
                factor, lower.detach()[..., block, :, :].mT, upper=False
            )
            schur = diagonal.detach()[..., block + 1, :, :] - scaled.mT @ scaled
    raise NotPositiveDefiniteError(
        message(
            "A block-tridiagonal matrix is not positive definite to working precision",
            where=f"block {block} of {diagonal.shape[-3]}",
            causes=(
                "neighbouring points so close that the process noise between them is lost",
                "a site with negative precision",
                "non-finite entries",
            ),
            remedy="merge points closer than 1e-6 lengthscales or use the covariance form, "
            'smooth(..., method="parallel")',
        )
    )
