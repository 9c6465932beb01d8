"""Draws of a guide with their importance weights, all at once where the model allows.

Draws z_s ~ q get log weights log p(x, z_s) - log q(z_s). Their mean estimates the ELBO; the Pareto
shape k-hat of their tail tells whether q covers the posterior (see ``importance``). Guide and model
are run once under ``vmap``, which keeps the meaning of a single run whatever they broadcast; what
cannot be mapped (branches on values, sites without a batched form) is run draw by draw, at most 200
times.

Source: Yao, Vehtari, Simpson & Gelman, "Yes, but did it work?: Evaluating variational inference",
ICML 2018. Cost: one run of guide and model for each draw, without Python's share where mapped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.func import vmap

from probkit.infer.importance import K_HAT_LIMIT, WeightedDraws
from probkit.infer.mapped_noise import FreshNoise
from probkit.infer.native.lowering import Unsupported
from probkit.infer.protocols import WeighsItself
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.width_check import direction_sd_ratios

__all__ = ["WeighedGuide", "latent_values", "weigh_guide"]

_MAX_RUNS = 200
_CHUNK_ELEMENTS, _CHUNK = 10_000_000, 256


class WeighedGuide(NamedTuple):
    """Weighted draws (None where weights mean nothing) and the figures for the result."""

    weighted: WeightedDraws | None
    diagnostics: dict[str, Any]


@torch.no_grad()
def weigh_guide(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    arguments: ModelArguments,
    num_samples: int,
) -> WeighedGuide:
    """Weigh draws of the guide on the full data; random numbers are torch's global ones.

    The diagnostics are ``elbo``, ``elbo_se``, ``khat``, ``importance_ess``, ``log_evidence``,
    ``sd_ratio``, ``direction_sd_ratio`` (see ``width_check``), ``num_weighed`` and, if k-hat is
    above 0.7, ``warnings``; only a ``khat_note`` where the weights mean nothing: the model
    subsamples its data, or has unknowns that the guide does not draw.
    """
    if isinstance(guide, WeighsItself):
        return _figures(*guide.weighted_draws(num_samples), {})
    q, p = _traces(model, guide, arguments)
    reason = _not_weighable(p, q)
    if reason:
        return WeighedGuide(None, {"khat_note": f"not computed: {reason}"})
    try:
        chunk = max(1, min(_CHUNK, _CHUNK_ELEMENTS // _elements(p)))
        log_weights, draws = _mapped(model, guide, arguments, num_samples, chunk)
    except (RuntimeError, ValueError, NotImplementedError, UserWarning, Unsupported):
        log_weights, draws = _one_by_one(model, guide, arguments, min(num_samples, _MAX_RUNS))
    return _figures(draws, log_weights, direction_sd_ratios(model, arguments, draws))


def _figures(
    draws: dict[str, Tensor], log_weights: Tensor, further: dict[str, Any]
) -> WeighedGuide:
    weighted = WeightedDraws(draws, log_weights.to(torch.float64).cpu())
    values, count = weighted.log_weights, len(log_weights)
    figures = {
        "elbo": float(values.mean()),
        "elbo_se": float(values.std()) / math.sqrt(count),
        "num_weighed": count,
        **weighted.diagnostics(),
        **further,
    }
    if weighted.khat > K_HAT_LIMIT:
        text = (
            f"PSIS k-hat is {weighted.khat:.2f} (> {K_HAT_LIMIT}): the guide misses part of the "
            "posterior; its intervals are likely too narrow. Use a richer guide "
            "(AutoMultivariateNormal) or HMC."
        )
        figures["warnings"] = [text]
    return WeighedGuide(weighted, figures)


def latent_values(trace: Any) -> dict[str, Tensor]:
    """Values of the unknowns in a trace, auxiliary sites and subsampling left out."""
    return {
        name: site["value"].detach()
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and not site["infer"].get("is_auxiliary", False)
        and not site_is_subsample(site)
    }


def _mapped(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    arguments: ModelArguments,
    num_samples: int,
    chunk: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    def one(_: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        q, p = _traces(model, guide, arguments)
        return p.log_prob_sum() - q.log_prob_sum(), latent_values(q)

    with pyro.validation_enabled(False), warnings.catch_warnings(), FreshNoise():
        warnings.simplefilter("error", UserWarning)  # a slow fallback inside vmap: go one by one
        found: tuple[Tensor, dict[str, Tensor]] = vmap(
            one, randomness="different", chunk_size=chunk
        )(torch.arange(num_samples))
    return found


def _one_by_one(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    arguments: ModelArguments,
    num_samples: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    weights, rows = [], []
    for _ in range(num_samples):
        q, p = _traces(model, guide, arguments)
        weights.append(p.log_prob_sum() - q.log_prob_sum())
        rows.append(latent_values(q))
    return torch.stack(weights), {k: torch.stack([row[k] for row in rows]) for k in rows[0]}


def _traces(
    model: Callable[..., Any], guide: Callable[..., Any], arguments: ModelArguments
) -> tuple[Any, Any]:
    args, kwargs = arguments
    q = poutine.trace(guide).get_trace(*args, **kwargs)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*args, **kwargs)
    return q, p


def _not_weighable(p: Any, q: Any) -> str:
    """Why log p - log q of these traces is not an importance weight; empty if it is."""
    if not latent_values(p):
        return "the model has no unknowns"
    for name, site in p.nodes.items():
        if site["type"] != "sample":
            continue
        if any(f.full_size not in (None, f.size) for f in site["cond_indep_stack"]):
            return "the model subsamples its data"
        latent = not site["is_observed"] and not site_is_subsample(site)
        if latent and name not in q.nodes:
            return f"the guide does not draw site {name!r}"
    return ""


def _elements(trace: Any) -> int:
    """Numbers that one run of the model holds, roughly."""
    sites = [s for s in trace.nodes.values() if s["type"] == "sample"]
    return sum(s["value"].numel() for s in sites if isinstance(s["value"], Tensor)) * 4 + 1
