"""Plain runs of a Pyro model at one unconstrained vector: log density by site, values of sites.

Every unknown is mapped to the real line by ``biject_to`` of its support, evaluated where the site
is met, so that a support may depend on other unknowns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from probkit.errors import ConfigurationError, DtypeError, message
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.site_checks import check_density, first_trace

__all__ = ["DiscreteUnknown", "UnconstrainedModel"]


class DiscreteUnknown(Exception):
    """A model has an unknown that has no unconstrained form; the message names it."""


@dataclass(frozen=True)
class _Unknown:
    """The shape of a site's unconstrained value and its place in the flat vector."""

    name: str
    shape: torch.Size
    start: int

    @property
    def stop(self) -> int:
        return self.start + self.shape.numel()


class UnconstrainedModel:
    """A model with its data, run at flat vectors.

    Must be used inside ``param_scope``; the methods can be transformed by ``torch.func``.

    Args:
        model: a Pyro model with continuous unknowns.
        arguments: its data; all of them, without subsampling.
        jacobian: include the determinants of the maps, as a density of the flat vector has them;
            without them the mode is that of the unknowns themselves.

    Attributes:
        size: length of the flat vector.

    Raises:
        DiscreteUnknown: an unknown is discrete.
        ConfigurationError: no unknowns, or a plate that subsamples.
        ShapeError: the log density of a site does not fit its plates, or the data a site.
        DtypeError: a complex unknown.
    """

    def __init__(
        self, model: Callable[..., Any], arguments: ModelArguments, *, jacobian: bool = True
    ) -> None:
        self._model, self._arguments, self._jacobian = model, arguments, jacobian
        trace = first_trace(model, arguments)
        _check_trace(trace)
        self._unknowns: list[_Unknown] = []
        start = 0
        for name, site in _unknown_sites(trace):
            value = site["value"]
            shape = biject_to(site["fn"].support).inverse_shape(value.shape)
            self._unknowns.append(_Unknown(name, shape, start))
            start = self._unknowns[-1].stop
            self.dtype, self.device = value.dtype, value.device
        self.size = start

    def terms(self, flat: Float[Tensor, " size"]) -> dict[str, Float[Tensor, ""]]:
        """Negative log density by site; that of an unknown with the determinant of its map."""
        trace, log_det = self._trace(flat)
        found = {}
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            density = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
            total = scale_and_mask(density, site["scale"], site["mask"]).sum()
            weighed = self._jacobian and name in log_det
            found[name] = -total - log_det[name] if weighed else -total
        return found

    def potential(self, flat: Float[Tensor, " size"]) -> Float[Tensor, ""]:
        """The sum of the terms."""
        return torch.stack(list(self.terms(flat).values())).sum()

    def values(self, flat: Float[Tensor, " size"]) -> dict[str, Float[Tensor, "*event"]]:
        """Unknowns and ``pyro.deterministic`` sites."""
        trace, log_det = self._trace(flat)
        return {
            name: site["value"]
            for name, site in trace.nodes.items()
            if name in log_det or (site["type"] == "sample" and site["infer"].get("_deterministic"))
        }

    def flatten(self, values: dict[str, Float[Tensor, "*event"]]) -> Float[Tensor, " size"]:
        """The flat vector at which the unknowns have these values."""
        parts: list[Tensor] = []
        args, kwargs = self._arguments
        with _Flatten({u.name: values[u.name] for u in self._unknowns}) as handler:
            poutine.trace(self._model).get_trace(*args, **kwargs)
        for unknown in self._unknowns:
            parts.append(handler.free[unknown.name].reshape(-1))
        return torch.cat(parts)

    def _trace(self, flat: Tensor) -> tuple[Any, dict[str, Tensor]]:
        free = {u.name: flat[u.start : u.stop].reshape(u.shape) for u in self._unknowns}
        args, kwargs = self._arguments
        with _Substitute(free) as handler:
            trace = poutine.trace(self._model).get_trace(*args, **kwargs)
        return trace, handler.log_det


class _Substitute(Messenger):
    """Effect handler: sets unknowns from unconstrained values, collects the log determinants."""

    def __init__(self, free: dict[str, Tensor]) -> None:
        super().__init__()
        self.free = free
        self.log_det: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        free = self.free.get(msg["name"])
        if free is None or msg["is_observed"]:
            return
        transform = biject_to(msg["fn"].support)
        value = transform(free)
        self.log_det[msg["name"]] = transform.log_abs_det_jacobian(free, value).sum()
        msg["value"], msg["done"] = value, True


class _Flatten(Messenger):
    """Effect handler: sets unknowns, collects their unconstrained values."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values
        self.free: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        value = self.values.get(msg["name"])
        if value is None or msg["is_observed"]:
            return
        self.free[msg["name"]] = biject_to(msg["fn"].support).inv(value)
        msg["value"], msg["done"] = value, True


def _unknown_sites(trace: Any) -> list[tuple[str, Any]]:
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
    ]


def _check_trace(trace: Any) -> None:
    """Refuse what has no density over all data and a flat vector of real unknowns."""
    sites = [(n, s) for n, s in trace.nodes.items() if s["type"] == "sample"]
    for name, site in sites:
        if site_is_subsample(site):
            size, drawn = site["fn"].size, len(site["value"])
            if drawn < size:
                raise ConfigurationError(
                    message(
                        "A sampler needs all the data in every evaluation",
                        where=f"plate {name!r}",
                        got=f"{drawn} of {size} rows",
                        remedy="remove subsample_size from the plate, or use SVI",
                    )
                )
            continue
        check_density(name, site)
    unknown = _unknown_sites(trace)
    if not unknown:
        raise ConfigurationError(
            message("The model has no unknowns", remedy="leave out obs= at the sites to infer")
        )
    for name, site in unknown:
        if site["value"].is_complex():
            raise DtypeError(
                message(
                    "A sampler needs real unknowns",
                    where=f"site {name!r}",
                    got=site["value"].dtype,
                    remedy="sample real and imaginary parts, and join them in the model",
                )
            )
        if not site["value"].is_floating_point() or site["fn"].support.is_discrete:
            raise DiscreteUnknown(f"site {name!r} is discrete")
