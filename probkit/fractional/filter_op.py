"""The native filter as an operator of torch, for traced, mapped and differentiated code.

``torch.func`` transforms and graph tracers cannot look into native code. An operator with rules
for them stands in their graphs as one node: the potential of a Hurst model then has some hundred
nodes whatever the length of the series, and a batch of chains is one call. The operator returns
the score with the value; with bars for what is held constant, the function

    f(x) ~ bar f + bar f' (x - bar x)

has the value and the first derivatives of ``f`` under every transform. Second ones it has not:
:func:`can_apply` says where first ones suffice.
Cost: that of ``native_filter`` with its score, for every point of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch._C._functorch import TransformType

from probkit.fractional.native_filter import NativeData, Run, has_library, native_data
from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem

__all__ = ["can_apply", "weighted_pieces"]

_NUM_PARAMETERS = 5


def can_apply(like: Tensor) -> bool:
    """Whether code that runs now needs first derivatives of the filter at most, on the CPU."""
    kinds = [level.key() for level in torch._C._functorch.get_interpreter_stack() or []]
    first_order = kinds.count(TransformType.Grad) <= 1 and TransformType.Jvp not in kinds
    cpu = like.device.type == "cpu" and like.dtype == torch.float64
    return first_order and cpu and has_library()


def weighted_pieces(
    system: FractionalSystem, series: Series, precision: Float[Tensor, ""] | None
) -> Float[Tensor, ""]:
    """``R log_variance + precision sum quadratic``; NaN where a variance is not positive.

    Without a precision the second term is ``R N log sum quadratic``, N observations.
    """
    fixed = tuple(x.detach() for x in system)
    number, total = len(series.values), len(series.values) * series.num_observed
    weight = torch.full_like(system.noise, -total) if precision is None else precision.detach()
    points = (x[None] for x in (*fixed, weight))
    log_variance, quadratic, *score = _filter(*points, *native_data(series))
    second = total * quadratic[0].log() if precision is None else precision * quadratic[0]
    value = number * log_variance[0] + second
    for slope, x, known in zip(score, system, fixed, strict=True):
        value = value + (slope[0] * (x - known)).sum()
    return value


@torch.library.custom_op("probkit::fractional_filter", mutates_args=())
def _filter(
    rates: Tensor,
    loadings: Tensor,
    slope: Tensor,
    noise: Tensor,
    precision: Tensor,
    gaps: Tensor,
    index: Tensor,
    seen: Tensor,
    observed: Tensor,
    first: Tensor,
    y: Tensor,
    increments: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sums, and the score of their weighted sum, at every point (the parameters' first dimension).

    A negative precision is the number of observations: the score is then that of the logarithm.
    """
    system = (rates, loadings, slope, noise)
    data = NativeData(gaps, index, seen, observed, first, y, increments)
    found = [torch.empty_like(x) for x in (noise, noise, *system)]
    for g in range(len(rates)):
        run = Run(FractionalSystem(*(x[g] for x in system)), data)
        if run.failed:
            for x in found:
                x[g] = math.nan
            continue
        total = run.quadratic.sum()
        weight = torch.where(precision[g] < 0, -precision[g] / total, precision[g])
        weights = weight.expand(len(y)).contiguous()
        parts = (run.log_variance, total, *run.score(float(len(y)), weights))
        for x, value in zip(found, parts, strict=True):
            x[g] = value
    log_variance, quadratic, drates, dloadings, dslope, dnoise = found
    return log_variance, quadratic, drates, dloadings, dslope, dnoise


@_filter.register_fake
def _(*arguments: Any) -> Any:
    system = arguments[: _NUM_PARAMETERS - 1]
    return tuple(torch.empty_like(x) for x in (system[-1], system[-1], *system))


@_filter.register_vmap
def _(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> Any:
    """The new dimension joins that of the points."""
    if any(dim is not None for dim in in_dims[_NUM_PARAMETERS:]):
        raise NotImplementedError("the filter maps over parameters, not over series")
    points = [
        x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(arguments[:_NUM_PARAMETERS], in_dims, strict=False)
    ]
    sizes = points[0].shape[:2]
    flat = [x.flatten(0, 1).contiguous() for x in points]
    found = _filter(*flat, *arguments[_NUM_PARAMETERS:])
    return tuple(x.unflatten(0, sizes) for x in found), (0,) * len(found)
