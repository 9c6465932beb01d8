"""Markov processes whose values ``f_i = H z_i`` are known exactly: density and conditional.

Two forms of ``log p(f)``, chosen like those of the smoothers:

* information: in coordinates ``(f, w)`` of the state, ``log p(f) = log p(f, w) - log p(w | f)``.
  Both terms belong to block-tridiagonal precisions, so cyclic reduction gives the density in
  ``O(T s^3)`` work and ``log2 T`` steps, with a closed-form gradient;
* sequential: a Kalman filter that conditions on each value. It divides by the scalar predictive
  variance only, so it serves near-duplicate points and processes without noise.

The conditional is the filter followed by the Bryson-Frazier smoother, which inverts nothing else::

    r <- A' r,  N <- A' N A   (backwards)       S = H P H',  K = P H'/S,  M = I - K H
    observed:   r <- H'(f - H m)/S + M' r,      N <- H'H/S + M' N M
    mean = m + P r,   covariance = P - P N P    (m, P predicted)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probkit.errors import ConfigurationError, NotPositiveDefiniteError, message
from probkit.linalg.log_normalizer import log_normalizer
from probkit.linalg.small import matvec
from probkit.statespace.information import prior_precision
from probkit.statespace.smoother import choose_method
from probkit.statespace.types import Transitions

__all__ = ["Conditional", "condition_on_values", "log_density"]


class Conditional(NamedTuple):
    """Marginals of the state given exact values."""

    mean: Float[Tensor, "*batch T s"]
    covariance: Float[Tensor, "*batch T s s"]


def log_density(
    transitions: Transitions,
    H: Float[Tensor, "*batch 1 s"],
    values: Float[Tensor, "*batch T"],
    *,
    method: str = "auto",
) -> Float[Tensor, "*batch"]:
    """``log p(f_1, ..., f_T)`` of a scalar Markov process.

    Args:
        transitions: ``A`` and ``Q`` of shape ``(*batch, T, s, s)``.
        H: output map, whose first entry must not be zero for the information form.
        values: the values of ``f``.
        method: "information", "sequential", or "auto" (by the conditioning of ``Q``).

    Raises:
        ConfigurationError: an unknown method.
        NotPositiveDefiniteError: a value is determined by the earlier ones.

    Example:
        >>> one = torch.ones(2, 1, 1, dtype=torch.float64)
        >>> round(log_density(Transitions(0 * one, one), one[0], one[:, 0, 0]).item(), 6)
        -2.837877
    """
    if method == "auto":
        method = choose_method(transitions).method
        method = "information" if method == "information" else "sequential"
    if method == "information":
        return _log_density_information(transitions, H, values)
    if method == "sequential":
        observed = torch.ones(values.shape[-1], dtype=torch.bool, device=values.device)
        steps = _filter(transitions, H, values, observed)
        return torch.stack([step.log_density for step in steps]).sum(0)
    raise ConfigurationError(
        message(
            "There is no such form of the density",
            where="method",
            got=repr(method),
            expected="'auto', 'information' or 'sequential'",
        )
    )


def condition_on_values(
    transitions: Transitions,
    H: Float[Tensor, "*batch 1 s"],
    values: Float[Tensor, "*batch T"],
    observed: Bool[Tensor, "T"],
) -> Conditional:
    """Moments of the state given exact values at the points where ``observed``.

    Raises:
        NotPositiveDefiniteError: a value is determined by the earlier ones.

    Example:
        >>> one = torch.ones(2, 1, 1, dtype=torch.float64)
        >>> seen = torch.tensor([True, False])
        >>> chain = Transitions(A=0.5 * one, Q=one)
        >>> condition_on_values(chain, one[0], one[:, 0, 0], seen).mean.flatten().tolist()
        [1.0, 0.5]
    """
    steps = _filter(transitions, H, values, observed)
    r = torch.zeros_like(steps[0].mean)
    N = torch.zeros_like(steps[0].covariance)
    means, covariances = [], []
    for index in range(len(steps) - 1, -1, -1):
        step = steps[index]
        if step.variance is not None:
            r = H[..., 0, :] * (step.residual / step.variance).unsqueeze(-1) + matvec(step.M.mT, r)
            N = H.mT @ H / step.variance[..., None, None] + step.M.mT @ N @ step.M
        means.append(step.mean + matvec(step.covariance, r))
        covariance = step.covariance - step.covariance @ N @ step.covariance
        covariances.append(0.5 * (covariance + covariance.mT))
        A = transitions.A[..., index, :, :]
        r, N = matvec(A.mT, r), A.mT @ N @ A
    return Conditional(torch.stack(means[::-1], -2), torch.stack(covariances[::-1], -3))


class _Step(NamedTuple):
    """Predicted moments, and what conditioning on the value took."""

    mean: Tensor
    covariance: Tensor
    M: Tensor
    residual: Tensor
    variance: Tensor | None
    log_density: Tensor


def _filter(transitions: Transitions, H: Tensor, values: Tensor, observed: Tensor) -> list[_Step]:
    n = transitions.A.shape[-1]
    batch = torch.broadcast_shapes(transitions.A.shape[:-3], values.shape[:-1])
    mean = values.new_zeros(*batch, n)
    covariance = values.new_zeros(*batch, n, n)
    identity = torch.eye(n, dtype=values.dtype, device=values.device)
    zero = values.new_zeros(batch)
    steps = []
    for index, seen in enumerate(observed.tolist()):
        A, Q = transitions.A[..., index, :, :], transitions.Q[..., index, :, :]
        mean, covariance = matvec(A, mean), A @ covariance @ A.mT + Q
        if not seen:
            steps.append(_Step(mean, covariance, identity, zero, None, zero))
            continue
        gain = covariance @ H.mT
        variance = (H @ gain)[..., 0, 0]
        _check_variance(variance, H, transitions, index)
        residual = values[..., index] - (H @ mean.unsqueeze(-1))[..., 0, 0]
        M = identity - gain @ H / variance[..., None, None]
        density = -0.5 * (residual**2 / variance + torch.log(2 * math.pi * variance))
        steps.append(_Step(mean, covariance, M, residual, variance, density))
        mean = mean + gain[..., 0] * (residual / variance).unsqueeze(-1)
        covariance = M @ covariance @ M.mT
    return steps


def _log_density_information(transitions: Transitions, H: Tensor, values: Tensor) -> Tensor:
    n, num_points = transitions.A.shape[-1], transitions.A.shape[-3]
    prior = prior_precision(_in_output_coordinates(transitions, H))
    constant = 0.5 * prior.logdet - 0.5 * num_points * math.log(2 * math.pi)
    f = values
    diagonal_f, lower_f = prior.diagonal[..., 0], prior.lower[..., 0]
    upper_f = prior.lower[..., 0, :]
    product = diagonal_f * f.unsqueeze(-1)
    product = product + _shift(lower_f * f[..., :-1].unsqueeze(-1), (1, 0))
    product = product + _shift(upper_f * f[..., 1:].unsqueeze(-1), (0, 1))
    density = constant - 0.5 * (f * product[..., 0]).sum(-1)
    if n == 1:
        return density
    batch = product.shape[:-2]
    diagonal = prior.diagonal[..., 1:, 1:].expand(*batch, num_points, n - 1, n - 1)
    lower = prior.lower[..., 1:, 1:].expand(*batch, num_points - 1, n - 1, n - 1)
    return density + log_normalizer(diagonal, lower, -product[..., 1:])


def _in_output_coordinates(transitions: Transitions, H: Tensor) -> Transitions:
    """Replace the first state by ``f = H z``."""
    n = H.shape[-1]
    identity = torch.eye(n, dtype=H.dtype, device=H.device)
    to_output = torch.cat([H, identity[1:].expand(*H.shape[:-2], n - 1, n)], -2)
    first = torch.cat([torch.ones_like(H[..., :1]), -H[..., 1:]], -1) / H[..., :1]
    back = torch.cat([first, identity[1:].expand(*H.shape[:-2], n - 1, n)], -2)
    B, inverse = to_output.unsqueeze(-3), back.unsqueeze(-3)
    return Transitions(B @ transitions.A @ inverse, B @ transitions.Q @ B.mT)


def _shift(x: Tensor, amount: tuple[int, int]) -> Tensor:
    return torch.nn.functional.pad(x, (0, 0, *amount))


def _check_variance(variance: Tensor, H: Tensor, transitions: Transitions, index: int) -> None:
    largest = (H @ transitions.Q[..., 0, :, :] @ H.mT)[..., 0, 0]
    if not bool((variance > 64 * torch.finfo(variance.dtype).eps ** 2 * largest).all()):
        raise NotPositiveDefiniteError(
            message(
                "A value is determined by the earlier ones, so the values have no density",
                where=f"position {index}",
                got=f"predictive variance {float(variance.detach().min()):.1e}",
                causes=("two coordinates that coincide", "a kernel without process noise"),
                remedy="observe the process with noise, for example through sites",
            )
        )
