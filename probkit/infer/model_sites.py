"""What a Pyro model knows of its sites beyond their draws: derived values, and names of plates.

An engine that draws unknowns alone calls :func:`describe_by_model` last: ``pyro.deterministic``
sites are computed at every draw, as Pyro's and NumPyro's ``Predictive`` do, and the dimensions of
plates get the plates' names in the data tree, as in ArviZ's converters. Cost: a run of the model,
and one for each draw (all at once under ``vmap`` where it can be) if there are derived sites.
"""

from __future__ import annotations

from typing import Any

from pyro.poutine.util import site_is_subsample

from probkit.infer.model_checks import ModelChecks
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.result import FitResult

__all__ = ["describe_by_model", "plate_names"]

_RESERVED = ("chain", "draw", "sample")


def describe_by_model(result: FitResult, checks: ModelChecks, *, derived: bool = True) -> FitResult:
    """The result with its model: derived sites are added to draws, and plates name dimensions.

    Args:
        result: its posterior is completed in place.
        checks: the model with its data.
        derived: whether to compute derived sites, which takes runs on the full data. They are left
            out where a plate subsamples, too.
    """
    result.checks = checks
    posterior = result.posterior
    if isinstance(posterior, DrawsPosterior) and posterior.num_draws:
        shape = (posterior.num_chains, posterior.num_draws)
        flat = {name: value.flatten(0, 1) for name, value in posterior.draws.items()}
        further = checks.deterministic(flat) if derived else {}
        posterior.draws |= {name: value.unflatten(0, shape) for name, value in further.items()}
        posterior.dims = plate_names(checks.sites()) | posterior.dims
    return result


def plate_names(sites: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the batch dimensions by site, for sites that are in a plate.

    Not where a derived site has another shape than its plates, or a plate subsamples: the data
    tree has one dimension of a name, of one size.

    Args:
        sites: nodes of a trace of the model, by name.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model():
        ...     with pyro.plate("groups", 3):
        ...         pyro.sample("effect", dist.Normal(torch.zeros(()), 1.0))
        >>> plate_names(pyro.poutine.trace(model).get_trace().nodes)
        {'effect': ['groups']}
    """
    sites = {
        name: site
        for name, site in sites.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }
    named = {}
    for name, site in sites.items():
        batch = site["fn"].batch_shape
        stack = [f for f in site["cond_indep_stack"] if f.vectorized]
        if site["value"].shape[: len(batch)] != batch or any(f.full_size != f.size for f in stack):
            continue
        names = {
            len(batch) + frame.dim: frame.name for frame in stack if frame.name not in _RESERVED
        }
        if names:
            named[name] = [names.get(k, f"{name}_dim_{k}") for k in range(len(batch))]
    return named
