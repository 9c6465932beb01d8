"""Discretisation of any LTI SDE, with a process noise that is positive semi-definite by design.

For ``dz = F z dx + L dB`` and a step ``d``::

    A(d) = exp(F d),    Q(d) = int_0^d exp(F u) L Qc L' exp(F' u) du

The step is halved until ``|F| h <= 1/2``. There ``exp(F u) L`` is a short Taylor series, whose
exact zeros keep the tiny entries of ``Q`` relatively accurate, and the integral is Gauss-Legendre
quadrature: a sum of squares. The step is then doubled back, ``A_2h = A_h A_h`` and
``Q_2h = Q_h + A_h Q_h A_h'``, again a sum of positive semi-definite terms. Nothing is subtracted,
which is what the matrix-fraction form and ``P_inf - A P_inf A'`` do.

Cost: ``O(n^3 (terms + log2(|F| d)))`` per step, batched over steps. Kernels with closed forms
(:mod:`probkit.statespace.matern`, :func:`wiener_step`, :func:`rotation`) do not pass here.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import DataError, message
from probkit.statespace.types import LTISDE, Transitions

__all__ = [
    "discretize",
    "kronecker",
    "rotation",
    "steps_between",
    "wiener_step",
    "with_initial",
]

_NUM_TAYLOR_TERMS = 16
_NUM_NODES = 10


def discretize(sde: LTISDE, steps: Float[Tensor, "*batch T"]) -> Transitions:
    """Transition matrices and process noise of an LTI SDE for given steps.

    Args:
        sde: the process, batch shape broadcasting with that of ``steps``.
        steps: step lengths, ``>= 0``; a zero step gives ``A = I``, ``Q = 0``.

    Returns:
        ``A`` and ``Q`` of shape ``(*batch, T, s, s)``, one for every step; :func:`with_initial`
        puts the initial condition in front. Differentiable in the SDE and the steps.

    Raises:
        DataError: a negative or non-finite step.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> wiener = LTISDE(F=0 * one, L=one, Qc=one, H=one, P_inf=0 * one)
        >>> Q = discretize(wiener, torch.tensor([0.5, 2.0])).Q
        >>> [round(value, 9) for value in Q.flatten().tolist()]
        [0.5, 2.0]
    """
    steps = steps.to(sde.F.dtype)
    if not bool(((steps >= 0) & torch.isfinite(steps)).all()):
        raise DataError(
            message(
                "Steps must be finite and not negative",
                where="steps",
                got=f"minimum {float(steps.min())}, maximum {float(steps.max())}",
                remedy="sort the coordinates",
            )
        )
    drift, diffusion = sde.F.unsqueeze(-3), (sde.L @ _root(sde.Qc)).unsqueeze(-3)
    batch = torch.broadcast_shapes(drift.shape[:-3], diffusion.shape[:-3], steps.shape[:-1])
    steps = steps.expand(*batch, steps.shape[-1])
    size = (torch.linalg.matrix_norm(drift, ord=1) * steps).detach()
    num_doublings = torch.ceil(torch.log2(size.clamp(min=0.5) * 2))
    base = steps * torch.exp2(-num_doublings)
    A, Q = _short_step(drift, diffusion, base)
    for level in range(int(num_doublings.max()) if num_doublings.numel() else 0):
        again = (level < num_doublings)[..., None, None]
        Q = torch.where(again, Q + A @ Q @ A.mT, Q)
        A = torch.where(again, A @ A, A)
    return Transitions(A, 0.5 * (Q + Q.mT))


def with_initial(
    A: Float[Tensor, "*batch T-1 s s"],
    Q: Float[Tensor, "*batch T-1 s s"],
    initial: Float[Tensor, "*batch s s"],
) -> Transitions:
    """Put the initial condition in front: ``A_0 = 0`` and ``Q_0`` the covariance of ``z_0``.

    Example:
        >>> one = torch.ones(2, 1, 1)
        >>> with_initial(one, one, 3 * one[0]).Q.flatten().tolist()
        [3.0, 1.0, 1.0]
    """
    first = initial.expand(*A.shape[:-3], *initial.shape[-2:]).unsqueeze(-3)
    return Transitions(torch.cat([torch.zeros_like(first), A], -3), torch.cat([first.to(Q), Q], -3))


def steps_between(times: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch T-1"]:
    """Differences of sorted coordinates.

    Raises:
        DataError: coordinates that are not finite or not sorted.

    Example:
        >>> steps_between(torch.tensor([0.0, 1.0, 1.0, 3.0])).tolist()
        [1.0, 0.0, 2.0]
    """
    steps = times[..., 1:] - times[..., :-1]
    if not bool(torch.isfinite(times).all()):
        raise DataError(
            message(
                "Coordinates must be finite",
                where="times",
                got=f"{int((~torch.isfinite(times)).sum())} values that are NaN or infinite",
                remedy="drop these rows",
            )
        )
    if not bool((steps >= 0).all()):
        index = int((steps < 0).reshape(-1, steps.shape[-1]).any(0).nonzero()[0])
        raise DataError(
            message(
                "Coordinates must be sorted",
                where="times",
                got=f"a decrease between positions {index} and {index + 1}",
                expected="times[i] <= times[i + 1]",
                remedy="sort them, for example with torch.sort, and permute the values alike",
            )
        )
    return steps


def rotation(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2 2"]:
    """Transition of a noise-free resonator with ``angle = frequency * step``.

    Example:
        >>> rotation(torch.tensor(0.0))
        tensor([[1., -0.],
                [0., 1.]])
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))


def wiener_step(
    scaled_steps: Float[Tensor, "*batch"], num_integrals: int
) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "*batch n n"]]:
    """Transition and noise of a Wiener process integrated ``num_integrals`` times, unit diffusion.

    With state ``(f, f', ...)`` and ``k = num_integrals``: ``A_ij = x^(j-i) / (j-i)!`` and
    ``Q_ij = x^(2k+1-i-j) / ((2k+1-i-j) (k-i)! (k-j)!)``.

    Example:
        >>> A, Q = wiener_step(torch.tensor(2.0, dtype=torch.float64), 1)
        >>> A.tolist(), [round(v, 4) for v in Q.flatten().tolist()]
        ([[1.0, 2.0], [0.0, 1.0]], [2.6667, 2.0, 2.0, 2.0])
    """
    n, k = num_integrals + 1, num_integrals
    powers = [torch.ones_like(scaled_steps)]
    for _ in range(2 * k + 1):
        powers.append(powers[-1] * scaled_steps)
    zero = torch.zeros_like(scaled_steps)
    A = [
        powers[j - i] / math.factorial(j - i) if j >= i else zero
        for i in range(n)
        for j in range(n)
    ]
    Q = []
    for i in range(n):
        for j in range(n):
            order = 2 * k + 1 - i - j
            Q.append(powers[order] / (order * math.factorial(k - i) * math.factorial(k - j)))
    return torch.stack(A, -1).unflatten(-1, (n, n)), torch.stack(Q, -1).unflatten(-1, (n, n))


def kronecker(
    left: Float[Tensor, "*batch m n"], right: Float[Tensor, "*batch p q"]
) -> Float[Tensor, "*batch m*p n*q"]:
    """Kronecker product of the last two dimensions, batch dimensions broadcasting.

    Example:
        >>> kronecker(torch.eye(2), torch.full((1, 1), 3.0)).diagonal().tolist()
        [3.0, 3.0]
    """
    product = left[..., :, None, :, None] * right[..., None, :, None, :]
    return product.flatten(-4, -3).flatten(-2, -1)


def _short_step(drift: Tensor, diffusion: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Taylor series of ``A`` and quadrature of ``Q`` for ``|F| h <= 1/2``."""
    h = step[..., None, None]
    scaled = drift * h
    A = torch.eye(drift.shape[-1], dtype=drift.dtype, device=drift.device)
    A = A.expand(scaled.shape)
    term, column = A, (diffusion * torch.sqrt(h)).expand(*scaled.shape[:-1], diffusion.shape[-1])
    columns = [column]
    for k in range(1, _NUM_TAYLOR_TERMS):
        term = term @ scaled / k
        A = A + term
        columns.append(scaled @ columns[-1] / k)
    nodes, weights = np.polynomial.legendre.leggauss(_NUM_NODES)
    powers = ((nodes + 1) / 2) ** np.arange(_NUM_TAYLOR_TERMS)[:, None] * np.sqrt(weights / 2)
    stacked = torch.stack(columns, -1) @ drift.new_tensor(powers)
    root = stacked.flatten(-2)
    return A, root @ root.mT


def _root(spectral_density: Tensor) -> Tensor:
    """A factor ``R R' = Qc`` that exists for semi-definite matrices."""
    if spectral_density.shape[-1] == 1:
        return torch.sqrt(spectral_density)
    values, vectors = torch.linalg.eigh(spectral_density)
    return vectors * torch.sqrt(values.clamp(min=0)).unsqueeze(-2)
