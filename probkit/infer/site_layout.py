"""Where the unknowns of a model lie in one flat, unconstrained vector, as JSON.

Built from a run of the model once; from then on names, shapes and supports are known by
themselves, so that a guide can be made from a manifest, without model and data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to, constraints

from probkit.errors import ConfigurationError, message
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.site_checks import first_trace

__all__ = ["SiteLayout"]

_MEDIAN_DRAWS = 15
_PLAIN = {
    "real": constraints.real,
    "positive": constraints.positive,
    "nonnegative": constraints.nonnegative,
    "unit_interval": constraints.unit_interval,
    "simplex": constraints.simplex,
    "lower_cholesky": constraints.lower_cholesky,
    "corr_cholesky": constraints.corr_cholesky,
    "positive_definite": constraints.positive_definite,
}
_BOUNDED = {
    "greater_than": ("lower_bound",),
    "greater_than_eq": ("lower_bound",),
    "less_than": ("upper_bound",),
    "interval": ("lower_bound", "upper_bound"),
    "half_open_interval": ("lower_bound", "upper_bound"),
}


@dataclass(frozen=True)
class _Site:
    name: str
    shape: tuple[int, ...]
    """of the unconstrained value"""
    support: dict[str, Any]

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class SiteLayout:
    """Sites in the order of the model.

    Args:
        sites: names, unconstrained shapes and supports.
        dtype: of the unknowns.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
        ...     pyro.sample("share", dist.Beta(torch.ones(3), 1.0).to_event(1))
        >>> layout = SiteLayout.of(model, ModelArguments.of(None))
        >>> layout.size, layout == SiteLayout.from_spec(layout.spec())
        (4, True)
        >>> {name: tuple(v.shape) for name, v in layout.values(torch.zeros(5, 4))[0].items()}
        {'rate': (5,), 'share': (5, 3)}
    """

    sites: tuple[_Site, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(site.size for site in self.sites)

    @classmethod
    def of(cls, model: Callable[..., Any], arguments: ModelArguments) -> SiteLayout:
        """The layout of a model's unknowns.

        Raises:
            ConfigurationError: an unknown that is discrete, subsampled, of a support without a
                name here, or of one that depends on other unknowns.
        """
        one, other = (_unknowns(first_trace(model, arguments)) for _ in range(2))
        sites = []
        for name, site in one.items():
            support = _described(site["fn"].support)
            if support is None or support != _described(other[name]["fn"].support):
                raise ConfigurationError(
                    message(
                        "A guide by form needs supports that are known beforehand",
                        where=f"site {name!r}",
                        got=site["fn"].support,
                        expected=f"one of {sorted([*_PLAIN, *_BOUNDED])} with fixed bounds",
                        remedy="use one of Pyro's autoguides, such as AutoNormal",
                    )
                )
            shape = biject_to(site["fn"].support).inverse_shape(site["value"].shape)
            sites.append(_Site(name, tuple(shape), support))
        if not sites:
            raise ConfigurationError(message("The model has no unknowns", where="model"))
        return cls(tuple(sites), next(iter(one.values()))["value"].dtype)

    def values(
        self, flat: Float[Tensor, "*batch size"]
    ) -> tuple[dict[str, Float[Tensor, "*batch *event"]], Float[Tensor, "*batch"]]:
        """Constrained values by site, and the log determinant of the whole map."""
        batch = flat.shape[:-1]
        found, start = {}, 0
        total = flat.new_zeros(batch)
        for site in self.sites:
            free = flat[..., start : start + site.size].reshape((*batch, *site.shape))
            start += site.size
            transform = biject_to(_constraint(site.support))
            value = transform(free)
            log_det = transform.log_abs_det_jacobian(free, value)
            found[site.name] = value
            total = total + log_det.reshape((*batch, -1)).sum(-1)
        return found, total

    def median(self, model: Callable[..., Any], arguments: ModelArguments) -> Tensor:
        """The median of a few prior draws, as a flat vector."""
        rows = []
        for _ in range(_MEDIAN_DRAWS):
            sites = _unknowns(first_trace(model, arguments))
            parts = [
                biject_to(_constraint(s.support)).inv(sites[s.name]["value"]).reshape(-1)
                for s in self.sites
            ]
            rows.append(torch.cat(parts))
        return torch.stack(rows).median(0).values

    def spec(self) -> dict[str, Any]:
        """JSON-able."""
        sites = [{"name": s.name, "shape": list(s.shape), "support": s.support} for s in self.sites]
        return {"sites": sites, "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> SiteLayout:
        """From :meth:`spec`."""
        sites = (_Site(s["name"], tuple(s["shape"]), s["support"]) for s in spec["sites"])
        return cls(tuple(sites), getattr(torch, spec["dtype"]))


def _unknowns(trace: Any) -> dict[str, Any]:
    found = {}
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site["is_observed"] or site_is_subsample(site):
            continue
        if any(f.full_size not in (None, f.size) for f in site["cond_indep_stack"]):
            raise ConfigurationError(
                message(
                    "A guide by form needs unknowns that are not subsampled",
                    where=f"site {name!r}",
                    remedy="use AutoNormal, or a guide of your own",
                )
            )
        if site["fn"].support.is_discrete:
            raise ConfigurationError(
                message("A guide by form needs continuous unknowns", where=f"site {name!r}")
            )
        found[name] = site
    return found


def _described(support: Any) -> dict[str, Any] | None:
    """A support by name and bounds; None if it has no name here."""
    if isinstance(support, constraints.independent):
        inner = _described(support.base_constraint)
        return inner and {"independent": support.reinterpreted_batch_ndims, "of": inner}
    for name, plain in _PLAIN.items():
        if support is plain:
            return {"name": name}
    for name, bounds in _BOUNDED.items():
        if type(support) is getattr(constraints, name)(*[0.0] * len(bounds)).__class__:
            values = [torch.as_tensor(getattr(support, bound)).tolist() for bound in bounds]
            return {"name": name, "bounds": values}
    return None


def _constraint(described: dict[str, Any]) -> Any:
    if "of" in described:
        return constraints.independent(_constraint(described["of"]), described["independent"])
    if described["name"] in _PLAIN:
        return _PLAIN[described["name"]]
    bounds = [b if isinstance(b, float | int) else torch.tensor(b) for b in described["bounds"]]
    return getattr(constraints, described["name"])(*bounds)
