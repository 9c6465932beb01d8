"""Which site makes an ELBO or its gradient break down at given parameters.

Guide and model are run draw by draw until one breaks: a factorisation fails, a log density is not
finite, or its gradient is not. Cost: one run and one reverse pass a site, for up to 100 draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from probkit.errors import ProbkitError
from probkit.infer.pyro_data import ModelArguments, sample_sites
from probkit.infer.site_checks import naming_sites

__all__ = ["broken_site"]

_DRAWS = 100


def broken_site(
    model: Callable[..., Any], guide: Callable[..., Any], arguments: ModelArguments
) -> str:
    """One sentence with the site's name; empty if none of the draws breaks down.

    Uses the parameters in Pyro's store and torch's global random numbers.
    """
    for _ in range(_DRAWS):
        found = _one_draw(model, guide, arguments)
        if found:
            return found
    return ""


def _one_draw(
    model: Callable[..., Any], guide: Callable[..., Any], arguments: ModelArguments
) -> str:
    args, kwargs = arguments
    try:
        with pyro.validation_enabled(False), naming_sites() as named:
            q = poutine.trace(named(guide)).get_trace(*args, **kwargs)
            p = poutine.trace(named(poutine.replay(model, trace=q))).get_trace(*args, **kwargs)
            p.compute_log_prob()
            q.compute_log_prob()
    except ProbkitError as error:
        return str(error)
    parameters = [v for _, v in pyro.get_param_store().named_parameters()]
    densities = [("guide", n, s["log_prob_sum"]) for n, s in sample_sites(q)]
    densities += [("model", n, s["log_prob_sum"]) for n, s in sample_sites(p)]
    for whose, name, density in densities:
        if not bool(torch.isfinite(density)):
            return f"site {name!r} of the {whose} has log density {float(density.detach())}"
    for whose, name, density in densities:
        if not _finite_gradient(density, parameters):
            return f"the gradient of the log density of site {name!r} of the {whose} is not finite"
    return ""


def _finite_gradient(density: Tensor, parameters: list[Tensor]) -> bool:
    if not density.requires_grad:
        return True
    gradients = torch.autograd.grad(density, parameters, retain_graph=True, allow_unused=True)
    return all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
