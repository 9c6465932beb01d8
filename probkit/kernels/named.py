"""Kernels by name, ready for a factor with several components."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from gpytorch.priors import LogNormalPrior

from probkit.errors import ConfigurationError, message
from probkit.kernels.categorical import CategoricalKernel
from probkit.kernels.markov import MarkovKernel
from probkit.kernels.matern import MaternKernel
from probkit.kernels.periodic import CosineKernel, PeriodicKernel, QuasiPeriodicKernel
from probkit.kernels.wiener import IntegratedWienerKernel, WienerKernel

__all__ = ["KERNEL_NAMES", "kernel_from_name"]


def kernel_from_name(
    name: str,
    *,
    num_components: int | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> MarkovKernel:
    """Build a kernel of variance one with weak priors that fit inputs of range ``scale``.

    Lengthscales start at ``0.1 scale`` under a log-normal prior of median ``0.2 scale`` and log
    standard deviation 1.5. Periods start at ``scale`` (``0.2 scale`` where quasi-periodic) under a
    prior of that median; the lengthscale of a periodic kernel is relative to the period and starts
    at 1. Wiener kernels have unit variance at 0.

    Args:
        name: one of ``KERNEL_NAMES``.
        num_components: size of the batch dimension; None for a kernel without one.
        scale: range of the coordinate, in units of the input.
        dtype: of the parameters.

    Raises:
        ConfigurationError: an unknown name, or a scale that is not positive and finite.

    Example:
        >>> kernel = kernel_from_name("matern32", num_components=3, scale=10.0)
        >>> kernel.batch_shape, [round(v, 6) for v in kernel.lengthscale.flatten().tolist()]
        (torch.Size([3]), [1.0, 1.0, 1.0])
    """
    if name not in _BUILDERS:
        raise ConfigurationError(
            message(
                "There is no kernel of this name",
                where="name",
                got=repr(name),
                expected="one of " + ", ".join(KERNEL_NAMES),
                remedy="pass a kernel object for anything else",
            )
        )
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigurationError(
            message("The scale must be positive and finite", where="scale", got=scale)
        )
    batch_shape = torch.Size([] if num_components is None else [num_components])
    return _BUILDERS[name](float(scale), batch_shape, dtype)


_Builder = Callable[[float, torch.Size, torch.dtype], MarkovKernel]


def _prior(median: float, dtype: torch.dtype) -> LogNormalPrior:
    return LogNormalPrior(
        torch.tensor(math.log(median), dtype=dtype), torch.tensor(1.5, dtype=dtype)
    )


def _matern(nu: float) -> _Builder:
    def build(scale: float, batch_shape: torch.Size, dtype: torch.dtype) -> MarkovKernel:
        kernel = MaternKernel(
            nu, batch_shape=batch_shape, dtype=dtype, lengthscale_prior=_prior(0.2 * scale, dtype)
        )
        kernel.lengthscale = 0.1 * scale
        return kernel

    return build


def _cosine(scale: float, batch_shape: torch.Size, dtype: torch.dtype) -> MarkovKernel:
    kernel = CosineKernel(
        batch_shape=batch_shape, dtype=dtype, period_length_prior=_prior(scale, dtype)
    )
    kernel.period_length = scale
    return kernel


def _periodic(scale: float, batch_shape: torch.Size, dtype: torch.dtype) -> MarkovKernel:
    kernel = PeriodicKernel(
        batch_shape=batch_shape,
        dtype=dtype,
        lengthscale_prior=_prior(1.0, dtype),
        period_length_prior=_prior(scale, dtype),
    )
    kernel.lengthscale, kernel.period_length = 1.0, scale
    return kernel


def _quasi_periodic(scale: float, batch_shape: torch.Size, dtype: torch.dtype) -> MarkovKernel:
    kernel = QuasiPeriodicKernel(
        batch_shape=batch_shape,
        dtype=dtype,
        lengthscale_prior=_prior(1.0, dtype),
        period_length_prior=_prior(0.2 * scale, dtype),
        decay_prior=_prior(scale, dtype),
    )
    kernel.periodic.lengthscale, kernel.periodic.period_length = 1.0, 0.2 * scale
    kernel.decay.lengthscale = scale
    return kernel


def _wiener(kind: type[WienerKernel], **initial: float) -> _Builder:
    def build(scale: float, batch_shape: torch.Size, dtype: torch.dtype) -> MarkovKernel:
        kernel = kind(
            batch_shape=batch_shape,
            dtype=dtype,
            lengthscale_prior=_prior(0.2 * scale, dtype),
            **initial,
        )
        kernel.lengthscale = 0.1 * scale
        return kernel

    return build


def _categorical(scale: float, batch_shape: torch.Size, dtype: torch.dtype) -> MarkovKernel:
    return CategoricalKernel(batch_shape=batch_shape, dtype=dtype)


_BUILDERS: dict[str, _Builder] = {
    "matern12": _matern(0.5),
    "matern32": _matern(1.5),
    "matern52": _matern(2.5),
    "matern72": _matern(3.5),
    "cosine": _cosine,
    "periodic": _periodic,
    "quasi_periodic": _quasi_periodic,
    "wiener": _wiener(WienerKernel, initial_variance=1.0),
    "integrated_wiener": _wiener(
        IntegratedWienerKernel, initial_variance=1.0, initial_slope_variance=1.0
    ),
    "categorical": _categorical,
}

KERNEL_NAMES = tuple(_BUILDERS)
"""Names that :func:`kernel_from_name` understands."""
