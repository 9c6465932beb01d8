"""Results as ``xarray.DataTree``, the container that ArviZ and its relatives read.

A posterior may offer ``datatree_groups(num_samples, generator) -> (groups, dims, coords)``, where
groups map a group's name to arrays by variable; otherwise its draws are the group ``posterior``.
Draws have the dimensions (chain, draw, ...). Complex variables become real and imaginary parts,
which every reader of netCDF understands.
"""

from __future__ import annotations

import json
from typing import Any

import arviz_base
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import PosteriorLike
from probkit.random import as_generator

__all__ = ["build_datatree"]

Groups = dict[str, dict[str, NDArray[Any]]]


def build_datatree(
    posterior: PosteriorLike,
    provenance: dict[str, Any],
    diagnostics: dict[str, Any],
    num_samples: int,
    seed: int,
) -> xr.DataTree:
    """Assemble the tree; provenance and diagnostics become attributes (JSON)."""
    groups, dims, coords = _groups(posterior, num_samples, as_generator(seed))
    real = {name: _split_complex(variables) for name, variables in groups.items()}
    tree: xr.DataTree = arviz_base.from_dict(real, dims=dims or None, coords=coords or None)
    tree.attrs["provenance"] = json.dumps(provenance, default=str)
    tree.attrs["diagnostics"] = json.dumps(diagnostics, default=str)
    return tree


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
            name: np.asarray(v.detach().cpu() if isinstance(v, torch.Tensor) else v)
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
