"""Unknowns whose spread is lost in the resolution of float32.

Priors of Python numbers make float32 unknowns, whatever the dtype of the data. That is enough for
most posteriors, and not for one whose standard deviation is a few spacings of float32 at its mean.
"""

from __future__ import annotations

import torch

from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import PosteriorLike

__all__ = ["coarse_unknowns"]

_SPACINGS = 100


def coarse_unknowns(posterior: PosteriorLike) -> tuple[str, ...]:
    """A sentence for every float32 site whose sd is below 100 spacings of float32 at its mean.

    Single constant entries of a site that varies otherwise, as a Cholesky factor has, do not count.

    Example:
        >>> draws = {"x": 1e6 + torch.tensor([[0.0, 0.1, 0.2]]), "y": torch.tensor([[0.0, 0.1]])}
        >>> coarse_unknowns(DrawsPosterior({"x": draws["x"]}))[0][:35]
        'x has float32 values near 1e+06, of'
        >>> coarse_unknowns(DrawsPosterior({"y": draws["y"]}))
        ()
    """
    if not isinstance(posterior, DrawsPosterior) or posterior.num_chains * posterior.num_draws < 2:
        return ()
    found = []
    spacing = torch.finfo(torch.float32).eps
    for name, draws in posterior.draws.items():
        if draws.dtype != torch.float32 or not draws.numel():
            continue
        flat = draws.double().flatten(0, 1)  # in float32 the moments themselves would be coarse
        mean, sd = flat.mean(0).abs(), flat.std(0)
        coarse = (sd < _SPACINGS * spacing * mean) & ((sd > 0) | bool((sd == 0).all()))
        if bool(coarse.any()):
            size = float(mean[coarse].max())
            found.append(
                f"{name} has float32 values near {size:.3g}, of which no difference below "
                f"{spacing * size:.1g} is seen: give its prior float64 tensors"
            )
    return tuple(found)
