"""Evidence updates of Gaussian scale weights and noise, shared by the families that learn them.

    y = A x + e,  x_j ~ N(0, s_j),  e ~ N(0, v),  C = A diag(s) A' + v I,  N data, L columns of y

An exact solver of any structure supplies the posterior of x: mean m, variance diagonal V, residual
r = y - A m. With T_j = column mean of abs(m_j)^2 and the leverage g_j = 1 - V_j / s_j, the share
of x_j that the data determine, sum_j g_j being the effective number of parameters,

    EM      s_j <- T_j + V_j               v <- (r'r / L + v sum g) / N
    MacKay  s_j <- T_j / g_j               v <- r'r / (L (N - sum g))
    MM      s_j <- sqrt(s_j T_j / g_j)     v <- sqrt(v r'r / (L (N - sum g)))

all have the stationary points of the log evidence as fixed points. EM never lowers the evidence but
crawls where s_j goes to zero. MM minimises, for fixed m, the majoriser of -2 log evidence

    sum_j S_j s_j + T_j / s_j + const,   S_j = (A' C^-1 A)_jj = g_j / s_j

(logdet(C) is concave in s), so that it never lowers the evidence either, and needs far fewer steps;
it is the geometric mean of the present value and MacKay's, which is fastest but not monotone.
Scales may be shared in groups, be Kronecker products of factors, or be coupled by non-negative
patterns. Real and complex data differ in the constants of the log evidence only.

Sources: MacKay, Neural Comput. 4 (1992); Tipping, JMLR 1 (2001); Wipf & Nagarajan, NIPS 20 (2007).
Cost: O(weights) besides the solver's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.validation import check_choice

__all__ = [
    "leverage",
    "log_evidence",
    "second_moment",
    "update_coupled_scale",
    "update_kronecker_scales",
    "update_noise",
    "update_scale",
]

_RULES = ("mm", "mackay", "em")
_TINY = 1e-300


def second_moment(mean: Float[Tensor, "*columns weight"]) -> Float[Tensor, " weight"]:
    """T_j, the average of abs(m_j)^2 over columns; real or complex means.

    Example:
        >>> second_moment(torch.tensor([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [5.0, 2.0]
    """
    square = (mean * mean.conj()).real
    return square.reshape(-1, square.shape[-1]).mean(0)


def leverage(
    scale: Float[Tensor, "*weight"], variance: Float[Tensor, "*weight"]
) -> Float[Tensor, "*weight"]:
    """g_j = 1 - V_j / s_j, kept within [0, 1] against rounding; 0 where the scale is 0.

    Example:
        >>> leverage(torch.tensor([2.0, 0.0]), torch.tensor([0.5, 0.0])).tolist()
        [0.75, 0.0]
    """
    ratio = torch.where(scale > 0, variance / scale.clamp(min=_TINY), 1.0)
    return (1 - ratio).clamp(0.0, 1.0)


def update_scale(
    scale: Float[Tensor, " group"],
    moment: Float[Tensor, " weight"],
    variance: Float[Tensor, " weight"],
    *,
    rule: str = "mm",
    groups: Int64[Tensor, " weight"] | None = None,
    floor: float = 0.0,
) -> Float[Tensor, " group"]:
    """New prior variances of the weights.

    Args:
        scale: present ones.
        moment: T_j of every weight, from :func:`second_moment`.
        variance: posterior variances V_j.
        rule: "mm", "mackay" or "em".
        groups: number of the group whose scale a weight has; None if each has its own.
        floor: scales below ``floor`` times the largest are raised to it.

    Raises:
        ConfigurationError: an unknown rule.
        ShapeError: moments and variances that do not fit the scales.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> float(update_scale(one, 4 * one, 0.75 * one))  # sqrt(1 * 4 / .25)
        4.0
    """
    _require_rule(rule)
    member = torch.arange(len(scale), device=scale.device) if groups is None else groups
    if moment.shape != variance.shape or moment.shape != member.shape:
        raise ShapeError(
            message(
                "Every weight needs a moment, a variance and a scale",
                where="moment, variance",
                got=(tuple(moment.shape), tuple(variance.shape)),
                expected=tuple(member.shape),
            )
        )

    def total(values: Tensor) -> Tensor:
        return torch.zeros_like(scale).index_add(0, member, values.to(scale.dtype))

    if rule == "em":
        new = total(moment + variance) / total(torch.ones_like(moment)).clamp(min=1)
    else:
        mackay = total(moment) / total(leverage(scale[member], variance)).clamp(min=_TINY)
        new = mackay if rule == "mackay" else (scale * mackay).sqrt()
        # a weight that the data say nothing about, or of scale zero, stays where it is
        silent = total(leverage(scale[member], variance)) <= 0
        new = torch.where(silent, scale, new)
    return new.clamp(min=floor * float(new.max()))


def update_noise(
    noise: Float[Tensor, ""],
    residual_square: Float[Tensor, ""],
    num_parameters: Float[Tensor, ""],
    num_data: int,
    *,
    rule: str = "mm",
    floor: float = 0.0,
) -> Float[Tensor, ""]:
    """The new noise variance.

    Args:
        noise: present v.
        residual_square: r'r averaged over the columns of y.
        num_parameters: sum of the leverages.
        num_data: N, rows of a column.
        rule: "mm", "mackay" or "em".
        floor: least value.

    Raises:
        ConfigurationError: an unknown rule.

    Example:
        >>> v = torch.tensor(1.0)
        >>> float(update_noise(v, 8 * v, 2 * v, 10, rule="mackay"))
        1.0
    """
    _require_rule(rule)
    if rule == "em":
        return ((residual_square + noise * num_parameters) / num_data).clamp(min=floor)
    mackay = residual_square / (num_data - num_parameters).clamp(min=1e-12 * num_data)
    return (mackay if rule == "mackay" else (noise * mackay).sqrt()).clamp(min=floor)


def update_kronecker_scales(
    factors: Sequence[Float[Tensor, " size_k"]],
    moment: Float[Tensor, "*sizes"],
    sensitivity: Float[Tensor, "*sizes"],
    *,
    floor: float = 0.0,
) -> list[Float[Tensor, " size_k"]]:
    """MM update of scales that are products, s_ijk = a_i b_j c_k: one factor after the other.

    Args:
        factors: present factors.
        moment: T of every weight, on the grid of the factors.
        sensitivity: S = g / s = diag(A' C^-1 A) of every weight, at the present scales.
        floor: entries below ``floor`` times their factor's largest are raised to it.

    Raises:
        ShapeError: grids that do not fit the factors.

    Example:
        >>> one, grid = torch.ones(2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
        >>> [f.tolist() for f in update_kronecker_scales([one, one], 4 * grid, grid)]
        [[2.0, 2.0], [1.0, 1.0]]
    """
    sizes = tuple(len(factor) for factor in factors)
    if tuple(moment.shape) != sizes or tuple(sensitivity.shape) != sizes:
        raise ShapeError(
            message(
                "Moments and sensitivities must lie on the grid of the factors",
                where="moment, sensitivity",
                got=(tuple(moment.shape), tuple(sensitivity.shape)),
                expected=sizes,
            )
        )
    new = list(factors)
    for k, factor in enumerate(new):
        others = _outer_except(new, k)
        rest = [d for d in range(len(new)) if d != k]
        above = (moment / others.clamp(min=_TINY)).sum(rest) if rest else moment
        below = (sensitivity * others).sum(rest) if rest else sensitivity
        value = torch.where(below > 0, above / below.clamp(min=_TINY), factor.square()).sqrt()
        new[k] = value.clamp(min=floor * float(value.max()))
    return new


def update_coupled_scale(
    weights: Float[Tensor, " pattern"],
    patterns: Float[Tensor, "weight pattern"],
    moment: Float[Tensor, " weight"],
    sensitivity: Float[Tensor, " weight"],
) -> Float[Tensor, " pattern"]:
    """MM update of scales s = patterns @ weights, patterns non-negative (smoothing, groups).

    Jensen's inequality on T / s keeps the majoriser separable:
    weights <- weights sqrt(patterns'(T / s^2) / patterns' S).

    Args:
        weights: present ones, non-negative.
        patterns: non-negative.
        moment, sensitivity: T and S of every weight, as for :func:`update_kronecker_scales`.

    Example:
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> update_coupled_scale(one, torch.eye(2).double(), 4 * one, one).tolist()
        [2.0, 2.0]
    """
    scale = (patterns @ weights).clamp(min=_TINY)
    above, below = patterns.mT @ (moment / scale.square()), patterns.mT @ sensitivity
    return torch.where(below > 0, weights * (above / below.clamp(min=_TINY)).sqrt(), weights)


def log_evidence(
    residual_square: Float[Tensor, ""],
    noise: Float[Tensor, ""],
    num_data: int,
    moment: Float[Tensor, " weight"],
    scale: Float[Tensor, " weight"],
    logdet_posterior: Float[Tensor, ""],
    *,
    num_columns: int = 1,
    is_complex: bool = False,
) -> Float[Tensor, ""]:
    """log p(y) of all columns, from what the solver has.

        -c L (N log(pi / c) + logdet(C) + r'r / v + sum T / s),  c = 1/2 real, 1 complex,
        logdet(C) = N log v + sum log s - logdet(Sigma)

    Args:
        residual_square: r'r averaged over columns.
        moment, scale: of the weights with a positive scale.
        logdet_posterior: logdet(Sigma) of the posterior covariance of those weights.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)  # y = x + e, y = 2: N(2; 0, 2)
        >>> found = log_evidence(one[0], one[0], 1, one, one, one[0] * -0.6931471805599453)
        >>> expected = torch.distributions.Normal(0 * one[0], (2 * one[0]).sqrt()).log_prob(
        ...     2 * one[0]
        ... )
        >>> bool((found - expected).abs() < 1e-12)
        True
    """
    half = 1.0 if is_complex else 0.5
    logdet = num_data * noise.log() + scale.log().sum() - logdet_posterior
    quadratic = residual_square / noise + (moment / scale).sum()
    return -half * num_columns * (num_data * math.log(math.pi / half) + logdet + quadratic)


def _outer_except(factors: Sequence[Tensor], skip: int) -> Tensor:
    """Products of all factors but one, on the whole grid."""
    shape = [len(factor) for factor in factors]
    found = torch.ones(shape, dtype=factors[0].dtype, device=factors[0].device)
    for k, factor in enumerate(factors):
        if k != skip:
            found = found * factor.reshape([-1 if d == k else 1 for d in range(len(factors))])
    return found


def _require_rule(rule: str) -> None:
    check_choice("update", "rule", rule, _RULES)
