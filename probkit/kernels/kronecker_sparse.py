"""The covariance of sparse Kronecker regression as a GPyTorch kernel, for real data.

Measurements are numbered by their rows (i_1, ..., i_I) in the dictionaries A_k, (M_k, N_k); with
slice variances g_k > 0,

    k(i, j) = prod_k (A_k diag(g_k) A_k')_{i_k j_k},

so that an exact GP on all measurements with Gaussian noise v has the marginal likelihood of
``y ~ N(0, A diag(g_1 x ... x g_I) A' + v I)``, the evidence of Kronecker-structured sparse
Bayesian learning. On the whole grid the covariance is a Kronecker product of M_k x M_k matrices,
which GPyTorch solves by their eigendecompositions; on other rows it is dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel
from jaxtyping import Float
from linear_operator.operators import KroneckerProductLinearOperator, LinearOperator
from torch import Tensor

from probkit.errors import DtypeError, ShapeError, message

__all__ = ["KroneckerSBLKernel"]


class KroneckerSBLKernel(Kernel):
    """Covariance of measurements with a sparse Kronecker prior on the coefficients.

    Args:
        dictionaries: A_k, (M_k, N_k), real.
        scales: g_k to start from, (*batch_shape, N_k) each; ones if not given. They are
            parameters (``raw_scale_k``, constrained to be positive).
        **kwargs: of GPyTorch's kernels: ``batch_shape``, ``active_dims``.

    Raises:
        DtypeError: complex dictionaries, which GPyTorch's likelihoods do not know.
        ShapeError: scales or rows that do not fit the dictionaries.

    Example:
        >>> kernel = KroneckerSBLKernel([torch.eye(2).double(), torch.ones(1, 3).double()])
        >>> kernel(kernel.grid()).to_dense().tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """

    has_lengthscale = False

    def __init__(
        self,
        dictionaries: Sequence[Float[Tensor, "M_k N_k"]],
        *,
        scales: Sequence[Float[Tensor, "*batch N_k"]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if any(a.is_complex() for a in dictionaries):
            raise DtypeError(
                message(
                    "GPyTorch's likelihoods are for real data",
                    where="dictionaries",
                    got=[a.dtype for a in dictionaries],
                    remedy="take probkit.distributions.KroneckerSparseNormal in a Pyro model",
                )
            )
        shapes = [(*self.batch_shape, a.shape[-1]) for a in dictionaries]
        start = scales
        if start is None:
            start = [a.new_ones(shape) for a, shape in zip(dictionaries, shapes, strict=True)]
        if [tuple(g.shape) for g in start] != shapes:
            raise ShapeError(
                message(
                    "Every dictionary (M_k, N_k) needs its scales (*batch_shape, N_k)",
                    where="scales",
                    got=[tuple(g.shape) for g in start],
                    expected=shapes,
                )
            )
        for k, (a, g) in enumerate(zip(dictionaries, start, strict=True)):
            # upstream indexes buffers by the kernel's batch: each member sees the same dictionary
            self.register_buffer(f"dictionary_{k}", a.expand(*self.batch_shape, *a.shape))
            self.register_parameter(f"raw_scale_{k}", torch.nn.Parameter(g.new_zeros(g.shape)))
            self.register_constraint(f"raw_scale_{k}", Positive(torch.exp, torch.log))
            self.initialize(**{f"raw_scale_{k}": g.detach().log()})
        self._num_factors = len(start)

    @property
    def dictionaries(self) -> list[Tensor]:
        """A_k, (M_k, N_k)."""
        stored = [getattr(self, f"dictionary_{k}") for k in range(self._num_factors)]
        return [a.reshape(-1, *a.shape[-2:])[0] for a in stored]

    @property
    def scales(self) -> list[Tensor]:
        """g_k, (*batch_shape, N_k)."""
        names = [f"raw_scale_{k}" for k in range(self._num_factors)]
        return [getattr(self, f"{n}_constraint").transform(getattr(self, n)) for n in names]

    def grid(self) -> Float[Tensor, "M I"]:
        """Rows of all measurements in C order, as the kernel's input."""
        like = self.dictionaries[0]
        rows = [torch.arange(a.shape[-2], device=like.device) for a in self.dictionaries]
        return torch.cartesian_prod(*rows).reshape(-1, self._num_factors).to(like.dtype)

    def forward(
        self,
        x1: Float[Tensor, "*batch N I"],
        x2: Float[Tensor, "*batch M I"],
        diag: bool = False,
        **params: Any,
    ) -> Tensor | LinearOperator:
        """Covariance of measurements; a Kronecker product if both inputs are :meth:`grid`.

        Raises:
            ShapeError: inputs that are not rows of the dictionaries.
        """
        rows1, rows2 = self._rows(x1), self._rows(x2)
        pairs = list(zip(self.dictionaries, self.scales, strict=True))
        if not diag and self._is_grid(x1) and self._is_grid(x2):
            return KroneckerProductLinearOperator(*((a * g.unsqueeze(-2)) @ a.mT for a, g in pairs))
        product: Tensor | float = 1.0
        for k, (a, g) in enumerate(pairs):
            left, right = a[rows1[..., k]] * g.unsqueeze(-2), a[rows2[..., k]]
            product = product * ((left * right).sum(-1) if diag else left @ right.mT)
        assert isinstance(product, Tensor)
        return product

    def _is_grid(self, x: Tensor) -> bool:
        whole = self.grid()
        return x.shape == whole.shape and bool((x == whole).all())

    def _rows(self, x: Tensor) -> Tensor:
        sizes = torch.tensor([a.shape[-2] for a in self.dictionaries], device=x.device)
        fits = x.shape[-1] == self._num_factors
        rows = x.round().long()
        if not fits or bool(((rows != x) | (rows < 0) | (rows >= sizes)).any()):
            raise ShapeError(
                message(
                    "Inputs are rows (i_1, ..., i_I) of the dictionaries",
                    where="x",
                    got=tuple(x.shape),
                    expected=f"(..., {self._num_factors}), integers below {sizes.tolist()}",
                    remedy="take kernel.grid() for all measurements in C order",
                )
            )
        return rows
