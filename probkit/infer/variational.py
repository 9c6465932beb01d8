"""A Pyro model with its guide: draws from the guide and importance-sampling diagnostics.

Draws z_s ~ q give log weights log p(x, z_s) - log q(z_s). Their mean estimates the ELBO; the
Pareto shape k-hat of their tail tells whether q covers the posterior: below 0.7 q is usable as it
is, above it the tails are wrong and moments should not be trusted.

Source: Yao, Vehtari, Simpson & Gelman, "Yes, but did it work?: Evaluating variational inference",
ICML 2018. Cost: one run of guide and model for each draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import autoguide
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.pyro_data import ModelArguments

__all__ = [
    "final_guide",
    "guide_draws",
    "importance_diagnostics",
    "make_guide",
    "point_estimate_warning",
]

_K_HAT_LIMIT = 0.7


def make_guide(guide: Any, model: Callable[..., Any]) -> Callable[..., Any]:
    """A guide from an autoguide's name or class, or the callable itself.

    Raises:
        ConfigurationError: the name is not one of Pyro's autoguides, or it is no callable.
    """
    if isinstance(guide, str):
        found = getattr(autoguide, guide, None)
        if found is None or not guide.startswith("Auto"):
            names = [name for name in dir(autoguide) if name.startswith("Auto")]
            raise ConfigurationError(
                message("There is no such autoguide", where="guide", got=guide, expected=names)
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
    return {"khat": math.nan, "warnings": [text]}


@torch.no_grad()
def guide_draws(
    guide: Callable[..., Any], arguments: ModelArguments, num_samples: int
) -> dict[str, Tensor]:
    """Draws of the guide's sites, (num_samples, *event) each, auxiliary sites left out.

    Autoguides are drawn from in one vectorised run; a guide written by the user, which need not
    broadcast, is run once for each draw.
    """
    args, kwargs = arguments
    if isinstance(guide, autoguide.AutoGuide):
        single = _latent_values(poutine.trace(guide).get_trace(*args, **kwargs))
        together = _vectorised(guide, arguments, num_samples)
        if all(together[k].numel() == num_samples * v.numel() for k, v in single.items()):
            # a plate leaves singleton dimensions between the draws and the site's own
            return {k: together[k].reshape(num_samples, *v.shape) for k, v in single.items()}
    rows = [
        _latent_values(poutine.trace(guide).get_trace(*args, **kwargs)) for _ in range(num_samples)
    ]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@torch.no_grad()
def importance_diagnostics(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    arguments: ModelArguments,
    num_samples: int,
) -> dict[str, Any]:
    """ELBO with its standard error, and k-hat, from ``num_samples`` runs on the full data.

    Returns ``elbo``, ``elbo_se``, ``khat`` and, if k-hat is above 0.7, ``warnings``; only a
    ``khat_note`` where the weights mean nothing: the model subsamples its data, or has unknowns
    that the guide does not draw.
    """
    weights = []
    for _ in range(num_samples):
        q, p = _paired_traces(model, guide, arguments)
        reason = _not_weighable(p, q)
        if reason:
            return {"khat_note": f"not computed: {reason}"}
        weights.append(p.log_prob_sum() - q.log_prob_sum())
    values = torch.stack(weights).to(torch.float64).cpu()
    return {
        "elbo": float(values.mean()),
        "elbo_se": float(values.std()) / math.sqrt(num_samples),
        **_pareto(values),
    }


def _pareto(log_weights: Tensor) -> dict[str, Any]:
    from arviz_stats.base import array_stats

    # rounding differences of an exact guide are no tail: weights that agree have k-hat minus inf
    spread = float(log_weights.max() - log_weights.min())
    if spread <= 1e-9 * max(float(log_weights.abs().max()), 1.0):
        return {"khat": -math.inf}
    # psislw takes the negative of the log weights (a log likelihood, in leave-one-out)
    khat = float(array_stats.psislw(-log_weights.numpy())[1])
    if khat <= _K_HAT_LIMIT:
        return {"khat": khat}
    text = (
        f"PSIS k-hat is {khat:.2f} (> {_K_HAT_LIMIT}): the guide misses part of the posterior; "
        "its intervals are likely too narrow. Use a richer guide (AutoMultivariateNormal) or NUTS."
    )
    return {"khat": khat, "warnings": [text]}


def _paired_traces(
    model: Callable[..., Any], guide: Callable[..., Any], arguments: ModelArguments
) -> tuple[Any, Any]:
    args, kwargs = arguments
    q = poutine.trace(guide).get_trace(*args, **kwargs)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*args, **kwargs)
    return q, p


def _not_weighable(p: Any, q: Any) -> str:
    """Why log p - log q of these traces is not an importance weight; empty if it is."""
    for name, site in p.nodes.items():
        if site["type"] != "sample":
            continue
        if any(f.full_size not in (None, f.size) for f in site["cond_indep_stack"]):
            return "the model subsamples its data"
        latent = not site["is_observed"] and not site_is_subsample(site)
        if latent and name not in q.nodes:
            return f"the guide does not draw site {name!r}"
    return ""


def _vectorised(guide: Any, arguments: ModelArguments, num_samples: int) -> dict[str, Tensor]:
    args, kwargs = arguments
    frames = [f for site in guide.prototype_trace.nodes.values() for f in _frames(site)]
    depth = max((-frame.dim for frame in frames if frame.vectorized), default=0)
    with pyro.plate("_probkit_draws", num_samples, dim=-depth - 1):
        return _latent_values(poutine.trace(guide).get_trace(*args, **kwargs))


def _frames(site: dict[str, Any]) -> list[Any]:
    return list(site.get("cond_indep_stack", ()))


def _latent_values(trace: Any) -> dict[str, Tensor]:
    return {
        name: site["value"].detach()
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and not site["infer"].get("is_auxiliary", False)
        and not site_is_subsample(site)
    }
