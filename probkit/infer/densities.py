"""Smooth densities of one flat vector: what ``Laplace`` and ``MAP`` ask of a model.

Any Pyro model of continuous unknowns gives one (:func:`pyro_density`): value and gradient by plain
runs (a mode takes tens of them, fewer than tracing a graph costs), the Hessian by reverse mode
twice, many points at once by ``vmap`` where the model can be mapped. A structured model is a
density itself, with a curvature of its own form.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from probkit.errors import ConfigurationError, NumericalError, message
from probkit.infer.gaussian_at_mode import Precision
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.infer.unconstrained import DiscreteUnknown, UnconstrainedModel

__all__ = ["PyroDensity", "SmoothDensity", "pyro_density"]

_NUM_STARTS, _MAX_STARTS, _START_RADIUS = 8, 100, 2.0
_CHUNK = 256
_HESSIAN_ROWS = 64
_REPEATS = 1e-9


@runtime_checkable
class SmoothDensity(Protocol):
    """``U``, the negative log density of a flat vector, with its derivatives.

    ``curvature`` is the Hessian of ``U`` or a positive definite approximation (Gauss–Newton): a
    dense matrix, or an operator with ``solve``, ``logdet`` and ``inverse_mvn_samples``. ``values``
    and ``sites`` map many vectors at once.
    """

    def initial(self, generator: torch.Generator) -> Float[Tensor, " size"]: ...

    def value_and_gradient(
        self, flat: Float[Tensor, " size"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " size"]]: ...

    def curvature(self, flat: Float[Tensor, " size"]) -> Precision: ...

    def values(self, flat: Float[Tensor, "draw size"]) -> Float[Tensor, " draw"]: ...

    def sites(
        self, flat: Float[Tensor, "draw size"]
    ) -> dict[str, Float[Tensor, "draw *event"]]: ...


class PyroDensity:
    """A Pyro model's density; made by :func:`pyro_density`."""

    def __init__(self, model: UnconstrainedModel) -> None:
        self._model = model

    def initial(self, generator: torch.Generator) -> Float[Tensor, " size"]:
        """The best of eight random points, uniform in (-2, 2).

        Raises:
            NumericalError: none of 100 points has a finite density and gradient; names the site.
            ConfigurationError: two runs at one point give different log densities.
        """
        points = self._uniform(_MAX_STARTS, generator)
        values = self.values(points[:_NUM_STARTS])
        order = torch.where(values.isnan(), torch.inf, values).argsort()
        for point in (*points[:_NUM_STARTS][order], *points[_NUM_STARTS:]):
            value, gradient = self.value_and_gradient(point)
            if bool(value.isfinite() & gradient.isfinite().all()):
                self._require_repeatable(point)
                return point
        culprit = next((n for n, v in self._terms(points[0]).items() if not math.isfinite(v)), None)
        raise NumericalError(
            message(
                "No starting point with a finite log density and gradient was found",
                where="the gradient" if culprit is None else f"site {culprit!r}",
                remedy="check the data for values outside the support, and rescale the model",
            )
        )

    def value_and_gradient(
        self, flat: Float[Tensor, " size"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " size"]]:
        """Infinite where the model breaks down."""
        try:
            with self._plain():
                point = flat.detach().requires_grad_()
                value = self._model.potential(point)
                return value.detach(), torch.autograd.grad(value, point)[0]
        except torch.linalg.LinAlgError:
            return flat.new_tensor(torch.inf), torch.full_like(flat, torch.nan)

    def curvature(self, flat: Float[Tensor, " size"]) -> Tensor:
        """The Hessian, by one more reverse pass for each row."""
        with self._plain():
            point = flat.detach().requires_grad_()
            value = self._model.potential(point)
            (gradient,) = torch.autograd.grad(value, point, create_graph=True)
            if not gradient.requires_grad:  # linear in every unknown
                return flat.new_zeros(len(flat), len(flat))
            units = torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
            rows = [_products(gradient, point, some) for some in units.split(_HESSIAN_ROWS)]
        matrix = torch.cat(rows)
        return (matrix + matrix.mT) / 2

    def values(self, flat: Float[Tensor, "draw size"]) -> Float[Tensor, " draw"]:
        """Values of many points; infinite where the model breaks down."""

        def one_by_one() -> Tensor:
            return torch.stack([self.value_and_gradient(point)[0] for point in flat])

        return self._mapped(self._model.potential, flat, one_by_one)

    def sites(self, flat: Float[Tensor, "draw size"]) -> dict[str, Float[Tensor, "draw *event"]]:
        """Unknowns and ``pyro.deterministic`` sites of every point."""

        def one_by_one() -> dict[str, Tensor]:
            with torch.no_grad(), self._plain():
                rows = [self._model.values(point) for point in flat]
            return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

        return self._mapped(self._model.values, flat, one_by_one)

    def _mapped(
        self, function: Callable[[Tensor], Any], flat: Tensor, one_by_one: Callable[[], Any]
    ) -> Any:
        """All points at once where the model can be mapped and no point breaks it down."""
        with torch.no_grad(), self._plain(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # vmap's slow fallback
            try:
                return vmap(function, chunk_size=_CHUNK)(flat)
            except (RuntimeError, ValueError, NotImplementedError, UserWarning):
                pass
        return one_by_one()

    def _uniform(self, count: int, generator: torch.Generator) -> Tensor:
        shape, device = (count, self._model.size), generator.device
        unit = torch.rand(shape, dtype=self._model.dtype, generator=generator, device=device)
        return ((2 * unit - 1) * _START_RADIUS).to(self._model.device)

    def _terms(self, point: Tensor) -> dict[str, float]:
        try:
            with torch.no_grad(), self._plain():
                return {name: float(term) for name, term in self._model.terms(point).items()}
        except torch.linalg.LinAlgError:
            return {}

    def _require_repeatable(self, point: Tensor) -> None:
        first, second = self._terms(point), {}
        with torch.no_grad(), param_scope(), pyro.validation_enabled(False), pyro_seed(1):
            second = {name: float(term) for name, term in self._model.terms(point).items()}
        for name, value in first.items():
            if not abs(value - second[name]) <= _REPEATS * (1 + abs(value)):
                raise ConfigurationError(
                    message(
                        "Two runs of the model at one point give different log densities",
                        where=f"site {name!r}",
                        got=f"{value:.6g} and {second[name]:.6g}",
                        causes=("random numbers outside pyro.sample", "a model with a memory"),
                        remedy="make every random number of the model a site",
                    )
                )

    @contextmanager
    def _plain(self) -> Iterator[None]:
        with param_scope(), pyro.validation_enabled(False), pyro_seed(0):
            yield


def pyro_density(
    model: Callable[..., Any], arguments: ModelArguments, *, jacobian: bool = True
) -> PyroDensity:
    """The density of a Pyro model's unknowns on the real line.

    Args:
        model: a Pyro model with continuous unknowns.
        arguments: its data, without subsampling.
        jacobian: include the determinants of the maps to the real line; without them the mode is
            that of the unknowns themselves.

    Raises:
        ConfigurationError: discrete unknowns, no unknowns, or subsampling; the message names the
            site.
        ShapeError: the log density of a site does not fit its plates.
        DtypeError: a complex unknown.

    Example:
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("rate", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        >>> density = pyro_density(model, ModelArguments.of(None))
        >>> value, gradient = density.value_and_gradient(torch.zeros(1).double())
        >>> round(float(value), 6), density.curvature(torch.zeros(1).double()).tolist()
        (1.0, [[1.0]])
    """
    try:
        with param_scope(), pyro_seed(0), pyro.validation_enabled(False):
            return PyroDensity(UnconstrainedModel(model, arguments, jacobian=jacobian))
    except DiscreteUnknown as error:
        raise ConfigurationError(
            message(
                f"The mode of a density needs continuous unknowns, but {error}",
                remedy="sum the site out in the model, or use NUTS, which does so where it can",
            )
        ) from error


def _products(gradient: Tensor, point: Tensor, units: Tensor) -> Tensor:
    """Rows of the Hessian: all at once, or one by one where an operation has no batched form."""
    kept: dict[str, Any] = {"retain_graph": True, "materialize_grads": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            found: Tensor = torch.autograd.grad(
                gradient, point, units, is_grads_batched=True, **kept
            )[0]
            return found
        except (RuntimeError, UserWarning):
            pass
    return torch.stack([torch.autograd.grad(gradient, point, unit, **kept)[0] for unit in units])
