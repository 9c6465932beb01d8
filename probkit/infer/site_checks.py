"""Checks of a Pyro model and its guide before a fit: wrong models are refused, by a site's name.

One plain run finds densities that do not fit their plates, complex ones, and data that do not fit;
a run of the guide finds sites that only one of the two has; with vectorised particles, one
particle is run by itself, and every site must give it the density that it has among the others.

Cost: two runs of model and guide, three with vectorised particles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions.constraints import is_dependent

from probkit.errors import (
    ConfigurationError,
    DataError,
    DtypeError,
    NotPositiveDefiniteError,
    NumericalError,
    ProbkitError,
    ShapeError,
    message,
)
from probkit.infer.pyro_data import ModelArguments, sample_sites

__all__ = ["check_density", "check_guide", "check_model", "first_trace", "naming_sites"]

_T = TypeVar("_T")
_CLOSE = 1e-6
_DRAWS = 20
_SHAPE_WORDS = ("size", "shape", "broadcast", "dimension")


def check_model(model: Callable[..., Any], arguments: ModelArguments) -> None:
    """One plain run of a model.

    Raises:
        ShapeError: a density does not fit its plates, or the data do not fit a site.
        DtypeError: a site has a complex density.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     with pyro.plate("rows", 3):
        ...         pyro.sample("y", dist.Normal(torch.zeros(3, 1), 1.0), obs=y)
        >>> check_model(model, ModelArguments.of(torch.zeros(3)))
        Traceback (most recent call last):
            ...
        probkit.errors.ShapeError: The log density of a site does not fit its plates (site 'y': ...
    """
    trace = first_trace(model, arguments)
    for name, site in sample_sites(trace):
        check_density(name, site)


def first_trace(model: Callable[..., Any], arguments: ModelArguments) -> Any:
    """A trace of the model that is not spoilt by the chance of one draw.

    A draw at which the model breaks down numerically is repeated, up to 20 times.

    Raises:
        ShapeError, DtypeError, DataError, NumericalError: as ``naming_sites`` says.
    """
    args, kwargs = arguments

    def run() -> Any:
        with naming_sites() as named:
            return poutine.trace(named(model)).get_trace(*args, **kwargs)

    return _repeated(run)


def check_guide(
    model: Callable[..., Any], guide: Callable[..., Any], arguments: ModelArguments, elbo: Any
) -> Any:
    """A guide against its model, and both under vectorised particles if the ELBO has them.

    Returns:
        A trace of the model.

    Raises:
        ConfigurationError: a site that only one of the two draws.
        ShapeError: the guide's value does not fit the model's site, or the model does not
            broadcast over particles.
        DtypeError: a site has a complex density.
    """
    args, kwargs = arguments

    def run() -> tuple[Any, Any]:
        q = poutine.trace(guide).get_trace(*args, **kwargs)
        with naming_sites() as seen:
            p = poutine.trace(seen(poutine.replay(model, trace=q))).get_trace(*args, **kwargs)
        return p, q

    p, q = _repeated(run)
    _check_names(p, q)
    for name, site in sample_sites(p):
        check_density(name, site)
    particles = getattr(elbo, "num_particles", 1)
    enumerates = any(site["infer"].get("enumerate") for _, site in sample_sites(p))
    vectorised = isinstance(elbo, ELBO) and elbo.vectorize_particles and particles > 1
    if vectorised and not enumerates:
        _check_particles(model, guide, arguments, elbo, q)
    return p


def check_density(name: str, site: Any) -> None:
    """The log density of a sample site: real, computable, and shaped as its plates say.

    Raises:
        ShapeError: it does not fit.
        DtypeError: it is complex.
        DataError: the value is outside the support.
    """
    parameters = [
        getattr(site["fn"], key, None) for key in getattr(site["fn"], "arg_constraints", {})
    ]
    for value in (site["value"], *parameters):
        if isinstance(value, Tensor) and value.is_complex() and not _is_complex_by_design(site):
            raise DtypeError(
                message(
                    "A distribution of real numbers was given complex ones",
                    where=f"site {name!r}",
                    got=value.dtype,
                    remedy="model real and imaginary parts, and join them outside the site",
                )
            )
    _check_support(name, site)
    try:
        density = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    except (RuntimeError, ValueError) as error:
        raise ShapeError(
            message(
                "The value of a site does not fit its distribution",
                where=f"site {name!r}",
                got=tuple(getattr(site["value"], "shape", ())),
                expected=f"batch {tuple(site['fn'].batch_shape)}, "
                f"event {tuple(site['fn'].event_shape)}",
                remedy=str(error).splitlines()[0],
            )
        ) from error
    if density.is_complex():
        raise DtypeError(
            message("A site has a complex density", where=f"site {name!r}", got=density.dtype)
        )
    site["log_prob"] = density
    try:
        check_site_shape(site, math.inf)
    except ValueError as error:
        raise ShapeError(
            message(
                "The log density of a site does not fit its plates",
                where=f"site {name!r}",
                got=tuple(density.shape),
                causes=(
                    "a plate or .to_event is missing",
                    "shapes like (n,) and (n, 1) broadcast to (n, n)",
                ),
                remedy="declare independent dimensions with pyro.plate, joint ones with .to_event",
            )
        ) from error


def _repeated(run: Callable[[], _T]) -> _T:
    """The first of 20 runs that does not break down numerically by the chance of its draw."""
    for _ in range(_DRAWS - 1):
        try:
            return run()
        except NumericalError:
            continue
    return run()


def _check_support(name: str, site: Any) -> None:
    """Observed values must be possible ones, where they are not masked out."""
    support = getattr(site["fn"], "support", None)
    if not site["is_observed"] or support is None or is_dependent(support):
        return
    try:
        inside = support.check(site["value"])
        if isinstance(site["mask"], Tensor):
            inside = inside | ~site["mask"]
    except (RuntimeError, ValueError):
        return  # shapes: judged with the density
    if site["mask"] is not False and not bool(inside.all()):
        values = site["value"][~inside] if inside.shape == site["value"].shape else site["value"]
        raise DataError(
            message(
                "Data outside the support of their distribution",
                where=f"site {name!r}",
                got=values.flatten()[:3].tolist(),
                expected=str(support),
            )
        )


def _check_names(p: Any, q: Any) -> None:
    """Sites that only the model, or only the guide, draws."""
    latent = {
        name
        for name, site in sample_sites(p)
        if not site["is_observed"] and not site["infer"].get("enumerate")
    }
    drawn = {
        name
        for name, site in sample_sites(q)
        if not site["is_observed"] and not site["infer"].get("is_auxiliary")
    }
    everything = {name for name, _ in sample_sites(p)}
    for names, what, remedy in (
        (
            sorted(latent - drawn),
            "The guide does not draw an unknown of the model",
            "draw it in the guide under the same name, or block it with poutine.block",
        ),
        (
            sorted(drawn - everything),
            "The guide draws a site that the model does not have",
            'name it as in the model, or mark it with infer={"is_auxiliary": True}',
        ),
    ):
        if names:
            raise ConfigurationError(
                message(what, where=f"site {names[0]!r}", got=sorted(drawn), remedy=remedy)
            )
    clash = sorted(name for name, site in sample_sites(p) if site["is_observed"] and name in drawn)
    if clash:
        raise ConfigurationError(
            message("The guide draws a site that the model observes", where=f"site {clash[0]!r}")
        )


def _check_particles(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    arguments: ModelArguments,
    elbo: Any,
    single: Any,
) -> None:
    """Every site must give a particle the same density alone and among the others."""
    args, kwargs = arguments
    if elbo.max_plate_nesting == math.inf:
        elbo._guess_max_plate_nesting(model, guide, args, kwargs)
    depth = elbo.max_plate_nesting - 1  # particles are the dimension left of all plates
    q = poutine.trace(elbo._vectorized_num_particles(guide)).get_trace(*args, **kwargs)
    values = {}
    for name, site in sample_sites(q):
        if not site["is_observed"]:
            one = single.nodes[name]["value"]
            values[name] = _first(site["value"], depth + site["fn"].event_dim, one)
    with naming_sites() as seen:
        replayed = poutine.replay(elbo._vectorized_num_particles(model), trace=q)
        many = poutine.trace(seen(replayed)).get_trace(*args, **kwargs)
    rows = {n: s["value"] for n, s in many.nodes.items() if s["type"] == "sample" and _is_rows(s)}
    alone = poutine.trace(poutine.condition(model, data={**values, **rows}))
    for name, site in sample_sites(alone.get_trace(*args, **kwargs)):
        expected = site["fn"].log_prob(site["value"]).sum().detach()
        there = many.nodes[name]
        try:
            found = there["fn"].log_prob(there["value"])
            share = _first(found, depth, None).sum().detach()
        except (RuntimeError, ValueError) as error:
            raise _not_broadcasting(name, str(error).splitlines()[0]) from error
        if not bool((share - expected).abs() <= _CLOSE * (1 + expected.abs())):
            raise _not_broadcasting(name, f"{float(share):.6g} in place of {float(expected):.6g}")


def _first(value: Tensor, depth: int, like: Tensor | None) -> Tensor:
    """The first particle's part of a value whose particles are dimension ``-depth - 1``."""
    part = value.select(-depth - 1, 0) if value.dim() > depth else value
    return part if like is None else part.reshape(like.shape)


def _not_broadcasting(name: str, got: str) -> ShapeError:
    return ShapeError(
        message(
            "The model does not broadcast over vectorised particles",
            where=f"site {name!r}",
            got=got,
            causes=("x @ w, or sums over all dimensions, where w gains dimensions on the left",),
            remedy="count dimensions from the right, as in (x * w).sum(-1) in place of x @ w, "
            "or set vectorize_particles=False",
        )
    )


class _LastSite(Messenger):
    """Effect handler: remembers the site that was met last; looks at observed values if asked."""

    def __init__(self, check_data: bool) -> None:
        super().__init__()
        self.name: str | None = None
        self._check_data = check_data

    @property
    def where(self) -> str:
        return "before the first site" if self.name is None else f"at or after site {self.name!r}"

    def _pyro_sample(self, msg: Any) -> None:
        self.name = msg["name"]

    def _pyro_post_sample(self, msg: Any) -> None:
        if self._check_data:
            _check_support(msg["name"], msg)


@contextmanager
def naming_sites(*, check_data: bool = False) -> Iterator[_LastSite]:
    """Errors inside a run of a model become ones that say after which site they happened.

    Args:
        check_data: look whether observed values are in their support; a tenth of the cost of
            Pyro's validation of everything.

    Raises:
        ShapeError: shapes do not fit.
        DtypeError: a distribution of real numbers got complex ones.
        DataError: data outside the support of their distribution.
        NumericalError: a distribution got parameters that it does not allow.
        NotPositiveDefiniteError: a factorisation failed.
    """
    last = _LastSite(check_data)
    try:
        yield last
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ProbkitError):
            raise
        found = _explained(error, last.where)
        if found is None:
            raise
        raise found from error


def _explained(error: Exception, where: str) -> ProbkitError | None:
    """The error as one of ours; None where its cause is not known."""
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    if "complex" in text.lower():
        return DtypeError(
            message(
                f"A distribution of real numbers was given complex ones: {first}",
                where=where,
                remedy="model real and imaginary parts, and join them outside the site",
            )
        )
    if isinstance(error, torch.linalg.LinAlgError):
        return NotPositiveDefiniteError(
            message(f"A factorisation inside the model failed: {first}", where=where)
        )
    if "satisfy the constraint" in text or "within the support" in text:
        if "value argument" in text:
            return DataError(message(f"Data outside their support: {first}", where=where))
        return NumericalError(message(f"Parameters that are not allowed: {first}", where=where))
    if any(word in text.lower() for word in _SHAPE_WORDS):
        return ShapeError(
            message(
                f"Shapes inside the model do not fit: {first}",
                where=where,
                causes=(
                    "data of another shape than the model expects",
                    "dimensions counted from the left",
                ),
                remedy="check the shapes of the data and of this site",
            )
        )
    return None


def _is_rows(site: Any) -> bool:
    return bool(site_is_subsample(site)) and len(site["value"]) < site["fn"].size


def _is_complex_by_design(site: Any) -> bool:
    support = getattr(site["fn"], "support", None)
    return "complex" in type(site["fn"]).__name__.lower() or "complex" in repr(support).lower()
