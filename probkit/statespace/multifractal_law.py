r"""Exact law of multifractional Brownian motion with a causal kernel, in both definitions.

All fractional Brownian motions ``B_H`` driven by one white noise (Mandelbrot and Van Ness, unit
variance at t = 1) form a Gaussian field. With ``q = H + H'`` and ``theta = pi (H - H') / 2``,
its transfer functions ``(e^(iwt) - 1) (iw)^(-H-1/2)`` give::

    Cov(B_H(t), B_H'(s)) = (G(t - s) - G(t) - G(-s)) / sqrt(V_H V_H')
    G(x) = -|x|^q / (2 Gamma(q + 1)) [cos(theta) / sin(pi q / 2) - sgn(x) sin(theta) / cos(pi q/2)]

The two processes that a function H(t) makes of it differ::

    level       B(t)  = B_H(t)(t)                         one value of the field at each time
    increment   X(t_n) = sum_{m <= n} B_h(t_m) - B_h(t_(m-1)),  h = H at the middle of step m

Where ``q`` is near one the second part of G is ``0/0`` up to a multiple of x, which no increment
sees; it is subtracted. Source: S. A. Stoev and M. S. Taqqu, Stochastic Processes and their
Applications 116 (2006), where G's constants are given for kernels of both sides.
Cost: N^2, and N^3 for draws; the reference for ``multifractal``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.random import Seed, as_generator
from probkit.statespace.fractional_tables import mvn_variance

__all__ = [
    "DEFINITIONS",
    "field_covariance",
    "hurst_points",
    "multifractional_covariance",
    "sample_multifractional",
]

DEFINITIONS = ("increment", "level")
_NEAR_ONE = 1e-9


def hurst_points(times: Float[Tensor, " N"], definition: str) -> Float[Tensor, " N"]:
    """Where H is read for each of increasing positive times: there, or in the middle of the step.

    Raises:
        ConfigurationError: an unknown definition, or times that do not increase from above 0.

    Example:
        >>> hurst_points(torch.tensor([1.0, 3.0]), "increment").tolist()
        [0.5, 2.0]
    """
    if definition not in DEFINITIONS:
        raise ConfigurationError(
            message(
                "Unknown definition of a process with a time-varying Hurst index",
                where="definition",
                got=repr(definition),
                expected='"increment" or "level"',
            )
        )
    steps = torch.cat([times[:1], times.diff()])
    if not bool((steps > 0).all()):
        index = int(torch.nonzero(~(steps > 0))[0])
        raise ConfigurationError(
            message(
                "Times must be positive and increase",
                where="times",
                got=f"{float(times[index])} at index {index}",
                remedy="leave out time 0, where the process is 0",
            )
        )
    return times if definition == "level" else times - steps / 2


def field_covariance(
    left: Float[Tensor, "*#shape"],
    t: Float[Tensor, "*#shape"],
    right: Float[Tensor, "*#shape"],
    s: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*shape"]:
    """``Cov(B_H(t), B_H'(s))`` for H = ``left`` and H' = ``right``, elementwise; t, s >= 0.

    Example:
        >>> half, one = torch.tensor(0.5).double(), torch.tensor(1.0).double()
        >>> round(float(field_covariance(half, one, half, 2 * one)), 12)
        1.0
    """
    spread = (mvn_variance(left) * mvn_variance(right)).sqrt()
    G = _shape_function(left, right)
    return (G(t - s) - G(t) - G(-s)) / spread


def multifractional_covariance(
    hurst: Float[Tensor, " N"], times: Float[Tensor, " N"], *, definition: str = "increment"
) -> Float[Tensor, "N N"]:
    """Covariance at increasing positive times, exact.

    Args:
        hurst: H at ``hurst_points(times, definition)``.
        times: (N,).
        definition: "increment" or "level".

    Raises:
        ConfigurationError: an unknown definition or times that do not increase.

    Example:
        >>> times = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> multifractional_covariance(torch.full_like(times, 0.5), times).tolist()
        [[1.0, 1.0], [1.0, 2.0]]
    """
    hurst_points(times, definition)
    left, right, t, s = hurst[:, None], hurst, times[:, None], times
    if definition == "level":
        return field_covariance(left, t, right, s)
    G = _shape_function(left, right)
    before = torch.cat([times.new_zeros(1), times[:-1]])
    b, c = before[:, None], before
    steps = G(t - s) - G(t - c) - G(b - s) + G(b - c)
    steps = steps / (mvn_variance(left) * mvn_variance(right)).sqrt()
    return steps.cumsum(0).cumsum(1)


def sample_multifractional(
    hurst: Float[Tensor, " N"],
    times: Float[Tensor, " N"],
    num_paths: int,
    *,
    definition: str = "increment",
    seed: Seed = 0,
) -> Float[Tensor, "num_paths N"]:
    """Exact draws by a Cholesky factor; for thousands of times at most.

    Example:
        >>> times = torch.linspace(0.1, 1, 10, dtype=torch.float64)
        >>> sample_multifractional(0.3 + 0.4 * times, times, 3).shape
        torch.Size([3, 10])
    """
    covariance = multifractional_covariance(hurst, times, definition=definition)
    generator = as_generator(seed)
    white = torch.randn(len(times), num_paths, generator=generator, dtype=times.dtype)
    if definition == "level":
        return (torch.linalg.cholesky(covariance) @ white).mT
    # increments are far better conditioned than their sums
    steps = torch.nn.functional.pad(covariance, (1, 0, 1, 0)).diff(dim=0).diff(dim=1)
    return (torch.linalg.cholesky(steps) @ white).cumsum(0).mT


class _shape_function:
    """G for the Mandelbrot-Van Ness scale."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.q = left + right
        theta = torch.pi * (left - right) / 2
        half = torch.exp(-torch.lgamma(self.q + 1)) / 2
        self.even = -half * torch.cos(theta) / torch.sin(torch.pi * self.q / 2)
        self.odd = -half * torch.sin(theta)
        self.excess = self.q - 1
        self.near = self.excess.abs() < _NEAR_ONE
        safe = torch.where(self.near, torch.ones_like(self.excess), self.excess)
        self.sine = torch.sin(torch.pi * safe / 2)

    def __call__(self, x: Tensor) -> Tensor:
        size = x.abs()
        logs = torch.log(torch.where(size > 0, size, torch.ones_like(size)))
        # x (|x|^(q-1) - 1) / sin(pi (q-1) / 2), the multiple of x subtracted
        ratio = torch.where(
            self.near, 2 * logs / torch.pi, torch.expm1(self.excess * logs) / self.sine
        )
        return self.even * size**self.q + self.odd * x * ratio
