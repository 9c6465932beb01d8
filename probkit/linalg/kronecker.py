"""Kronecker products as linear operators: rectangular or square, real or complex, exact.

    K = A_1 x ... x A_I,  K^H = A_1^H x ...,  K^-1 = A_1^-1 x ...,
    logdet(K) = sum_k (n / n_k) logdet(A_k)

Upstream's ``KroneckerProductLinearOperator`` transposes where it has to conjugate, so that solves
and eigendecompositions of complex matrices are silently wrong; this one works through each factor
by ``torch.linalg``. Cost of a product with c columns: c sum_k (entries) * m_k; of a
factorisation: sum_k n_k^3. Nothing is stochastic or densified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from linear_operator.operators import LinearOperator, RootLinearOperator
from torch import Tensor

from probkit.errors import NotPositiveDefiniteError, ShapeError, message
from probkit.linalg.mode_products import mode_products, outer
from probkit.linalg.vector_sides import solve_sides

__all__ = ["KroneckerLinearOperator", "KroneckerPlusDiagonal"]


class KroneckerLinearOperator(LinearOperator):
    """The Kronecker product of matrices, the first factor varying slowest (``torch.kron``).

    Args:
        factors: matrices (*batch, m_k, n_k) with the same batch dimensions, dtype and device.

    Raises:
        ShapeError: no factors, or factors whose batch dimensions differ.

    Example:
        >>> a, b = torch.tensor([[2.0, 1j], [-1j, 2.0]]), torch.eye(2, dtype=torch.complex64)
        >>> K = KroneckerLinearOperator(a, b)
        >>> bool(torch.allclose(K.to_dense(), torch.kron(a, b)))
        True
        >>> round(float(K.logdet()), 4) == round(2 * math.log(3.0), 4)
        True
    """

    def __init__(self, *factors: Tensor) -> None:
        if not factors or any(f.dim() < 2 for f in factors):
            raise ShapeError(
                message(
                    "A Kronecker product needs at least one matrix",
                    where="factors",
                    got=[tuple(f.shape) for f in factors],
                )
            )
        if len({f.shape[:-2] for f in factors}) > 1:
            raise ShapeError(
                message(
                    "The factors' batch dimensions differ",
                    where="factors",
                    got=[tuple(f.shape) for f in factors],
                    remedy="expand them to one batch shape",
                )
            )
        super().__init__(*factors)
        self.factors = factors

    @property
    def mH(self) -> KroneckerLinearOperator:
        """The conjugate transpose."""
        return self.__class__(*(f.mH for f in self.factors))

    def conj(self) -> KroneckerLinearOperator:
        """The complex conjugate."""
        return self.__class__(*(f.conj() for f in self.factors))

    def eigenbasis(self) -> tuple[list[Tensor], KroneckerLinearOperator]:
        """Eigenvalues of each Hermitian factor, ascending, and the unitary of their eigenvectors.

        The eigenvalues of the product are the products of one of each, in C order.
        """
        pairs = [torch.linalg.eigh(f) for f in self.factors]
        return [p.eigenvalues for p in pairs], self.__class__(*(p.eigenvectors for p in pairs))

    def add_kronecker_diagonal(self, diagonals: Sequence[Tensor]) -> KroneckerPlusDiagonal:
        """The Hermitian K plus the diagonal whose entries are products, (*batch, n_k) each."""
        return KroneckerPlusDiagonal(self, list(diagonals))

    def add_constant_diagonal(self, value: Tensor) -> KroneckerPlusDiagonal:
        """The Hermitian K plus ``value`` (*batch) times the identity."""
        ones = [f.new_ones(f.shape[:-1], dtype=value.dtype) for f in self.factors]
        ones[0] = ones[0] * value.unsqueeze(-1)
        return KroneckerPlusDiagonal(self, ones)

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``K^-1 right``, or ``left K^-1 right``."""
        return solve_sides(self._solve, right_tensor, left_tensor)

    def logdet(self) -> Tensor:
        """log of the absolute determinant, real, (*batch)."""
        size = self.shape[-1]
        found = [torch.linalg.slogdet(f)[1] * (size // f.shape[-1]) for f in self.factors]
        return torch.stack(found).sum(0)

    def inv_quad_logdet(
        self,
        inv_quad_rhs: Tensor | None = None,
        logdet: bool | None = False,
        reduce_inv_quad: bool | None = True,
    ) -> tuple[Tensor, Tensor]:
        """``rhs^H K^-1 rhs`` and the log-determinant; empty tensors for what was not asked."""
        empty = torch.zeros(0, dtype=self.dtype, device=self.device)
        quadratic = empty
        if inv_quad_rhs is not None:
            is_vector = inv_quad_rhs.dim() == 1
            rhs = inv_quad_rhs.unsqueeze(-1) if is_vector else inv_quad_rhs
            columns = (rhs.conj() * self._solve(rhs)).sum(-2)
            columns = columns.real if columns.is_complex() else columns
            quadratic = columns.sum(-1) if reduce_inv_quad or is_vector else columns
        return quadratic, self.logdet() if logdet else empty

    def root_decomposition(self, method: str | None = None) -> RootLinearOperator:
        """R with R R^T = K for a symmetric positive semidefinite real K, exact for any method."""
        return self._root(0.5)

    def root_inv_decomposition(
        self,
        initial_vectors: Tensor | None = None,
        test_vectors: Tensor | None = None,
        method: str | None = None,
    ) -> RootLinearOperator:
        """R with R R^T = K^-1 for a symmetric positive definite real K, exact for any method."""
        return self._root(-0.5)

    def zero_mean_mvn_samples(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """(num_samples, *batch, n) draws of N(0, K), circular if complex; K positive definite."""
        roots = []
        for k, factor in enumerate(self.factors):
            root, info = torch.linalg.cholesky_ex(factor)
            if bool((info > 0).any()):
                raise NotPositiveDefiniteError(
                    message("A covariance factor is not positive definite", where=f"factors[{k}]")
                )
            roots.append(root)
        sizes = [f.shape[-1] for f in self.factors]
        noise = torch.randn(
            (*self.batch_shape, num_samples, *sizes),
            generator=generator,
            dtype=self.dtype,
            device=self.device,
        )
        return mode_products(noise, roots).flatten(-len(sizes)).movedim(-2, 0)

    def _root(self, power: float) -> RootLinearOperator:
        values, vectors = self.eigenbasis()
        pairs = zip(values, vectors.factors, strict=True)
        # an eigenvalue below zero is rounding
        return RootLinearOperator(
            self.__class__(*(v * w.clamp(min=0).pow(power).unsqueeze(-2) for w, v in pairs))
        )

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        return self._apply(rhs, self.factors)

    def _apply(self, rhs: Tensor, factors: Sequence[Tensor]) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, rhs.shape[:-2])
        columns = rhs.expand(*batch, *rhs.shape[-2:]).mT
        x = columns.reshape(*batch, rhs.shape[-1], *(f.shape[-1] for f in factors))
        expanded = [f.expand(*batch, *f.shape[-2:]) for f in factors]
        return mode_products(x, expanded).flatten(-len(factors)).mT

    def _solve(
        self,
        rhs: Tensor,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
        num_tridiag: int | None = 0,
    ) -> Tensor:
        if num_tridiag:
            solution: Tensor = super()._solve(rhs, preconditioner, num_tridiag=num_tridiag)
            return solution
        if any(f.shape[-1] != f.shape[-2] for f in self.factors):
            raise ShapeError(
                message(
                    "Only square factors can be solved with",
                    where="factors",
                    got=[tuple(f.shape) for f in self.factors],
                )
            )
        return self._apply(rhs, [torch.linalg.inv(f) for f in self.factors])

    def _size(self) -> torch.Size:
        rows = math.prod(f.shape[-2] for f in self.factors)
        columns = math.prod(f.shape[-1] for f in self.factors)
        return torch.Size((*self.factors[0].shape[:-2], rows, columns))

    def _transpose_nonbatch(self) -> KroneckerLinearOperator:
        return self.__class__(*(f.mT for f in self.factors))

    def _expand_batch(self, batch_shape: torch.Size) -> KroneckerLinearOperator:
        return self.__class__(*(f.expand(*batch_shape, *f.shape[-2:]) for f in self.factors))

    def _diagonal(self) -> Tensor:
        diagonals = [f.diagonal(dim1=-2, dim2=-1) for f in self.factors]
        return outer(diagonals).flatten(-len(diagonals))


class KroneckerPlusDiagonal:
    """Hermitian (A_1 x ... x A_I) + (D_1 x ... x D_I), D_k positive diagonal: exact solves.

        K + D = R (V diag(w + 1) V^H) R,  R = D^(1/2),  w, V the eigenpairs of R^-1 K R^-1,

    which is again a Kronecker product.

    Args:
        kronecker: the Hermitian positive semidefinite K.
        diagonals: real vectors (*batch, n_k).

    Example:
        >>> K = KroneckerLinearOperator(2 * torch.eye(2), torch.eye(3))
        >>> C = K.add_constant_diagonal(torch.tensor(2.0))
        >>> C.solve(torch.ones(6)).tolist()
        [0.25, 0.25, 0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, kronecker: KroneckerLinearOperator, diagonals: Sequence[Tensor]) -> None:
        self._roots = [d.sqrt() for d in diagonals]
        whitened = [
            f / (r.unsqueeze(-1) * r.unsqueeze(-2)).to(f.dtype)
            for f, r in zip(kronecker.factors, self._roots, strict=True)
        ]
        values, self._vectors = KroneckerLinearOperator(*whitened).eigenbasis()
        # an eigenvalue below zero is rounding: K is positive semidefinite
        self._spectrum = outer([v.clamp(min=0) for v in values]) + 1
        self._num_factors = len(values)

    def solve(self, rhs: Tensor) -> Tensor:
        """``(K + D)^-1 rhs``, rhs (n,) or (*batch, n, columns)."""
        if rhs.dim() == 1:
            return self.solve(rhs.unsqueeze(-1)).squeeze(-1)
        root = outer(self._roots).flatten(-self._num_factors).unsqueeze(-1)
        spectrum = self._spectrum.flatten(-self._num_factors).unsqueeze(-1)
        inner = self._vectors.mH @ (rhs / root)
        return (self._vectors @ (inner / spectrum)) / root

    def logdet(self) -> Tensor:
        """log det(K + D), (*batch)."""
        modes = tuple(range(-self._num_factors, 0))
        return self._spectrum.log().sum(modes) + 2 * outer(self._roots).log().sum(modes)

    def diagonal_of_inverse(self) -> Tensor:
        """Diagonal of (K + D)^-1, (*batch, n)."""
        squares = [f.abs().square() for f in self._vectors.factors]
        whitened = mode_products(1 / self._spectrum, squares)
        return (whitened / outer(self._roots).square()).flatten(-self._num_factors)

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """(num_samples, *batch, n) draws of N(0, K + D), circular if complex."""
        vectors = self._vectors.factors
        noise = torch.randn(
            (*vectors[0].shape[:-2], num_samples, *(f.shape[-1] for f in vectors)),
            generator=generator,
            dtype=vectors[0].dtype,
            device=vectors[0].device,
        )
        scaled = noise * self._spectrum.sqrt().unsqueeze(-self._num_factors - 1)
        draws = mode_products(scaled, vectors)
        draws = draws * outer(self._roots).unsqueeze(-self._num_factors - 1)
        return draws.flatten(-self._num_factors).movedim(-2, 0)
