"""Cosine, periodic and quasi-periodic kernels from noise-free resonators.

The periodic kernel ``exp(-2 sin(pi d / p)^2 / l^2)`` is the cosine series::

    k(d) = sum_j w_j cos(2 pi j d / p),   w_0 = I_0(z) e^-z,  w_j = 2 I_j(z) e^-z,  z = 1 / l^2

Each term is a resonator: a state rotating by ``2 pi j d / p`` without noise. The series is cut
after ``num_harmonics`` terms and the weights rescaled to sum to one, so that the variance stays one
and the dense kernel is exactly that of the state space. ``GPyTorch`` writes ``l`` for our ``l^2``.
The Bessel ratios ``I_j / I_{j-1}`` come from their continued fraction, downwards: all terms are
positive, nothing overflows.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from gpytorch.constraints import Interval
from gpytorch.priors import Prior
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.kernels.composition import MarkovProductKernel
from probkit.kernels.constraints import log_positive
from probkit.kernels.markov import MarkovKernel
from probkit.kernels.matern import MaternKernel
from probkit.statespace.discretization import rotation
from probkit.statespace.types import LTISDE, Transitions

__all__ = ["CosineKernel", "PeriodicKernel", "QuasiPeriodicKernel"]

_EXTRA_BESSEL_TERMS = 40


class CosineKernel(MarkovKernel):
    r"""``cos(2 pi d / period_length)``: one resonator, a sinusoid of random phase and amplitude.

    Args:
        period_length_prior: prior on the period.
        period_length_constraint: positive by default.
        **kwargs: see :class:`~probkit.kernels.markov.MarkovKernel`.

    Example:
        >>> kernel = CosineKernel()
        >>> kernel.period_length = 2.0
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> kernel(x).to_dense()[0].tolist()
        [1.0, -1.0]
    """

    def __init__(
        self,
        *,
        period_length_prior: Prior | None = None,
        period_length_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        dtype = kwargs.get("dtype", torch.float64)
        raw = torch.zeros(*self._batch_shape, 1, 1, dtype=dtype)
        self.register_parameter("raw_period_length", torch.nn.Parameter(raw))
        constraint = (
            log_positive() if period_length_constraint is None else period_length_constraint
        )
        self.register_constraint("raw_period_length", constraint.to(dtype))
        if period_length_prior is not None:
            self.register_prior(
                "period_length_prior",
                period_length_prior.to(dtype),
                self._period_length_param,
                self._period_length_closure,
            )

    @property
    def period_length(self) -> Float[Tensor, "*batch 1 1"]:
        """Period, in units of the input."""
        return self.raw_period_length_constraint.transform(self.raw_period_length)

    @period_length.setter
    def period_length(self, value: float | Tensor) -> None:
        value = torch.as_tensor(
            value, dtype=self.raw_period_length.dtype, device=self.raw_period_length.device
        )
        raw = self.raw_period_length_constraint.inverse_transform(value)
        self.initialize(raw_period_length=raw)

    @property
    def state_dimension(self) -> int:
        return 2

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        return torch.cos((x1 - x2) * (2 * math.pi / self.period_length))

    def state_space(self) -> LTISDE:
        frequency = 2 * math.pi / self.period_length
        generator = frequency.new_tensor([[0.0, -1.0], [1.0, 0.0]])
        identity = torch.eye(2, dtype=frequency.dtype, device=frequency.device)
        return _noise_free(frequency * generator, identity[:1], identity)

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        A = rotation(steps * (2 * math.pi / self.period_length[..., 0]))
        return Transitions(A, torch.zeros_like(A))

    def _period_length_param(self, kernel: CosineKernel) -> Tensor:
        return kernel.period_length

    def _period_length_closure(self, kernel: CosineKernel, value: Tensor) -> None:
        kernel.period_length = value


class PeriodicKernel(CosineKernel):
    r"""Periodic kernel ``exp(-2 sin(pi d / p)^2 / l^2)``, cut after ``num_harmonics`` and rescaled.

    The process is a random periodic function: its ``2 num_harmonics + 1`` states move without
    noise. Multiply it by a Matérn kernel (:class:`QuasiPeriodicKernel`) for a pattern that changes.

    Args:
        num_harmonics: terms after the constant; the relative weight cut off is about
            ``(z / 2)^J / J!`` with ``z = 1 / lengthscale^2``.
        **kwargs: see :class:`CosineKernel`.

    Raises:
        ConfigurationError: fewer than one harmonic.

    Example:
        >>> PeriodicKernel(num_harmonics=4).state_dimension
        9
    """

    has_lengthscale = True

    def __init__(self, num_harmonics: int = 6, **kwargs: Any) -> None:
        if num_harmonics < 1:
            raise ConfigurationError(
                message(
                    "A periodic kernel needs a harmonic",
                    where="num_harmonics",
                    got=num_harmonics,
                    expected=">= 1",
                )
            )
        super().__init__(**kwargs)
        self.num_harmonics = num_harmonics

    @property
    def state_dimension(self) -> int:
        return 2 * self.num_harmonics + 1

    @property
    def weights(self) -> Float[Tensor, "*batch J"]:
        """Variance of the constant and of each harmonic; they sum to one."""
        return _harmonic_weights(1 / self.lengthscale[..., 0, 0] ** 2, self.num_harmonics)

    def covariance(
        self, x1: Float[Tensor, "*batch #N #M"], x2: Float[Tensor, "*batch #N #M"]
    ) -> Float[Tensor, "*batch N M"]:
        cosine = torch.cos((x1 - x2) * (2 * math.pi / self.period_length))
        weights = self.weights[..., None, None, :].unbind(-1)
        later, latest = torch.zeros_like(cosine), torch.zeros_like(cosine)
        for weight in reversed(weights[1:]):  # Clenshaw's sum of a Chebyshev series
            later, latest = latest, weight + 2 * cosine * latest - later
        return weights[0] + cosine * latest - later

    def state_space(self) -> LTISDE:
        frequency = 2 * math.pi / self.period_length
        generator = frequency.new_zeros(self.state_dimension, self.state_dimension)
        row = frequency.new_zeros(1, self.state_dimension)
        row[0, 0] = 1.0
        for j in range(1, self.num_harmonics + 1):
            generator[2 * j - 1, 2 * j], generator[2 * j, 2 * j - 1] = -j, j
            row[0, 2 * j - 1] = 1.0
        weights = self.weights
        pairs = weights[..., 1:].repeat_interleave(2, -1)
        stationary = torch.diag_embed(torch.cat([weights[..., :1], pairs], -1))
        return _noise_free(frequency * generator, row, stationary)

    def transitions_over(self, steps: Float[Tensor, "*batch T"]) -> Transitions:
        angle = steps * (2 * math.pi / self.period_length[..., 0])
        order = torch.arange(1, self.num_harmonics + 1, dtype=angle.dtype, device=angle.device)
        blocks = rotation(angle.unsqueeze(-1) * order)
        A = angle.new_zeros(*angle.shape, self.state_dimension, self.state_dimension)
        A[..., 0, 0] = 1.0
        for j in range(self.num_harmonics):
            A[..., 2 * j + 1 : 2 * j + 3, 2 * j + 1 : 2 * j + 3] = blocks[..., j, :, :]
        return Transitions(A, torch.zeros_like(A))


class QuasiPeriodicKernel(MarkovProductKernel):
    r"""Periodic times Matérn: a periodic pattern that changes slowly.

    ``kernel.periodic`` and ``kernel.decay`` hold the hyper-parameters; the state is the Kronecker
    product of theirs, ``(2 num_harmonics + 1)(nu + 1/2)`` entries.

    Args:
        nu: smoothness of the Matérn factor.
        num_harmonics: of the periodic factor.
        lengthscale_prior, period_length_prior: priors of the periodic factor.
        decay_prior: prior on the lengthscale of the Matérn factor.
        **kwargs: ``batch_shape``, ``active_dims``, ``dtype`` for both.

    Example:
        >>> QuasiPeriodicKernel(nu=1.5, num_harmonics=2).state_dimension
        10
    """

    def __init__(
        self,
        nu: float = 1.5,
        *,
        num_harmonics: int = 3,
        lengthscale_prior: Prior | None = None,
        period_length_prior: Prior | None = None,
        decay_prior: Prior | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            PeriodicKernel(
                num_harmonics,
                lengthscale_prior=lengthscale_prior,
                period_length_prior=period_length_prior,
                **kwargs,
            ),
            MaternKernel(nu, lengthscale_prior=decay_prior, **kwargs),
        )

    @property
    def periodic(self) -> PeriodicKernel:
        """The periodic factor."""
        return cast(PeriodicKernel, self.kernels[0])

    @property
    def decay(self) -> MaternKernel:
        """The Matérn factor, by which the pattern changes."""
        return cast(MaternKernel, self.kernels[1])


def _noise_free(F: Tensor, H: Tensor, stationary: Tensor) -> LTISDE:
    batch = F.shape[:-2]
    zero = F.new_zeros(*batch, F.shape[-1], 1)
    return LTISDE(
        F=F,
        L=zero,
        Qc=zero[..., :1, :],
        H=H.expand(*batch, *H.shape[-2:]),
        P_inf=stationary.expand(*batch, *stationary.shape[-2:]),
    )


def _harmonic_weights(z: Tensor, num_harmonics: int) -> Tensor:
    highest = num_harmonics + _EXTRA_BESSEL_TERMS
    ratio = z / (highest - 0.5 + torch.sqrt((highest + 0.5) ** 2 + z**2))
    ratios = []
    for j in range(highest - 1, 0, -1):
        ratio = z / (2 * j + z * ratio)
        ratios.append(ratio)
    relative = [torch.ones_like(z)]
    for ratio in ratios[::-1][:num_harmonics]:
        relative.append(relative[-1] * ratio)
    weights = torch.stack([relative[0], *(2 * value for value in relative[1:])], -1)
    return weights / weights.sum(-1, keepdim=True)
