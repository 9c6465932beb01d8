"""Kronecker-structured sparse regression with its coefficients integrated out.

    y_l = (A_1 x ... x A_I) x_l + e_l,  x_l ~ N(0, diag(g_1 x ... x g_I)),  e_l ~ N(0, v I)

with l = 1, ..., L snapshots; circular complex normal if a factor is complex. The density of y and
its gradient in g and v cost one pass of :mod:`probkit.linalg.kronecker_gaussian`, without the
dictionary, a covariance, or the derivative of an eigenvector (which does not exist where
eigenvalues are equal).

Where functions are transformed (``torch.func``, and the graphs of the engines), an
``autograd.Function`` cannot be used; there, with constants c and their gradient d known,

    log p(y | t) = c + <d, t - constant(t)>

has the right value and the right first derivative. Second derivatives do not exist and are refused.

Source: He & Joseph, IEEE TSP 72 (2024), arXiv 2307.14719, who form the dense matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Inexact
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch._C._functorch import TransformType
from torch.distributions import constraints

from probkit.distributions.complex_normal import complex_tensor
from probkit.distributions.kronecker_posterior import KroneckerPosterior
from probkit.errors import NumericalError, ShapeError, message
from probkit.linalg.kronecker_derivatives import factor_gradients
from probkit.linalg.kronecker_gaussian import condition, kronecker_log_evidence
from probkit.linalg.mode_products import contract_all_but, mode_products, outer

__all__ = ["KroneckerSparseNormal"]


class KroneckerSparseNormal(TorchDistribution):
    """Law of measurements ``y`` whose sparse coefficients are integrated out.

    Events are (M_1, ..., M_I), or (L, M_1, ..., M_I) with snapshots. The density is differentiable
    once in scales, noise, factors and y; draws in scales, noise and factors.

    Args:
        factors: A_k, (*batch, M_k, N_k), real or complex.
        scales: g_k >= 0, prior variances of slices, (*batch, N_k).
        noise: v > 0, a variance, (*batch).
        num_snapshots: L; None for events without a snapshot dimension.
        validate_args: check the arguments.

    Raises:
        ShapeError: factors and scales that do not fit.

    Example:
        >>> factors = [torch.eye(2).double(), torch.ones(1, 3).double()]
        >>> scales = [torch.ones(2).double(), torch.ones(3).double()]
        >>> law = KroneckerSparseNormal(factors, scales, torch.tensor(1.0).double())
        >>> law.event_shape, law.variance.tolist()
        (torch.Size([2, 1]), [[4.0], [4.0]])
        >>> round(law.log_prob(torch.zeros(2, 1).double()).item(), 4)  # -log(2 pi 4)
        -3.2242
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "noise": constraints.positive,
    }
    has_rsample = True

    def __init__(
        self,
        factors: Sequence[Inexact[Tensor, "*#batch M_k N_k"]],
        scales: Sequence[Float[Tensor, "*#batch N_k"]],
        noise: Float[Tensor, "*#batch"],
        *,
        num_snapshots: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        _check(factors, scales, num_snapshots)
        dtype = factors[0].dtype
        for factor in factors[1:]:
            dtype = torch.promote_types(dtype, factor.dtype)
        shapes = [a.shape[:-2] for a in factors] + [g.shape[:-1] for g in scales] + [noise.shape]
        batch_shape = torch.broadcast_shapes(*shapes)
        self._factors = [a.to(dtype) for a in factors]
        self._scales, self.noise = list(scales), noise.expand(batch_shape)
        self.num_snapshots = num_snapshots
        columns = [] if num_snapshots is None else [num_snapshots]
        event_shape = torch.Size([*columns, *(a.shape[-2] for a in factors)])
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        num_dims = len(self.event_shape)
        if self.is_complex:
            return complex_tensor(num_dims)
        found: constraints.Constraint = constraints.independent(constraints.real, num_dims)
        return found

    @property
    def is_complex(self) -> bool:
        return self._factors[0].is_complex()

    @property
    def factors(self) -> list[Tensor]:
        """A_k with all batch dimensions, (*batch, M_k, N_k)."""
        return [a.expand(*self.batch_shape, *a.shape[-2:]) for a in self._factors]

    @property
    def scales(self) -> list[Tensor]:
        """g_k with all batch dimensions, (*batch, N_k)."""
        return [g.expand(*self.batch_shape, g.shape[-1]) for g in self._scales]

    def expand(
        self, batch_shape: Any, _instance: KroneckerSparseNormal | None = None
    ) -> KroneckerSparseNormal:
        """The same law with more batch dimensions."""
        new = self._get_checked_instance(KroneckerSparseNormal, _instance)
        batch_shape = torch.Size(batch_shape)
        new._factors, new._scales = self._factors, self._scales
        new.noise, new.num_snapshots = self.noise.expand(batch_shape), self.num_snapshots
        super(KroneckerSparseNormal, new).__init__(
            batch_shape, self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        shape = (*self.batch_shape, *self.event_shape)
        return torch.zeros(shape, dtype=self._factors[0].dtype, device=self.noise.device)

    @property
    def variance(self) -> Float[Tensor, "*batch event"]:
        """E abs(y)^2 of every measurement."""
        pairs = zip(self.factors, self.scales, strict=True)
        powers = [(a.abs().square() @ g.unsqueeze(-1)).squeeze(-1) for a, g in pairs]
        noise = self.noise.reshape(*self.batch_shape, *[1] * len(powers))
        variance = outer(powers) + noise
        if self.num_snapshots is not None:
            variance = variance.unsqueeze(-len(powers) - 1)
        return variance.expand(*self.batch_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Float[Tensor, "*sample"]:
        """Log density of measurements (*sample, *batch, *event); zero density at absurd scales."""
        if self._validate_args:
            self._validate_sample(value)
        y, factors, scales, noise = self._with_columns(value)
        largest = torch.finfo(noise.dtype).max ** (1 / 3)  # beyond it, products overflow
        usable = (noise > 0) & (noise < largest)
        for g in scales:
            usable = usable & ((g >= 0) & (g < largest)).all(-1)
        # eigenvalues of what is not finite cannot be asked for, not even to be thrown away
        scales = [torch.where(usable.unsqueeze(-1), g, 1.0) for g in scales]
        noise = torch.where(usable, noise, 1.0)
        if torch._C._are_functorch_transforms_active():
            found = _expanded(factors, scales, noise, y)
        else:
            found = kronecker_log_evidence([a.detach() for a in factors], scales, noise, y.detach())
        found = found + _by_data_and_factors(factors, scales, noise, y)
        return torch.where(usable, found, -math.inf)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Reparametrised draws of y."""
        shape = self._extended_shape(torch.Size(sample_shape))
        lead = shape[: len(shape) - len(self.event_shape)]
        num_factors = len(self._factors)
        columns = self.event_shape[: len(self.event_shape) - num_factors]
        dtype, device = self._factors[0].dtype, self.noise.device
        root = outer([g.sqrt() for g in self.scales])
        noise = self.noise.sqrt().reshape(*self.batch_shape, *[1] * len(self.event_shape))
        if columns:
            root = root.unsqueeze(-num_factors - 1)
        sizes = [g.shape[-1] for g in self._scales]
        x = root * torch.randn(*lead, *columns, *sizes, dtype=dtype, device=device)
        factors = [a.expand(*lead, *a.shape[-2:]) for a in self.factors]
        e = torch.randn(shape, dtype=dtype, device=device)
        return mode_products(x, factors) + noise * e

    def posterior(self, y: Tensor) -> KroneckerPosterior:
        """The coefficients given measurements (*sample, *batch, *event), exactly.

        Example:
            >>> one = torch.ones(1, 1).double()
            >>> law = KroneckerSparseNormal([one], [one[0]], one[0, 0])
            >>> law.posterior(torch.tensor([4.0]).double()).mean.item()
            2.0
        """
        columns, factors, scales, noise = self._with_columns(y)
        return KroneckerPosterior(
            factors, scales, noise, columns, has_snapshots=self.num_snapshots is not None
        )

    def _with_columns(self, y: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
        """y as (*B, L, M_1, ..., M_I), and the rest with the batch dimensions B."""
        lead = y.shape[: y.dim() - len(self.event_shape)]
        shape = torch.broadcast_shapes(lead, self.batch_shape)
        dtype = torch.promote_types(y.dtype, self._factors[0].dtype)
        y = y.to(dtype).expand(*shape, *self.event_shape)
        if self.num_snapshots is None:
            y = y.unsqueeze(-len(self._factors) - 1)
        return (
            y,
            [a.to(dtype).expand(*shape, *a.shape[-2:]) for a in self._factors],
            [g.expand(*shape, g.shape[-1]) for g in self._scales],
            self.noise.expand(shape),
        )


def _expanded(
    factors: list[Tensor], scales: list[Tensor], noise: Tensor, y: Tensor
) -> Float[Tensor, "*batch"]:
    """The log evidence, to first order around the present scales and noise.

    Raises:
        NumericalError: a second derivative is asked for.
    """
    stack = torch._C._functorch.get_interpreter_stack() or []
    derivatives = (TransformType.Grad, TransformType.Jvp)
    if sum(level.key() in derivatives for level in stack) > 1:
        raise NumericalError(
            message(
                "The evidence has a first derivative only",
                where="log_prob",
                got="a derivative of a derivative",
                remedy="use SVI, HMC or NUTS, which need no curvature",
            )
        )
    fixed = [g.detach() for g in scales]
    found = condition([a.detach() for a in factors], fixed, noise.detach(), y.detach())
    half, num_columns = (1.0 if y.is_complex() else 0.5), y.shape[-len(factors) - 1]
    slope = half * num_columns * (found.mean_square - found.sensitivity)
    by_noise = half * (found.weighted_square - num_columns * found.inverse_trace)
    value = found.log_evidence + by_noise.detach() * (noise - noise.detach())
    for k, (g, constant) in enumerate(zip(scales, fixed, strict=True)):
        by_scale = contract_all_but(slope, fixed, k).detach()
        value = value + (by_scale * (g - constant)).sum(-1)
    return value


def _by_data_and_factors(
    factors: list[Tensor], scales: list[Tensor], noise: Tensor, y: Tensor
) -> Tensor:
    """Zero, with the gradients in y and in the factors, where those are asked for."""
    zero = torch.zeros_like(noise)
    asked = y.requires_grad or any(a.requires_grad for a in factors)
    if not asked:
        return zero
    fixed = [a.detach() for a in factors]
    g, v, data = [s.detach() for s in scales], noise.detach(), y.detach()
    with torch.no_grad():
        mean = condition(fixed, g, v, data).mean
        residual = data - mode_products(mean, fixed)
        half = 1.0 if y.is_complex() else 0.5
        by_y = -2 * half * residual / v.reshape(*v.shape, *[1] * (y.dim() - v.dim()))
        by_factor = factor_gradients(fixed, g, v, data)
    dims = tuple(range(noise.dim(), y.dim()))
    zero = zero + (by_y.conj() * (y - data)).real.sum(dims)
    for slope, a, constant in zip(by_factor, factors, fixed, strict=True):
        zero = zero + (slope.conj() * (a - constant)).real.sum((-2, -1))
    return zero


def _check(factors: Sequence[Tensor], scales: Sequence[Tensor], num_snapshots: int | None) -> None:
    shapes = [tuple(a.shape) for a in factors], [tuple(g.shape) for g in scales]
    fits = len(factors) == len(scales) > 0 and all(
        a.dim() >= 2 and g.dim() >= 1 and a.shape[-1] == g.shape[-1]
        for a, g in zip(factors, scales, strict=False)
    )
    if not fits or (num_snapshots is not None and num_snapshots < 1):
        raise ShapeError(
            message(
                "Every factor (M_k, N_k) needs its scales (N_k,), and snapshots are at least one",
                where="factors, scales, num_snapshots",
                got=f"{shapes[0]}, {shapes[1]}, {num_snapshots}",
            )
        )
