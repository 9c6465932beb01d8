"""Which models may be run on some of their rows, and which draw minibatches by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.poutine.util import site_is_subsample

from probkit.errors import ConfigurationError, message
from probkit.infer.pyro_data import ModelArguments

__all__ = ["refuse_local_unknowns", "subsamples"]


def refuse_local_unknowns(
    model: Callable[..., Any], batch: ModelArguments, batch_size: int
) -> None:
    """Unknowns of single rows would have to be scaled as well, in model and guide.

    Raises:
        ConfigurationError: a site has one unknown for each row of the batch.
    """
    args, kwargs = batch
    nodes = poutine.trace(model).get_trace(*args, **kwargs).nodes
    sites = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    plates = {f.name for s in sites.values() if s["is_observed"] for f in _frames(s)}
    for name, site in sites.items():
        shared = [f.name for f in _frames(site) if f.name in plates]
        rows = [f for f in _frames(site) if f.name in shared and f.size == batch_size]
        if not site["is_observed"] and rows and not site_is_subsample(site):
            raise ConfigurationError(
                message(
                    "Minibatches by batch_size are for models whose unknowns are global, "
                    "but this site has one value for each row",
                    where=f"site {name!r}",
                    got=f"plate {rows[0].name!r} of size {rows[0].size}",
                    remedy="set batch_size=None and use pyro.plate(..., subsample_size=...)",
                )
            )


def subsamples(trace: Any) -> bool:
    """Whether a plate of the trace draws some of its rows."""
    return any(
        site_is_subsample(site) and len(site["value"]) < site["fn"].size
        for site in trace.nodes.values()
        if site["type"] == "sample"
    )


def _frames(site: Any) -> list[Any]:
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]
