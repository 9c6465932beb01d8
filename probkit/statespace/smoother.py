"""One door to the smoothers: the information form where it is accurate, else the covariance form.

The information form works with ``Q_i^-1``: its rounding errors are about the machine epsilon times
the scaled condition of the prior precision, ``max_i diag(J_ii) diag(P_ii)`` with ``P_ii`` the
prior variances. Up to ``AMPLIFICATION`` that is (in double precision)
below 1e-10; beyond, as for near-duplicate points, the covariance form is taken.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.linalg.small import cholesky, to_trailing
from probkit.statespace.information import log_normalizer_information, smooth_information
from probkit.statespace.kalman import SequentialEngine, smooth_sequential
from probkit.statespace.scan import ParallelEngine, smooth_parallel
from probkit.statespace.score import log_normalizer_with
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = ["AMPLIFICATION", "Choice", "Method", "choose_method", "log_normalizer", "smooth"]

Method = Literal["auto", "information", "parallel", "sequential"]

AMPLIFICATION = 1e6


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
        >>> choose_method(Transitions(A=one, Q=1e-12 * one)).method
        'parallel'
    """
    with torch.no_grad():
        Q = to_trailing(transitions.Q)
        factor = cholesky(Q)
        n = Q.shape[0]
        scale = Q.diagonal(0, 0, 1).movedim(-1, 0).amax(-1, keepdim=True)
        columns = torch.diag_embed(scale.sqrt().movedim(0, -1)).movedim((-2, -1), (0, 1))
        inverse = factor.solve_lower(columns.expand(n, n, *Q.shape[2:]))
        amplification = inverse.square().sum(0).max()
    worst = float(amplification)
    if worst <= AMPLIFICATION:
        return Choice("information", f"condition {worst:.1e} is within {AMPLIFICATION:.0e}")
    return Choice(
        "parallel", f"condition {worst:.1e} of the prior precision exceeds {AMPLIFICATION:.0e}"
    )


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
    chosen = _resolve(method, transitions)
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
    chosen = _resolve(method, transitions)
    if chosen == "information":
        return log_normalizer_information(transitions, H, sites)
    engine = ParallelEngine() if chosen == "parallel" else SequentialEngine()
    return log_normalizer_with(engine, transitions, H, sites)


def _resolve(method: str, transitions: Transitions) -> str:
    if method == "auto":
        return choose_method(transitions).method
    if method not in ("information", "parallel", "sequential"):
        raise ConfigurationError(
            message(
                "Unknown smoothing method",
                where="method",
                got=repr(method),
                expected="'auto', 'information', 'parallel' or 'sequential'",
            )
        )
    return method
