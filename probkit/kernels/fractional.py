"""Fractional Brownian motion and its increments as GPyTorch kernels, exact and Markov-approximate.

With Hurst index H in (0, 1) and times t, s >= 0::

    FractionalBrownianKernel   (t^2H + s^2H - |t - s|^2H) / 2
    FractionalNoiseKernel      (|u + 1|^2H + |u - 1|^2H - 2 |u|^2H) / 2,  u = (t - s) / step
    MarkovFractionalKernel     the first, by K decaying exponentials (law weights, unit variance)

Noise on an even grid is a Toeplitz matrix. The Markov approximation at increasing times is
semiseparable (:mod:`probkit.linalg.semiseparable`) of K + 3 terms, so that the marginal likelihood
costs N K^2 at any spacing of the times. Put them inside ``ScaleKernel`` for a variance.

Sources: Mandelbrot & Van Ness, SIAM Review 10 (1968); Daems et al., ICLR 2024, arXiv 2310.12975,
with weights that fit the law of the increments (:mod:`probkit.statespace.fractional`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from jaxtyping import Float
from linear_operator.operators import LinearOperator, ToeplitzLinearOperator
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, ShapeError, message
from probkit.linalg.semiseparable import SemiseparableLinearOperator
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_tables import HURST_RANGE

__all__ = ["FractionalBrownianKernel", "FractionalNoiseKernel", "MarkovFractionalKernel"]

_EVEN, _COARSE = 1e-9, 1e-3


class _HurstKernel(Kernel):
    """One input column, one parameter ``raw_hurst`` (*batch_shape, 1) with its ``hurst``."""

    has_lengthscale = False

    def __init__(
        self,
        hurst: float,
        bounds: tuple[float, float],
        *,
        dtype: torch.dtype = torch.float64,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not bounds[0] < hurst < bounds[1]:
            raise ConfigurationError(
                message(
                    "A Hurst index lies inside its range",
                    where="hurst",
                    got=hurst,
                    expected=f"in {bounds}",
                )
            )
        start = torch.zeros(*self.batch_shape, 1, dtype=dtype)
        self.register_parameter("raw_hurst", torch.nn.Parameter(start))
        self.register_constraint("raw_hurst", Interval(*bounds).to(dtype))
        self.hurst = hurst

    @property
    def hurst(self) -> Float[Tensor, "*batch 1"]:
        """H."""
        found: Tensor = self.raw_hurst_constraint.transform(self.raw_hurst)
        return found

    @hurst.setter
    def hurst(self, value: float | Tensor) -> None:
        like = self.raw_hurst
        given = torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(like.shape)
        self.initialize(raw_hurst=self.raw_hurst_constraint.inverse_transform(given))

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance of times (*batch, N, 1) and (*batch, M, 1), or its diagonal.

        Raises:
            ShapeError: more than one input column.
            DataError: negative times, for kernels of a motion that starts at 0.
        """
        t, s = (_column(x).to(self.raw_hurst.dtype) for x in (x1, x2))
        self._check_times(t, s)
        if diag:
            return self._covariance(t, s, 1)
        same = t.shape == s.shape and bool((t == s).all())
        structured = self._structured(t) if same else None
        if structured is not None:
            return structured
        return self._covariance(t.unsqueeze(-1), s.unsqueeze(-2), 2)

    def _check_times(self, t: Tensor, s: Tensor) -> None:
        if bool((t < 0).any()) or bool((s < 0).any()):
            raise DataError(
                message(
                    "Fractional Brownian motion starts at time 0",
                    where="x",
                    got=float(torch.minimum(t.min(), s.min())),
                    expected=">= 0",
                )
            )

    @abstractmethod
    def _covariance(self, t: Tensor, s: Tensor, num_event: int) -> Tensor:
        """Elementwise over broadcast times, the last ``num_event`` dimensions being no batch."""

    def _structured(self, t: Tensor) -> LinearOperator | None:
        """The covariance of times with themselves, where it has structure."""
        return None


class FractionalBrownianKernel(_HurstKernel):
    """Exact fractional Brownian motion, zero at time 0, of unit variance at time 1.

    Args:
        hurst: to start from; the parameter is ``raw_hurst``.
        **kwargs: ``dtype`` of parameters and covariances, float64 by default; of GPyTorch's
            kernels ``batch_shape``, ``active_dims``.

    Raises:
        ConfigurationError: a Hurst index outside (0, 1).

    Example:
        >>> kernel = FractionalBrownianKernel(0.5)
        >>> kernel(torch.tensor([[1.0], [4.0]]).double()).to_dense().tolist()
        [[1.0, 1.0], [1.0, 4.0]]
    """

    def __init__(self, hurst: float = 0.5, **kwargs: Any) -> None:
        super().__init__(hurst, (0.0, 1.0), **kwargs)

    def _covariance(self, t: Tensor, s: Tensor, num_event: int) -> Tensor:
        power = 2 * _lift(self.hurst.squeeze(-1), num_event)
        return (t**power + s**power - (t - s).abs() ** power) / 2


class FractionalNoiseKernel(_HurstKernel):
    """Increments of fractional Brownian motion over one ``step``, of unit variance; stationary.

    Args:
        hurst: to start from; the parameter is ``raw_hurst``.
        step: length of the increments; inputs are the ends of their intervals.
        **kwargs: ``dtype`` of parameters and covariances, float64 by default; of GPyTorch's
            kernels ``batch_shape``, ``active_dims``.

    Raises:
        ConfigurationError: a Hurst index outside (0, 1), or a step that is not positive.

    Example:
        >>> kernel = FractionalNoiseKernel(0.7)
        >>> covariance = kernel(torch.arange(4.0).double()[:, None]).evaluate_kernel()
        >>> type(covariance).__name__, round(covariance.to_dense()[0, 1].item(), 3)
        ('ToeplitzLinearOperator', 0.32)
    """

    def __init__(self, hurst: float = 0.5, *, step: float = 1.0, **kwargs: Any) -> None:
        super().__init__(hurst, (0.0, 1.0), **kwargs)
        if not step > 0:
            raise ConfigurationError(
                message("A step has a positive length", where="step", got=step, expected="> 0")
            )
        self.step = step

    @property
    def is_stationary(self) -> bool:
        return True

    def _check_times(self, t: Tensor, s: Tensor) -> None:
        """Stationary noise has no first time."""

    def _covariance(self, t: Tensor, s: Tensor, num_event: int) -> Tensor:
        u = (t - s) / self.step
        power = 2 * _lift(self.hurst.squeeze(-1), num_event)
        return ((u + 1).abs() ** power + (u - 1).abs() ** power - 2 * u.abs() ** power) / 2

    def _structured(self, t: Tensor) -> LinearOperator | None:
        gaps = t.diff()
        if t.shape[-1] < 2:
            return None
        # of the step, and what rounding makes of large times, unless that is coarse
        step = gaps[..., :1].abs()
        rounding = 4 * torch.finfo(t.dtype).eps * t.abs().amax()
        slack = torch.minimum(_EVEN * step + rounding, _COARSE * step)
        if bool(((gaps - gaps[..., :1]).abs() > slack).any()):
            return None
        return ToeplitzLinearOperator(self._covariance(t, t[..., :1], 1))


class MarkovFractionalKernel(_HurstKernel):
    """Fractional Brownian motion by exponentials: linear cost at increasing times.

    The error of the law is that of :class:`~probkit.statespace.fractional.MarkovApproxFBM`: a
    divergence of some 1e-6 a point for times that are multiples of ``dt`` up to ``num_steps``.

    Args:
        hurst: to start from, in (.03, .97); the parameter is ``raw_hurst``.
        num_steps: length of the longest series in steps; chooses the table.
        dt: shortest step of the times that matters.
        **kwargs: ``dtype`` of parameters and covariances, float64 by default; of GPyTorch's
            kernels ``batch_shape``, ``active_dims``.

    Raises:
        ConfigurationError: a Hurst index outside the tables.

    Example:
        >>> times = torch.arange(1.0, 6.0).double()[:, None]
        >>> near = MarkovFractionalKernel(0.3)(times).to_dense()
        >>> exact = FractionalBrownianKernel(0.3)(times).to_dense()
        >>> bool((near - exact).abs().max() < 0.01)
        True
    """

    def __init__(
        self, hurst: float = 0.5, *, num_steps: int = 1024, dt: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(hurst, HURST_RANGE, **kwargs)
        self.num_steps, self.dt = num_steps, dt

    def process(self) -> MarkovApproxFBM:
        """The approximation at the present Hurst index, in float64."""
        return MarkovApproxFBM(
            self.hurst.squeeze(-1).double(), num_steps=self.num_steps, dt=self.dt
        )

    def _covariance(self, t: Tensor, s: Tensor, num_event: int) -> Tensor:
        process, share = self._shares(num_event)
        time, other = t.double(), s.double()
        gap = _fade(process.rates, (time - other).abs(), share)
        moved = _fade(process.rates, time, share) + _fade(process.rates, other, share)
        slope = _lift(process.slope_variance, num_event)
        return (gap - moved + share.sum(-1) + slope * time * other).to(t.dtype)

    def _structured(self, t: Tensor) -> LinearOperator | None:
        if bool((t.diff() < 0).any()):
            return None
        process, share = self._shares(1)
        time = t.double()
        past = _fade(process.rates, time, share)
        slope = _lift(process.slope_variance, 1)
        shape = torch.broadcast_shapes(past.shape, slope.shape)
        one = torch.ones(shape, dtype=time.dtype, device=time.device)
        total = share.sum(-1)
        fading = share.expand(*shape, share.shape[-1])
        static = torch.stack([-past.expand(shape), one, slope * time * one], -1)
        left = torch.cat([fading, static], -1)
        seen = torch.stack([one, total - past, time * one], -1)
        right = torch.cat([torch.ones_like(fading), seen], -1)
        gaps = torch.cat([time[..., :1], time.diff()], -1).unsqueeze(-1)
        decay = torch.nn.functional.pad(-process.rates * gaps, (0, 3)).expand(left.shape)
        variance = 2 * (total - past) + slope * time.square()
        parts = (left, right, decay, variance.expand(shape))
        return SemiseparableLinearOperator(*(part.to(t.dtype) for part in parts))

    def _shares(self, num_event: int) -> tuple[MarkovApproxFBM, Tensor]:
        """The process, and R_k as (*batch, 1, ..., K)."""
        process = self.process()
        gram = 1 / (process.rates[:, None] + process.rates)
        share = process.weights * (process.weights @ gram)
        return process, share.reshape(*share.shape[:-1], *[1] * num_event, share.shape[-1])


def _column(x: Tensor) -> Tensor:
    if x.shape[-1] != 1:
        raise ShapeError(
            message(
                "A fractional kernel takes one input column",
                where="x",
                got=tuple(x.shape),
                expected="(..., N, 1)",
                remedy="choose the column with active_dims=(index,)",
            )
        )
    return x.squeeze(-1)


def _lift(value: Tensor, num_event: int) -> Tensor:
    return value.reshape(*value.shape, *[1] * num_event)


def _fade(rates: Tensor, gap: Tensor, share: Tensor) -> Tensor:
    """sum_k R_k exp(-g_k gap)."""
    return (share * torch.exp(-rates * gap.unsqueeze(-1))).sum(-1)
