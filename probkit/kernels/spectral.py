r"""Kernels with a mixture spectrum, their derivatives and their harmonic features.

    k(d) = sum_q w_q e(d; s_q) cos(2 pi mu_q d)

with the envelope ``e`` of a Gaussian mixture, ``exp(-(d / s)^2 / 2)``, or of a Student-t mixture
with five degrees of freedom, the Matérn-5/2 ``(1 + x + x^2 / 3) exp(-x)``, ``x = sqrt(5) |d| / s``.
The spectral densities ``S(f) = int k(d) exp(-2 pi i f d) dd`` of the envelopes are

    sqrt(2 pi) s exp(-2 (pi s f)^2)   and   (16 / 3) a^5 / (a^2 + (2 pi f)^2)^3,  a = sqrt(5) / s

moved to ``+mu`` and ``-mu``. Weights are parameters on the log scale without prior, which is
Jeffreys' prior ``1 / w``: components that are not needed die. Any derivative is Leibniz' sum over
closed forms of envelope and cosine; no matrix is differentiated.

Cost: ``O(N M Q)`` a matrix. Source: Fang et al., ICLR 2024, arXiv 2311.04465; the authors
differentiate ``N x N x Q`` tensors by nested automatic differentiation instead, and choose the
band of frequencies by hand for every problem.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.priors import Prior
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, ShapeError, message
from probkit.kernels.constraints import log_positive
from probkit.kernels.periodogram import check_scattered, pursue

__all__ = ["HarmonicFeatures", "SpectralMixtureKernel"]

Kind = Literal["gaussian", "student"]

_ORDERS = {"gaussian": 8, "student": 4}
_MATERN = ((1, 1, 1 / 3), (0, -1 / 3, -1 / 3), (-1 / 3, -1 / 3, 1 / 3), (0, 1, -1 / 3))
_MATERN_POLYNOMIALS = (*_MATERN, (1, -5 / 3, 1 / 3))
"""coefficients of the polynomials that multiply ``exp(-x)`` in the derivatives of Matérn-5/2"""


class HarmonicFeatures(NamedTuple):
    """Features ``1, cos(2 pi j x / T), sin(2 pi j x / T)`` that stand for a kernel on a side.

    Attributes:
        period: T, in units of the input.
        frequencies: (2 J + 1,) cycles per unit: the constant, the cosines, the sines.
        variances: (2 J + 1,) prior variances of the coefficients.
    """

    period: float
    frequencies: Float[Tensor, " m"]
    variances: Float[Tensor, " m"]


class SpectralMixtureKernel(Kernel):
    """Gaussian or Student-t mixture spectrum on one input column.

    Args:
        num_components: Q.
        kind: "gaussian" (infinitely smooth) or "student" (Matérn-5/2 envelope: sharp features).
        batch_shape: of independent kernels.
        active_dims: the input column; multiply kernels for several dimensions.
        weight_prior, frequency_prior, lengthscale_prior: proper priors; None is flat, which for
            the weights, on the log scale, is Jeffreys'. NUTS needs proper ones.
        frequency_constraint, lengthscale_constraint: positive on the log scale by default.
        dtype: of the parameters.

    Raises:
        ConfigurationError: no component, an unknown kind, several ``active_dims``.

    Example:
        >>> kernel = SpectralMixtureKernel(2, kind="student")
        >>> kernel.frequencies = torch.tensor([1.0, 4.0])
        >>> x = torch.linspace(0, 1, 3, dtype=torch.float64)[:, None]
        >>> [round(value, 6) for value in kernel(x).to_dense().diagonal().tolist()]
        [1.0, 1.0, 1.0]
    """

    has_lengthscale = False

    def __init__(
        self,
        num_components: int = 30,
        *,
        kind: Kind = "gaussian",
        batch_shape: torch.Size | tuple[int, ...] = (),
        active_dims: tuple[int, ...] | None = None,
        weight_prior: Prior | None = None,
        frequency_prior: Prior | None = None,
        lengthscale_prior: Prior | None = None,
        frequency_constraint: Interval | None = None,
        lengthscale_constraint: Interval | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        _check_arguments(num_components, kind, active_dims)
        super().__init__(batch_shape=torch.Size(batch_shape), active_dims=active_dims)
        self.kind, self.num_components = kind, num_components
        shape = (*batch_shape, num_components)
        level = torch.full(shape, -math.log(num_components), dtype=dtype)
        self.register_parameter("log_weights", torch.nn.Parameter(level))
        rising = torch.arange(1, num_components + 1, dtype=dtype).log().expand(shape).clone()
        self.register_parameter("raw_frequencies", torch.nn.Parameter(rising))
        unit = torch.zeros(shape, dtype=dtype)
        self.register_parameter("raw_lengthscales", torch.nn.Parameter(unit))
        self.register_constraint("raw_frequencies", frequency_constraint or log_positive())
        self.register_constraint("raw_lengthscales", lengthscale_constraint or log_positive())
        for name, prior in (
            ("weights", weight_prior),
            ("frequencies", frequency_prior),
            ("lengthscales", lengthscale_prior),
        ):
            if prior is not None:
                self.register_prior(f"{name}_prior", prior.to(dtype), *_access(name))

    @property
    def is_stationary(self) -> bool:
        return True

    @property
    def max_order(self) -> int:
        """Highest total order of differentiation, both arguments together."""
        return _ORDERS[self.kind]

    @property
    def weights(self) -> Float[Tensor, "*batch Q"]:
        """Variances of the components."""
        return self.log_weights.exp()

    @weights.setter
    def weights(self, value: Tensor) -> None:
        self.initialize(log_weights=self._like(value).log())

    @property
    def frequencies(self) -> Float[Tensor, "*batch Q"]:
        """Centres of the components, cycles per unit of the input."""
        return self.raw_frequencies_constraint.transform(self.raw_frequencies)

    @frequencies.setter
    def frequencies(self, value: Tensor) -> None:
        raw = self.raw_frequencies_constraint.inverse_transform(self._like(value))
        self.initialize(raw_frequencies=raw)

    @property
    def lengthscales(self) -> Float[Tensor, "*batch Q"]:
        """Lengths over which the components' phases drift, in units of the input."""
        return self.raw_lengthscales_constraint.transform(self.raw_lengthscales)

    @lengthscales.setter
    def lengthscales(self, value: Tensor) -> None:
        raw = self.raw_lengthscales_constraint.inverse_transform(self._like(value))
        self.initialize(raw_lengthscales=raw)

    def forward(
        self,
        x1: Float[Tensor, "*batch N 1"],
        x2: Float[Tensor, "*batch M 1"],
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,
    ) -> Tensor:
        """Dense covariance ``(*batch, N, M)``, or its diagonal ``(*batch, N)``.

        Raises:
            ShapeError: inputs of more than one dimension.
        """
        if last_dim_is_batch or x1.shape[-1] != 1 or x2.shape[-1] != 1:
            raise ShapeError(
                message(
                    "A spectral mixture takes one input column",
                    where="x1, x2",
                    got=f"{tuple(x1.shape)} and {tuple(x2.shape)}",
                    expected="(..., N, 1)",
                    remedy="choose the column with active_dims=(index,)",
                )
            )
        return self.lag_covariance((x1 - x2)[..., 0] if diag else x1 - x2.mT, event=1 + (not diag))

    def lag_covariance(
        self, lag: Float[Tensor, "*batch *n"], order: int = 0, *, event: int = 1
    ) -> Float[Tensor, "*batch *n"]:
        """The ``order``-th derivative of k by the lag ``x1 - x2``.

        Args:
            lag: signed; zero is handled exactly, and can be differentiated twice.
            order: up to ``max_order``.
            event: number of dimensions of ``lag`` after those of ``batch_shape``.

        Raises:
            ConfigurationError: the kernel is not that smooth.
        """
        if not 0 <= order <= self.max_order:
            raise ConfigurationError(
                message(
                    f"A {self.kind} mixture has no such derivative",
                    where="order",
                    got=order,
                    expected=f"0 to {self.max_order}, both arguments together",
                    remedy="a Gaussian mixture is infinitely smooth" * (self.kind == "student"),
                )
            )
        weights, speed, lengths = (
            value[(..., *[None] * event, slice(None))]
            for value in (self.weights, 2 * math.pi * self.frequencies, self.lengthscales)
        )
        lag = lag[..., None]
        envelopes = _ENVELOPES[self.kind](lag, lengths, order)
        angle = speed * lag
        total = torch.zeros_like(angle)
        for k, envelope in enumerate(envelopes):
            n = order - k
            wave = (angle.cos(), -angle.sin(), -angle.cos(), angle.sin())[n % 4]
            total = total + math.comb(order, k) * envelope * speed**n * wave
        return (weights * total).sum(-1)

    def derivative(
        self,
        x1: Float[Tensor, "*batch N 1"],
        x2: Float[Tensor, "*batch M 1"],
        left: int = 0,
        right: int = 0,
    ) -> Float[Tensor, "*batch N M"]:
        """The matrix of ``d^left/dx1^left d^right/dx2^right k(x1, x2)`` in closed form.

        Raises:
            ConfigurationError: the kernel is not that smooth.
        """
        return (-1) ** right * self.lag_covariance(x1 - x2.mT, left + right, event=2)

    def spectral_density(self, frequency: Float[Tensor, " n"]) -> Float[Tensor, "*batch n"]:
        """Two-sided density of the variance over cycles per unit; symmetric."""
        return self.spectral_density_at(
            frequency, self.weights, self.frequencies, self.lengthscales
        )

    def spectral_density_at(
        self,
        frequency: Float[Tensor, " n"],
        weights: Float[Tensor, "*batch Q"],
        centers: Float[Tensor, "*batch Q"],
        lengths: Float[Tensor, "*batch Q"],
    ) -> Float[Tensor, "*batch n"]:
        """The density at other parameters than the kernel's own, such as draws of them."""
        density, f = _DENSITIES[self.kind], frequency[..., None]
        centers, lengths = centers[..., None, :], lengths[..., None, :]
        both = density(f - centers, lengths) + density(f + centers, lengths)
        return (weights[..., None, :] * both).sum(-1) / 2

    def harmonic_features(self, length: float, *, tolerance: float = 1e-14) -> HarmonicFeatures:
        """Features on a side of ``length`` whose covariance is this kernel.

        The period is ``length`` plus the distance at which the envelopes have fallen to
        ``tolerance``; the band ends where the spectrum has (Student-t: at ``20 / lengthscale``,
        where it leaves less than 1e-9 of the variance). Variances carry gradients; the number of
        features depends on the parameters' present values.

        Raises:
            ConfigurationError: a batch of kernels, a length or tolerance out of range.
        """
        if self.batch_shape or not (length > 0 and 0 < tolerance < 1):
            raise ConfigurationError(
                message(
                    "Harmonic features are those of one kernel on one side",
                    where="batch_shape, length, tolerance",
                    got=(tuple(self.batch_shape), length, tolerance),
                    expected="no batch, length > 0, tolerance in (0, 1)",
                )
            )
        lengths, centers = self.lengthscales.detach(), self.frequencies.detach()
        decades = math.log(1 / tolerance)
        if self.kind == "gaussian":
            fade, reach = math.sqrt(2 * decades), math.sqrt(decades / 2) / math.pi
        else:
            fade, reach = (decades + 8) / math.sqrt(5), 20.0
        period = length + fade * float(lengths.max())
        top = float((centers + reach / lengths).max())
        positive = torch.arange(1, math.ceil(top * period) + 1).to(centers) / period
        density = self.spectral_density(torch.cat([positive.new_zeros(1), positive])) / period
        variances = torch.cat([density[:1], 2 * density[1:], 2 * density[1:]])
        frequencies = torch.cat([positive.new_zeros(1), positive, positive])
        return HarmonicFeatures(period, frequencies, variances)

    def initialize_from_data(
        self, x: Float[Tensor, " n"], y: Float[Tensor, " n"]
    ) -> SpectralMixtureKernel:
        """Components at the peaks of the windowed periodogram of values at scattered points.

        A Kaiser window keeps a strong peak from hiding weak ones, and what was found is taken away
        before the next search; each component takes the power of its peak, and half the length of
        the data as lengthscale.

        Raises:
            ShapeError, DataError: fewer than four points, sizes that differ, values not finite.
        """
        check_scattered(x, y)
        with torch.no_grad():
            x, y = self._like(x), self._like(y)
            span = float(x.max() - x.min())
            frequencies, power = pursue(x, y, self.num_components)
            least = torch.finfo(y.dtype).tiny
            variance = (y - y.mean()).square().mean().clamp(min=least)
            self.weights = variance * (power / power.sum().clamp(min=least)).clamp(min=1e-12)
            self.frequencies = frequencies.clamp(min=0.25 / span)
            self.lengthscales = torch.full_like(power, span / 2)
        return self

    def _like(self, value: Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=self.log_weights.dtype, device=self.log_weights.device)


def _gaussian_envelopes(lag: Tensor, lengths: Tensor, order: int) -> list[Tensor]:
    found = [torch.exp(-0.5 * (lag / lengths).square())]
    for n in range(order):  # Hermite's recursion: e'' = -(d e)' / s^2
        before = n * found[n - 1] if n else 0.0
        found.append(-(lag * found[n] + before) / lengths.square())
    return found


def _matern_envelopes(lag: Tensor, lengths: Tensor, order: int) -> list[Tensor]:
    rate = math.sqrt(5) / lengths
    # where, not abs: its one-sided slope at zero gives the right second derivative by autograd
    sign = torch.where(lag >= 0, 1.0, -1.0).to(lag)
    x = sign * lag * rate
    decay = torch.exp(-x)
    found = []
    for n in range(order + 1):
        first, second, third = _MATERN_POLYNOMIALS[n]
        found.append((sign * rate) ** n * (first + x * (second + third * x)) * decay)
    return found


def _gaussian_density(f: Tensor, lengths: Tensor) -> Tensor:
    return math.sqrt(2 * math.pi) * lengths * torch.exp(-2 * (math.pi * lengths * f).square())


def _student_density(f: Tensor, lengths: Tensor) -> Tensor:
    rate = math.sqrt(5) / lengths
    return 16 / 3 * rate**5 / (rate.square() + (2 * math.pi * f).square()) ** 3


_ENVELOPES = {"gaussian": _gaussian_envelopes, "student": _matern_envelopes}
_DENSITIES = {"gaussian": _gaussian_density, "student": _student_density}


def _access(name: str) -> tuple[Any, Any]:
    """Read and write a parameter by name, as GPyTorch's priors want it."""

    def get(kernel: SpectralMixtureKernel) -> Tensor:
        value: Tensor = getattr(kernel, name)
        return value

    def put(kernel: SpectralMixtureKernel, value: Tensor) -> None:
        setattr(kernel, name, value)

    return get, put


def _check_arguments(num_components: int, kind: str, active_dims: tuple[int, ...] | None) -> None:
    if num_components < 1 or kind not in _ORDERS:
        raise ConfigurationError(
            message(
                "No such mixture",
                where="num_components, kind",
                got=(num_components, kind),
                expected=f"at least 1, and one of {sorted(_ORDERS)}",
            )
        )
    if active_dims is not None and len(active_dims) != 1:
        raise ConfigurationError(
            message(
                "A spectral mixture lives on one input dimension",
                where="active_dims",
                got=tuple(active_dims),
                expected="one column",
                remedy="multiply kernels with different active_dims",
            )
        )
