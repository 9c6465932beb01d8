"""From filter and adjoint to a posterior whose log normaliser has a closed-form gradient.

With the predicted moments ``(m_i, P_i)``, the filtered ones ``(m_f, P_f)``, and the adjoint ``r_i``
(gradient) and ``-N_i`` (Hessian) of the log normaliser in ``m_i``::

    d/dQ_i = (r_i r_i' - N_i) / 2
    d/dA_i = r_i m_f,i-1' + (r_i r_i' - N_i) A_i P_f,i-1
    d/dlinear_i = E[f_i],  d/dprecision_i = - E[f_i f_i'] / 2
    d/dH = sum_i linear_i E[z_i]' - precision_i H E[z_i z_i']

(the first is the heat equation of Gaussian convolution), all without an inverse of ``Q_i`` and at
the cost of one pass of the smoother. Gradients of the marginals, which are second derivatives of
the normaliser, have no such form: where they are asked for, an engine that consists of
differentiable operations is run once more and differentiated. Source: J. Durbin and S. J. Koopman,
Time Series Analysis by State Space Methods, 7.3.3 (the score vector), here for sites instead of
observations.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from probkit.errors import ConfigurationError, message
from probkit.linalg.log_normalizer import refuse_second_derivative
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = [
    "Adjoint",
    "Engine",
    "Filtered",
    "Smoothed",
    "log_normalizer_with",
    "smooth_with",
    "smoothed_from_adjoint",
]


class Filtered(NamedTuple):
    """Moments before and after each update; the normaliser without ``sites.log_scale``."""

    predicted_mean: Float[Tensor, "*batch T n"]
    predicted_covariance: Float[Tensor, "*batch T n n"]
    mean: Float[Tensor, "*batch T n"]
    covariance: Float[Tensor, "*batch T n n"]
    log_normalizer: Float[Tensor, "*batch"]


class Adjoint(NamedTuple):
    """Gradient and negative Hessian of the log normaliser in each predicted mean."""

    gradient: Float[Tensor, "*batch T n"]
    information: Float[Tensor, "*batch T n n"]


class Smoothed(NamedTuple):
    """Posterior moments; ``cross[i] = Cov(z_{i+1}, z_i)``."""

    mean: Float[Tensor, "*batch T n"]
    covariance: Float[Tensor, "*batch T n n"]
    cross: Float[Tensor, "*batch T-1 n n"]


class Engine(Protocol):
    """A covariance-form algorithm: sequential or parallel in time.

    ``differentiable`` tells whether autograd can go through ``filter`` and ``smooth``.
    """

    differentiable: bool

    def filter(self, transitions: Transitions, H: Tensor, sites: Sites) -> Filtered: ...

    def adjoint(
        self, transitions: Transitions, H: Tensor, sites: Sites, filtered: Filtered
    ) -> Adjoint: ...

    def smooth(
        self, transitions: Transitions, H: Tensor, sites: Sites, filtered: Filtered
    ) -> tuple[Smoothed, Adjoint | None]: ...


def smooth_with(engine: Engine, transitions: Transitions, H: Tensor, sites: Sites) -> Posterior:
    """Posterior by ``engine``, differentiable once; the moments only if the engine is.

    The slope in a precision that is exactly zero is zero: a missing value stays missing.
    """
    transitions, H, sites = expand_together(transitions, H, sites)
    parts = _Evidence.apply(engine, True, *transitions, H, sites.precision, sites.linear)
    mean, covariance, cross, value = parts
    return Posterior(mean, covariance, cross, sites.log_scale + value)


def log_normalizer_with(
    engine: Engine, transitions: Transitions, H: Tensor, sites: Sites
) -> Float[Tensor, "*batch"]:
    """The log normaliser alone: one filter forward, one adjoint pass for the gradient."""
    transitions, H, sites = expand_together(transitions, H, sites)
    parts = _Evidence.apply(engine, False, *transitions, H, sites.precision, sites.linear)
    value: Tensor = sites.log_scale + parts[-1]
    return value


def smoothed_from_adjoint(
    transitions: Transitions, filtered: Filtered, adjoint: Adjoint
) -> Smoothed:
    """``m_f + P_f A' r``, ``P_f - P_f A' N A P_f``, ``(I - P N) A P_f``; r, N, P one later."""
    moved = transitions.A[..., 1:, :, :] @ filtered.covariance[..., :-1, :, :]
    seen = adjoint.information[..., 1:, :, :] @ moved
    loss = moved.mT @ seen
    gain = (adjoint.gradient[..., 1:, None, :] @ moved).squeeze(-2)
    covariance = filtered.covariance - pad(0.5 * (loss + loss.mT), (0, 0, 0, 0, 0, 1))
    cross = moved - filtered.predicted_covariance[..., 1:, :, :] @ seen
    return Smoothed(filtered.mean + pad(gain, (0, 0, 0, 1)), covariance, cross)


def expand_together(
    transitions: Transitions, H: Tensor, sites: Sites
) -> tuple[Transitions, Tensor, Sites]:
    """Give all arguments the same batch dimensions."""
    batch = torch.broadcast_shapes(
        transitions.A.shape[:-3], H.shape[:-2], sites.linear.shape[:-2], sites.log_scale.shape
    )
    A, Q = (x.expand(*batch, *x.shape[-3:]) for x in transitions)
    precision = sites.precision.expand(*batch, *sites.precision.shape[-3:])
    linear = sites.linear.expand(*batch, *sites.linear.shape[-2:])
    H = H.expand(*batch, *H.shape[-2:])
    return Transitions(A, Q), H, Sites(precision, linear, sites.log_scale.expand(batch))


class _Evidence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, engine: Engine, marginals: bool, A: Tensor, Q: Tensor, H: Tensor, *site: Tensor
    ) -> tuple[Tensor, ...]:
        transitions, sites = Transitions(A, Q), _sites(*site)
        filtered = engine.filter(transitions, H, sites)
        adjoint: Adjoint | None = None
        smoothed: Smoothed | None = None
        if marginals:
            smoothed, adjoint = engine.smooth(transitions, H, sites, filtered)
        ctx.set_materialize_grads(False)
        ctx.engine = engine
        ctx.has_adjoint = adjoint is not None
        ctx.save_for_backward(A, Q, H, *site, *filtered, *(adjoint or ()))
        outputs = tuple(smoothed) if smoothed is not None else ()
        return (*outputs, filtered.log_normalizer)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("log_normalizer")
        if any(grad is not None for grad in grads[:-1]):
            return (None, None, *_replayed(ctx, grads))
        if grads[-1] is None:
            return (None,) * 7
        A, Q, H, precision, linear, *rest = ctx.saved_tensors
        transitions, sites = Transitions(A, Q), _sites(precision, linear)
        filtered = Filtered(*rest[:5])
        if ctx.has_adjoint:
            adjoint = Adjoint(*rest[5:])
        else:
            adjoint = ctx.engine.adjoint(transitions, H, sites, filtered)
        scores = _scores(transitions, H, sites, filtered, adjoint)
        weight = grads[-1]
        weighted = (
            score * weight.reshape(*weight.shape, *(1 for _ in range(score.dim() - weight.dim())))
            for score in scores
        )
        return (None, None, *weighted)


def _scores(
    transitions: Transitions, H: Tensor, sites: Sites, filtered: Filtered, adjoint: Adjoint
) -> tuple[Tensor, ...]:
    """Gradients of the log normaliser in A, Q, H, precision and linear."""
    r, N = adjoint
    A = transitions.A[..., 1:, :, :]
    curvature = r.unsqueeze(-1) * r.unsqueeze(-2) - N
    before_mean, before = filtered.mean[..., :-1, :], filtered.covariance[..., :-1, :, :]
    score_A = r[..., 1:, :, None] * before_mean.unsqueeze(-2) + curvature[..., 1:, :, :] @ (
        A @ before
    )
    mean, covariance, _ = smoothed_from_adjoint(transitions, filtered, adjoint)
    second = covariance + mean.unsqueeze(-1) * mean.unsqueeze(-2)
    row = H.unsqueeze(-3)
    seen = row @ second
    score_H = (sites.linear.unsqueeze(-1) * mean.unsqueeze(-2) - sites.precision @ seen).sum(-3)
    score_precision = -0.5 * seen @ row.mT
    score_linear = (row @ mean.unsqueeze(-1)).squeeze(-1)
    return pad(score_A, (0, 0, 0, 0, 1, 0)), 0.5 * curvature, score_H, score_precision, score_linear


def _sites(precision: Tensor, linear: Tensor) -> Sites:
    return Sites(precision, linear, linear.new_zeros(linear.shape[:-2]))


def _replayed(ctx: Any, grads: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Gradients of moments and normaliser by autograd through a second run of the engine."""
    if not ctx.engine.differentiable:
        raise ConfigurationError(
            message(
                "The sequential form differentiates the log normaliser only",
                where="Posterior.mean, .covariance or .cross",
                remedy='use smooth(..., method="parallel") for gradients of the marginals',
            )
        )
    asked = ctx.needs_input_grad[2:]
    with torch.enable_grad():
        inputs = [
            x.detach().requires_grad_(wanted)
            for x, wanted in zip(ctx.saved_tensors[:5], asked, strict=True)
        ]
        A, Q, H, precision, linear = inputs
        given = Transitions(A, Q), H, _sites(precision, linear)
        filtered = ctx.engine.filter(*given)
        smoothed, _ = ctx.engine.smooth(*given, filtered)
        pairs = [
            (output, grad)
            for output, grad in zip((*smoothed, filtered.log_normalizer), grads, strict=True)
            if grad is not None
        ]
        wanted = [x for x in inputs if x.requires_grad]
        outputs, weights = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, wanted, weights, allow_unused=True))
    return [next(found) if x.requires_grad else None for x in inputs]
