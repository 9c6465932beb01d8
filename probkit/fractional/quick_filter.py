"""The filter by the quickest way that has the derivatives asked for.

Plain code takes native code as a function of autograd, code that ``torch.func`` transforms takes
it as an operator (``filter_op``). Both have first derivatives. A second one is asked of the plain
way when its gradient is itself recorded (``create_graph``): that gradient is then taken of the
steps in torch.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.filter_op import can_apply, weighted_pieces
from probkit.fractional.likelihood import filter_series
from probkit.fractional.native_filter import (
    Run,
    is_native_available,
    native_data,
    require_positive,
)
from probkit.fractional.series import Series
from probkit.fractional.system import FractionalSystem

__all__ = ["filter_quickly", "native_pieces"]


def filter_quickly(
    system: FractionalSystem, series: Series, precision: Float[Tensor, ""] | None
) -> Float[Tensor, ""]:
    """``R log_variance + precision sum quadratic`` of one set of parameters, natively if it can.

    Without a precision the second term is ``R N log sum quadratic``, N observations: the least
    value over the scale, but for a constant.
    Derivatives of every order exist; from the second on they take the steps of ``likelihood``.

    Raises:
        NotPositiveDefiniteError: the variance of an observation is not positive.
    """
    plain = is_native_available(system.noise)
    if not (plain or can_apply(system.noise)):
        pieces = filter_series(system, series)
        return _weighted(pieces.log_variance, pieces.quadratic, series, precision)
    if not plain:
        return weighted_pieces(system, series, precision)
    return _weighted(*native_pieces(system, series), series, precision)


def native_pieces(system: FractionalSystem, series: Series) -> tuple[Tensor, Tensor]:
    """Sum of log S, (), and of v^2 / S, (R,), over the observations, of one set of parameters.

    Raises:
        NotPositiveDefiniteError: the variance of an observation is not positive.
    """
    found: tuple[Tensor, Tensor] = _Pieces.apply(*system, series)
    return found


def _weighted(
    log_variance: Tensor, quadratic: Tensor, series: Series, precision: Tensor | None
) -> Tensor:
    number, total = len(series.values), quadratic.sum(0)
    if precision is None:
        return number * (log_variance + series.num_observed * total.log())
    return number * log_variance + precision * total


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *system, series = arguments
        run = Run(FractionalSystem(*system), native_data(series))
        require_positive(run.failed)
        ctx.run, ctx.series = run, series
        ctx.save_for_backward(*system)
        return run.log_variance, run.quadratic

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            g_log, g_quadratic = grads
            return (*ctx.run.score(float(g_log), g_quadratic.contiguous()), None)
        system = ctx.saved_tensors
        pieces = filter_series(FractionalSystem(*system), ctx.series)
        wanted = [x for x in system if x.requires_grad]
        sums = (pieces.log_variance, pieces.quadratic)
        found = iter(torch.autograd.grad(sums, wanted, grads, create_graph=True))
        return (*(next(found) if x.requires_grad else None for x in system), None)
