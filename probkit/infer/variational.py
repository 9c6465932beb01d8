"""Guides by name, and draws from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import autoguide
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.flat_guides import FORMS, FlatGuide
from probkit.infer.guide_weights import latent_values
from probkit.infer.protocols import WeighsItself
from probkit.infer.pyro_data import ModelArguments

__all__ = [
    "final_guide",
    "guide_draws",
    "make_guide",
    "point_estimate_warning",
]


def make_guide(
    guide: Any, model: Callable[..., Any], arguments: ModelArguments
) -> Callable[..., Any]:
    """A guide from the name of a form, an autoguide's name or class, or the callable itself.

    Forms are made at the median of a few prior draws, by torch's global random numbers.

    Raises:
        ConfigurationError: the name is not one of Pyro's autoguides, or it is no callable.
    """
    if isinstance(guide, str) and guide in FORMS:
        return FlatGuide.of(model, arguments, guide)
    if isinstance(guide, str):
        found = getattr(autoguide, guide, None)
        if found is None or not guide.startswith("Auto"):
            names = [name for name in dir(autoguide) if name.startswith("Auto")]
            raise ConfigurationError(
                message(
                    "There is no such guide", where="guide", got=guide, expected=[*FORMS, *names]
                )
            )
        guide = found
    if isinstance(guide, type) and issubclass(guide, autoguide.AutoGuide):
        made: Callable[..., Any] = guide(model)
        return made
    if not callable(guide):
        raise ConfigurationError(
            message(
                "A guide must be callable with the model's arguments",
                where="guide",
                got=type(guide).__name__,
                expected="an autoguide's name or class, a function, or a PyroModule",
            )
        )
    function: Callable[..., Any] = guide
    return function


def final_guide(guide: Any, arguments: ModelArguments) -> Any:
    """The guide to draw from: a fitted Laplace guide becomes a Gaussian at the mode."""
    if isinstance(guide, autoguide.AutoLaplaceApproximation):
        args, kwargs = arguments
        return guide.laplace_approximation(*args, **kwargs)
    return guide


def point_estimate_warning(guide: Any) -> dict[str, Any]:
    """A warning in the place of k-hat where all draws are the same point."""
    if not isinstance(guide, autoguide.AutoDelta):
        return {}
    text = "AutoDelta gives a point estimate: its draws are all equal and carry no uncertainty."
    return {"khat": math.nan, "point_estimate": True, "warnings": [text]}


@torch.no_grad()
def guide_draws(
    guide: Callable[..., Any], arguments: ModelArguments, num_samples: int
) -> dict[str, Tensor]:
    """Draws of the guide's sites, (num_samples, *event) each, auxiliary sites left out.

    Autoguides are drawn from in one vectorised run; a guide written by the user, which need not
    broadcast, is run once for each draw.
    """
    args, kwargs = arguments
    if isinstance(guide, WeighsItself):
        return guide.weighted_draws(num_samples)[0]
    if isinstance(guide, FlatGuide):
        return guide.draw(num_samples, int(torch.randint(2**62, ())))
    if isinstance(guide, autoguide.AutoGuide):
        single = latent_values(poutine.trace(guide).get_trace(*args, **kwargs))
        together = _vectorised(guide, arguments, num_samples)
        if all(together[k].numel() == num_samples * v.numel() for k, v in single.items()):
            # a plate leaves singleton dimensions between the draws and the site's own
            return {k: together[k].reshape(num_samples, *v.shape) for k, v in single.items()}
    rows = [
        latent_values(poutine.trace(guide).get_trace(*args, **kwargs)) for _ in range(num_samples)
    ]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _vectorised(guide: Any, arguments: ModelArguments, num_samples: int) -> dict[str, Tensor]:
    args, kwargs = arguments
    frames = [f for site in guide.prototype_trace.nodes.values() for f in _frames(site)]
    depth = max((-frame.dim for frame in frames if frame.vectorized), default=0)
    with pyro.plate("_probkit_draws", num_samples, dim=-depth - 1):
        return latent_values(poutine.trace(guide).get_trace(*args, **kwargs))


def _frames(site: dict[str, Any]) -> list[Any]:
    return list(site.get("cond_indep_stack", ()))
