"""Results as ``xarray.DataTree``, the container that ArviZ and its relatives read.

A posterior may offer ``datatree_groups(num_samples, generator) -> (groups, dims, coords)``, where
groups map a group's name to arrays by variable; otherwise its draws are the group ``posterior``.
Draws have the dimensions (chain, draw, ...). Complex variables become real and imaginary parts,
which every reader of netCDF understands. A name with a slash, which netCDF takes for a path, has a
dot in its place, and one that is a dimension of all draws ends in ``_``; the attribute ``renamed``
tells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import arviz_base
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from probkit.errors import ConfigurationError, message
from probkit.infer.model_checks import ModelChecks
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import PosteriorLike
from probkit.infer.provenance import stored
from probkit.random import as_generator

__all__ = ["build_datatree", "model_groups"]

_MODEL_GROUPS = (
    *("log_likelihood", "posterior_predictive", "prior", "prior_predictive"),
    "observed_data",
)

_DRAW_DIMS = ("chain", "draw")

Groups = dict[str, dict[str, NDArray[Any]]]


def build_datatree(
    posterior: PosteriorLike,
    provenance: dict[str, Any],
    diagnostics: dict[str, Any],
    num_samples: int,
    seed: int,
    extra: Groups,
) -> xr.DataTree:
    """Assemble the tree, ``extra`` groups beside the posterior's own.

    Provenance and diagnostics become attributes (JSON).
    """
    groups, dims, coords = _groups(posterior, num_samples, as_generator(seed))
    groups = {**groups, **extra}
    real = {name: _split_complex(variables) for name, variables in groups.items()}
    names = {n for variables in real.values() for n in variables} | set(coords)
    names |= set(dims) | {d for found in dims.values() for d in found}
    renamed = _readable(names)
    real = {g: {renamed.get(n, n): v for n, v in part.items()} for g, part in real.items()}
    dims = {renamed.get(n, n): [renamed.get(d, d) for d in ds] for n, ds in dims.items()}
    coords = {renamed.get(n, n): v for n, v in coords.items()}
    tree: xr.DataTree = arviz_base.from_dict(real, dims=dims or None, coords=coords or None)
    tree.attrs["provenance"] = json.dumps(provenance, default=str)
    tree.attrs["diagnostics"] = json.dumps(diagnostics, default=str)
    if renamed:
        tree.attrs["renamed"] = json.dumps(renamed)
    return tree


def model_groups(
    checks: ModelChecks,
    posterior: PosteriorLike,
    include: Sequence[str],
    num_samples: int,
    seed: int,
) -> Groups:
    """Groups that need the model and its data, by name.

    Raises:
        ConfigurationError: an unknown name.
    """
    unknown = sorted(set(include) - set(_MODEL_GROUPS))
    if unknown:
        raise ConfigurationError(
            message("No such group", where="include", got=unknown, expected=_MODEL_GROUPS)
        )
    if isinstance(posterior, DrawsPosterior):
        shape = (posterior.num_chains, posterior.num_draws)
        draws = {name: value.flatten(0, 1) for name, value in posterior.draws.items()}
    else:
        shape, draws = (1, num_samples), posterior.sample(num_samples, as_generator(seed))
    found: dict[str, dict[str, Any]] = {}
    if "log_likelihood" in include:
        found["log_likelihood"] = _chains(checks.log_likelihood(draws), shape)
    if "posterior_predictive" in include:
        found["posterior_predictive"] = _chains(checks.replicate(draws, seed), shape)
    data = checks.data()
    if "observed_data" in include:
        found["observed_data"] = data
    if {"prior", "prior_predictive"} & set(include):
        prior = _chains(checks.prior(num_samples, seed), (1, num_samples))
        parts = {
            "prior": {k: v for k, v in prior.items() if k not in data},
            "prior_predictive": {k: v for k, v in prior.items() if k in data},
        }
        found |= {name: part for name, part in parts.items() if name in include}
    return _to_numpy(found)


def _readable(names: set[str]) -> dict[str, str]:
    """New names for those that netCDF or xarray cannot hold, different from all others."""
    found: dict[str, str] = {}
    for name in sorted(names):
        new = name.replace("/", ".")
        while new in _DRAW_DIMS or (new != name and new in names | set(found.values())):
            new += "_"
        if new != name:
            found[name] = new
    return found


def _chains(values: dict[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
    return {name: value.unflatten(0, shape) for name, value in values.items()}


def _groups(
    posterior: PosteriorLike, num_samples: int, generator: torch.Generator
) -> tuple[Groups, dict[str, list[str]], dict[str, Any]]:
    own = getattr(posterior, "datatree_groups", None)
    if own is not None:
        groups, dims, coords = own(num_samples, generator)
        return _to_numpy(groups), dims, coords
    if isinstance(posterior, DrawsPosterior):
        return _to_numpy({"posterior": posterior.draws}), posterior.dims, posterior.coords
    draws = posterior.sample(num_samples, generator)
    return _to_numpy({"posterior": {k: v[None] for k, v in draws.items()}}), {}, {}


def _to_numpy(groups: dict[str, dict[str, Any]]) -> Groups:
    return {
        group: {
            name: np.asarray(stored(v) if isinstance(v, torch.Tensor) else v)
            for name, v in variables.items()
        }
        for group, variables in groups.items()
    }


def _split_complex(variables: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    result = {}
    for name, value in variables.items():
        if np.iscomplexobj(value):
            result[f"{name}_real"], result[f"{name}_imag"] = value.real, value.imag
        else:
            result[name] = value
    return result
