"""Whether an approximate posterior is as wide as the posterior in every direction.

For draws z ~ q with mean m and covariance S, e = S^-1/2 (z - m) and scores g = grad log p(x, z),

    A = -E[S^1/2 g e'] = S^1/2 E[-hess log p] S^1/2,

which is the identity if q is the posterior (Stein's identity, whatever q's shape). An eigenvalue l
of A means that along its direction the posterior is 1 / sqrt(l) times as wide as q. A is found by
least squares of the scores on e, so that it is free of Monte Carlo error for a Gaussian posterior.
This sees what importance weights cannot: a mean-field guide of a strongly correlated posterior is
so narrow that none of its draws reaches the part it misses.

Cost: one batched gradient at max(200, 10 d) draws, and d^3 for d unknowns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from probkit.errors import ProbkitError
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.unconstrained import DiscreteUnknown, UnconstrainedModel

__all__ = ["direction_sd_ratios", "score_widths"]

_DRAWS_EACH, _ENOUGH = 10, 200
_CHUNK = 256


def score_widths(
    draws: Float[Tensor, "draw size"], scores: Float[Tensor, "draw size"]
) -> tuple[float, float]:
    """Least and greatest ratio of the posterior's to the draws' standard deviation.

    The greatest is infinite where the posterior does not curve downwards at all.

    Example:
        >>> z = torch.linspace(-1, 1, 101, dtype=torch.float64)[:, None]
        >>> least, greatest = score_widths(z, -z / (4 * z.var()))  # a posterior twice as wide
        >>> round(least, 6), round(greatest, 6)
        (2.0, 2.0)
    """
    away = draws - draws.mean(0)
    values, vectors = torch.linalg.eigh(away.mT @ away / (len(draws) - 1))
    kept = values > values[-1] * 1e-12
    root = vectors[:, kept] * values[kept].sqrt()
    standard = away @ (vectors[:, kept] / values[kept].sqrt())
    centred = (scores - scores.mean(0)) @ root
    slopes = torch.linalg.lstsq(standard, centred).solution
    curvature = torch.linalg.eigvalsh(-(slopes + slopes.mT) / 2)
    least, greatest = float(curvature[0]), float(curvature[-1])
    return (
        greatest**-0.5 if greatest > 0 else math.inf,
        least**-0.5 if least > 0 else math.inf,
    )


def direction_sd_ratios(
    model: Callable[..., Any], arguments: ModelArguments, draws: dict[str, Tensor]
) -> dict[str, Any]:
    """``direction_sd_ratio`` of a Pyro model's draws, or ``width_note`` with why there is none.

    Args:
        model: with its learned parameters in Pyro's store.
        arguments: its data.
        draws: by site, ``(draw, *event)``.
    """
    try:
        with pyro.validation_enabled(False):
            flat_model = UnconstrainedModel(model, arguments)
            count = len(next(iter(draws.values())))
            if count < _DRAWS_EACH * flat_model.size:
                note = f"{flat_model.size} unknowns need {_DRAWS_EACH * flat_model.size} draws"
                return {"width_note": f"not computed: {note}"}
            enough = max(_ENOUGH, _DRAWS_EACH * flat_model.size)
            some = {name: value[:enough] for name, value in draws.items()}
            with torch.no_grad():
                flat = vmap(flat_model.flatten, chunk_size=_CHUNK)(some)
                gradient = vmap(grad(flat_model.potential), chunk_size=_CHUNK)(flat)
    except (ProbkitError, DiscreteUnknown, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines() or [""]
        return {"width_note": f"not computed: {type(error).__name__}: {reason[0][:160]}"}
    if not bool(gradient.isfinite().all() & flat.isfinite().all()):
        return {"width_note": "not computed: the model has no finite gradient at some draw"}
    return {"direction_sd_ratio": list(score_widths(flat.double(), -gradient.double()))}
