"""Weights of the published scheme: the Markov approximation that is closest to the path in L2.

Minimises ``int_0^T E (B_hat - B)^2 dt = w'Aw - 2 b'w + c`` over the weights, ``w = A^-1 b``, with
``a = H + 1/2`` and the regularised incomplete gamma functions ``P`` and ``Q``::

    type I   A_ij = (2T + (e^(-g_i T) - 1)/g_i + (e^(-g_j T) - 1)/g_j) / (g_i + g_j)
             b_k  = 2T/g^a - T^a/(g Gamma(a+1)) + (e^(-gT) - e^(gT) Q(a, gT)) / g^(a+1)
             c    = V_H T^(2H+1) / (2H+1)
    type II  A_ij = (T + (e^(-(g_i+g_j)T) - 1)/(g_i+g_j)) / (g_i + g_j)
             b_k  = T P(a, gT)/g^a - a P(a+1, gT)/g^(a+1)
             c    = T^(2H+1) / (2H (2H+1) Gamma(a)^2)

Source: R. Daems, M. Opper, G. Crevecoeur, T. Birdal, ICLR 2024, arXiv 2310.12975. Changed against
the authors' code: the error report has the factor two of the cross term and the scale ``V_H``; the
exponentials cannot overflow, so that derivatives in H exist for every ``gT``; an ill-conditioned
system is an error. Cost: one solve of size K a Hurst index.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, NumericalError, message
from probkit.special import incomplete_gamma
from probkit.statespace.fractional_tables import mvn_variance

__all__ = ["L2Weights", "geometric_rates", "l2_system", "l2_weights"]

_MAX_SPAN = 1e14


class L2Weights(NamedTuple):
    """Weights, and the relative squared error of the path that they leave, in (0, 1)."""

    weights: Float[Tensor, "*batch K"]
    relative_error: Float[Tensor, "*batch"]


def geometric_rates(num_rates: int, lowest: float, highest: float) -> Float[Tensor, " K"]:
    """Rates in equal steps of the logarithm.

    Example:
        >>> [round(float(g), 4) for g in geometric_rates(5, 1 / 20, 20)]
        [0.05, 0.2236, 1.0, 4.4721, 20.0]
    """
    ends = math.log10(lowest), math.log10(highest)
    return torch.logspace(*ends, num_rates, dtype=torch.float64)


def l2_system(
    hurst: Float[Tensor, "*batch"], rates: Float[Tensor, " K"], horizon: float, kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    """``A`` (K, K), ``b`` (..., K) and ``c`` (...) of the quadratic form above."""
    g, T = rates, horizon
    total = g[:, None] + g
    alpha = (hurst + 0.5)[..., None]
    x = (g * T).expand(*hurst.shape, len(g))
    lower, upper = incomplete_gamma(alpha.expand(x.shape), x)
    if kind == "I":
        decay = torch.expm1(-g * T) / g
        A = (2 * T + decay[:, None] + decay) / total
        power = T**alpha / (g * torch.exp(torch.lgamma(alpha + 1)))
        b = 2 * T / g**alpha - power + (torch.exp(-x) - upper) / g ** (alpha + 1)
        c = mvn_variance(hurst) * T ** (2 * hurst + 1) / (2 * hurst + 1)
        return A, b, c
    A = (T + torch.expm1(-total * T) / total) / total
    above = lower - torch.exp(alpha * torch.log(x) - x - torch.lgamma(alpha + 1))  # P(a + 1, x)
    b = T * lower / g**alpha - alpha * above / g ** (alpha + 1)
    scale = 2 * hurst * (2 * hurst + 1) * torch.exp(2 * torch.lgamma(hurst + 0.5))
    return A, b, T ** (2 * hurst + 1) / scale


def l2_weights(
    hurst: Float[Tensor, "*batch"],
    rates: Float[Tensor, " K"],
    horizon: float,
    *,
    kind: str = "I",
    ridge: float = 0.0,
) -> L2Weights:
    """The optimal weights, differentiable in ``hurst``.

    Args:
        hurst: in (0, 1), float64.
        rates: positive and distinct, per unit of time.
        horizon: length T of the path, in the same unit.
        kind: "I" (stationary increments) or "II" (Riemann-Liouville).
        ridge: added to the scaled matrix A, whose diagonal is 1.

    Raises:
        ConfigurationError: a Hurst index outside (0, 1), or rates that are not positive, not
            distinct or span more than 1e14.
        NumericalError: the system is singular to working precision.

    Example:
        >>> hurst = torch.tensor(0.7, dtype=torch.float64)
        >>> found = l2_weights(hurst, geometric_rates(5, 0.05, 20.0), 6.0)
        >>> round(float(found.relative_error), 2)
        0.27
    """
    _check(hurst, rates, horizon, kind)
    A, b, c = l2_system(hurst, rates, horizon, kind)
    scale = A.diagonal().rsqrt()
    scaled = A * scale[:, None] * scale
    scaled = scaled + ridge * torch.eye(len(rates), dtype=rates.dtype, device=rates.device)
    root, failed = torch.linalg.cholesky_ex(scaled)
    if bool(failed):
        raise NumericalError(
            message(
                "The rates are too close to one another for weights by a solve",
                where="rates",
                got=f"a condition number of {float(torch.linalg.cond(scaled.detach())):.1e}",
                remedy='take fewer rates or a wider span, a ridge, or weights="law"',
            )
        )
    weights = torch.cholesky_solve((b * scale)[..., None], root)[..., 0] * scale
    quadratic = ((weights @ A) * weights).sum(-1) - 2 * (b * weights).sum(-1) + c
    return L2Weights(weights, quadratic / c)


def _check(hurst: Tensor, rates: Tensor, horizon: float, kind: str) -> None:
    if kind not in ("I", "II"):
        raise ConfigurationError(
            message("Unknown kind of fBM", where="kind", got=repr(kind), expected='"I" or "II"')
        )
    if not bool(((hurst > 0) & (hurst < 1)).all()):
        raise ConfigurationError(
            message("A Hurst index lies between 0 and 1", where="hurst", got=hurst.tolist())
        )
    if not horizon > 0:
        raise ConfigurationError(
            message("The horizon must be positive", where="horizon", got=horizon, expected="> 0")
        )
    ordered = rates.sort().values
    usable = bool((ordered > 0).all()) and bool((ordered.diff() > 0).all())
    if not usable or not float(ordered[-1] / ordered[0]) <= _MAX_SPAN:
        raise ConfigurationError(
            message(
                "Rates must be positive, distinct and of a span below 1e14",
                where="rates",
                got=rates.tolist(),
            )
        )
