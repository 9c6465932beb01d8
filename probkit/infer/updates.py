"""How parameters follow a gradient: AdamW, or plain steps along natural gradients of Gaussians.

The natural gradient is the direction of steepest ascent where distance is the change of the
distribution itself. For q = N(m, L L') and gradients g_m, G_L of the loss,

    m:  L L' g_m          L:  L phi(L' G_L),   phi = lower triangle with half its diagonal,

whatever coordinates L is held in; here s and unit lower U with L = diag(s) U. Steps do not depend
on the posterior's scale or correlations, so a learning rate of .05 is good everywhere.

Sources: Loshchilov & Hutter, ICLR 2019 (AdamW); Amari, Neural Comput. 10 (1998); Tan, Stat. Comput.
31 (2021), natural gradients in Cholesky factors. Cost: that of the gradient; d^3 for a full rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.flat_guides import FlatGuide
from probkit.infer.protocols import State

__all__ = ["adam", "descend", "natural_gradient", "require_natural"]

_FIRST_DECAY, _SECOND_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_FORMS = ("mean_field", "full_rank")
_LIMIT = 3 * 2**0.5


def adam(
    state: State, gradients: Mapping[str, Tensor], number: int, rate: float, weight_decay: float
) -> State:
    """AdamW's update with bias correction, all parameters in one call; gradients of the loss."""
    names, new = list(gradients), list(gradients.values())
    value, first, second = (
        [state[f"{part}.{name}"].to(g.device) for name, g in gradients.items()]
        for part in ("param", "first", "second")
    )
    parts = {
        "first": torch._foreach_lerp(new, first, _FIRST_DECAY),
        "second": torch._foreach_lerp(torch._foreach_mul(new, new), second, _SECOND_DECAY),
    }
    scale = torch._foreach_sqrt(torch._foreach_div(parts["second"], 1 - _SECOND_DECAY**number))
    torch._foreach_add_(scale, _EPSILON)
    step = -rate / (1 - _FIRST_DECAY**number)
    kept = torch._foreach_mul(value, 1 - rate * weight_decay) if weight_decay else value
    parts["param"] = torch._foreach_addcdiv(kept, parts["first"], scale, step)
    return {
        f"{part}.{name}": tensor
        for part, column in parts.items()
        for name, tensor in zip(names, column, strict=True)
    }


def descend(state: State, gradients: Mapping[str, Tensor], rate: float) -> State:
    """A plain step; Adam's averages stay as they are."""
    new: State = {}
    for name, gradient in gradients.items():
        new[f"param.{name}"] = state[f"param.{name}"].to(gradient.device) - rate * gradient
        new |= {f"{part}.{name}": state[f"{part}.{name}"] for part in ("first", "second")}
    return new


def natural_gradient(
    values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """From gradients with respect to ``loc``, the logarithm ``scale`` and, if given, ``lower``.

    Where q is far too wide or far off, steps would overshoot: a gradient that is longer, as the
    distribution sees it, than three times what Monte Carlo noise alone makes it is cut to that.

    Example:
        >>> values = {"loc": torch.zeros(2), "scale": torch.tensor([0.0, 1.0])}
        >>> found = natural_gradient(values, {"loc": torch.ones(2), "scale": torch.ones(2)})
        >>> [round(x, 3) for x in found["loc"].tolist()], found["scale"].tolist()
        ([1.0, 7.389], [0.5, 0.5])
    """
    s = values["scale"].exp()
    g_loc, g_log = gradients["loc"], gradients["scale"]
    if "lower" not in values:
        return _limited({"loc": s.square() * g_loc, "scale": 0.5 * g_log}, gradients)
    unit = values["lower"].tril(-1) + torch.eye(len(s), dtype=s.dtype, device=s.device)
    factor = s[:, None] * unit
    below = gradients["lower"].tril(-1) / s[:, None]  # with respect to the entries of the factor
    diagonal = g_log / s - (below * unit).sum(1)
    inner = factor.mT @ (below + torch.diag(diagonal))
    move = factor @ (inner.tril(-1) + torch.diag(0.5 * inner.diagonal()))
    log_move = move.diagonal() / s
    natural = {
        "loc": factor @ (factor.mT @ g_loc),
        "scale": log_move,
        "lower": (move / s[:, None] - log_move[:, None] * unit).tril(-1),
    }
    return _limited(natural, gradients)


def _limited(natural: dict[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    products = [(n * gradients[name]).sum() for name, n in natural.items()]
    length = torch.stack(products).sum().clamp_min(1e-300).sqrt()
    share = (_LIMIT * len(natural["loc"]) ** 0.5 / length).clamp_max(1.0)
    return {name: n * share for name, n in natural.items()}


def require_natural(guide: Any, names: list[str]) -> None:
    """Check that natural gradients are known.

    Raises:
        ConfigurationError: the guide is no Gaussian by form, or the model has parameters.
    """
    form = guide.form if isinstance(guide, FlatGuide) else type(guide).__name__
    if form not in _FORMS:
        raise ConfigurationError(
            message(
                "Natural gradients are known for Gaussian guides by form",
                where="guide",
                got=form,
                expected=_FORMS,
            )
        )
    others = sorted(set(names) - {"loc", "scale", "lower"})
    if others:
        raise ConfigurationError(
            message(
                "Natural gradients are for models without parameters of their own",
                where="pyro.param",
                got=others,
                remedy='give them priors, or use optimizer="adam"',
            )
        )
