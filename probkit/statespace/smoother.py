"""One door to the smoothers: the information form where it is accurate, else the covariance form.

The information form works with ``Q_i^-1``: its rounding errors grow with the scaled condition of
the prior precision, ``max_i diag(J_ii) diag(P)`` with ``P`` the largest prior variances. Measured
against the covariance form they are about 1.5e-17 times that (relative to posterior sds), and ten
times less for first-order processes, whose precision is that of a chain of springs. Up to
``AMPLIFICATION`` (``FIRST_ORDER_AMPLIFICATION`` for diagonal ``Q``) the error stays below 1e-9
(1e-8); beyond, as for near-duplicate points, the covariance form is taken.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.linalg.small import cholesky, to_trailing
from probkit.statespace.information import log_normalizer_information, smooth_information
from probkit.statespace.kalman import SequentialEngine, smooth_sequential
from probkit.statespace.scan import ParallelEngine, smooth_parallel
from probkit.statespace.score import log_normalizer_with
from probkit.statespace.types import Posterior, Sites, Transitions
from probkit.validation import unknown

__all__ = [
    "AMPLIFICATION",
    "Choice",
    "Method",
    "choose_method",
    "log_normalizer",
    "resolve_method",
    "smooth",
]

Method = Literal["auto", "information", "parallel", "sequential"]

AMPLIFICATION = 3e7
FIRST_ORDER_AMPLIFICATION = 1e10


class Choice(NamedTuple):
    """The form that ``method="auto"`` takes, and why."""

    method: Method
    reason: str


def choose_method(transitions: Transitions) -> Choice:
    """Choose between the information form and the covariance form by the process noise.

    Example:
        >>> one = torch.ones(3, 1, 1)
        >>> choose_method(Transitions(A=one, Q=one)).method
        'information'
        >>> near = torch.tensor([1.0, 1e-12, 1.0]).reshape(3, 1, 1)
        >>> choose_method(Transitions(A=one, Q=near)).method
        'parallel'
    """
    with torch.no_grad():
        Q = to_trailing(transitions.Q)
        n = Q.shape[0]
        scale = _prior_variances(transitions).movedim(-1, 0).sqrt()
        columns = torch.diag_embed(scale.movedim(0, -1)).movedim((-2, -1), (0, 1))
        inverse = cholesky(Q).solve_lower(columns.expand(n, n, *Q.shape[2:]))
        amplification = inverse.square().sum(0).max()
        lower = Q[torch.ones(n, n, dtype=torch.bool, device=Q.device).tril(-1)]
        first_order = not bool(lower.any())
    worst, limit = float(amplification), AMPLIFICATION
    if first_order:
        limit = FIRST_ORDER_AMPLIFICATION
    if worst <= limit:
        return Choice("information", f"condition {worst:.1e} is within {limit:.0e}")
    return Choice("parallel", f"condition {worst:.1e} of the prior precision exceeds {limit:.0e}")


def smooth(
    transitions: Transitions, H: Float[Tensor, "*batch m n"], sites: Sites, method: Method = "auto"
) -> Posterior:
    """Posterior of a Markov process given Gaussian sites.

    Args:
        transitions: the prior, ``A`` and ``Q`` of shape ``(*batch, T, n, n)``.
        H: ``f_i = H z_i``.
        sites: information on ``f_i``; zero where missing.
        method: "information" (cyclic reduction), "parallel" (covariance form in chunks),
            "sequential" (square-root Kalman filter), or "auto"; :func:`choose_method` tells
            which one "auto" takes and why.

    Raises:
        ConfigurationError: an unknown method.
        NotPositiveDefiniteError: see the forms.

    Example:
        >>> one = torch.ones(2, 1, 1)
        >>> sites = Sites(one, one[..., 0], one[0, 0, 0])
        >>> posterior = smooth(Transitions(A=one, Q=one), torch.ones(1, 1), sites)
        >>> [round(float(v), 3) for v in posterior.mean.flatten()]
        [0.6, 0.8]
    """
    chosen = resolve_method(method, transitions)
    if chosen == "information":
        return smooth_information(transitions, H, sites)
    if chosen == "parallel":
        return smooth_parallel(transitions, H, sites)
    return smooth_sequential(transitions, H, sites)


def log_normalizer(
    transitions: Transitions, H: Float[Tensor, "*batch m n"], sites: Sites, method: Method = "auto"
) -> Float[Tensor, "*batch"]:
    """Log normaliser alone, cheaper than :func:`smooth`, with a closed-form gradient.

    For the sites of :func:`probkit.statespace.sites.observe` it is the log likelihood.
    """
    chosen = resolve_method(method, transitions)
    if chosen == "information":
        return log_normalizer_information(transitions, H, sites)
    engine = ParallelEngine() if chosen == "parallel" else SequentialEngine()
    return log_normalizer_with(engine, transitions, H, sites)


def resolve_method(method: str, transitions: Transitions) -> Method:
    """The form meant by ``method``; raises ConfigurationError on an unknown one."""
    if method == "auto":
        return choose_method(transitions).method
    known: tuple[Method, ...] = ("information", "parallel", "sequential")
    for candidate in known:
        if method == candidate:
            return candidate
    raise unknown("smoothing method", "method", method, ("auto", *known))


def _prior_variances(transitions: Transitions) -> Tensor:
    """Largest prior variance of each state over the path, ``(*batch, 1, n)``."""
    A, Q = transitions
    first = Q[..., :1, :, :]
    variance = first.diagonal(dim1=-2, dim2=-1)
    A, Q = A[..., 1:, :, :], Q[..., 1:, :, :]
    drift = (A @ first @ A.mT + Q - first).diagonal(dim1=-2, dim2=-1).abs()
    if bool((drift <= 1e-6 * variance).all()):
        return variance
    H = first.new_zeros(1, first.shape[-1])
    shape = transitions.A.shape[:-2]
    nothing = Sites(H.new_zeros(*shape, 1, 1), H.new_zeros(*shape, 1), H.new_zeros(shape[:-1]))
    prior = ParallelEngine().filter(transitions, H, nothing).predicted_covariance
    return prior.diagonal(dim1=-2, dim2=-1).amax(-2, keepdim=True)
