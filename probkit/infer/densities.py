"""Smooth densities of one flat vector: what ``Laplace`` and ``MAP`` ask of a model.

Any Pyro model with continuous unknowns gives one (:func:`pyro_density`): its value and gradient by
a graph without Python where the model can be traced and by plain runs where it cannot, its Hessian
by reverse mode twice. A structured model is a density itself, with a curvature of its own form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, NumericalError, message
from probkit.infer.gaussian_at_mode import Precision
from probkit.infer.potential import Potential, Unflattenable, flat_potential
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.infer.unconstrained import DiscreteUnknown, UnconstrainedModel

__all__ = ["PyroDensity", "SmoothDensity", "pyro_density"]

_NUM_STARTS = 8
_MAX_STARTS = 100
_BATCH = 256
_HESSIAN_ROWS = 64


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
    """A Pyro model's density; made by :func:`pyro_density`.

    Attributes:
        how: how values and gradients are computed, for the provenance.
    """

    def __init__(self, model: UnconstrainedModel, graph: Potential | None, how: str) -> None:
        self._model, self._graph, self.how = model, graph, how

    def initial(self, generator: torch.Generator) -> Float[Tensor, " size"]:
        """The best of a few random points, uniform in (-2, 2).

        Raises:
            NumericalError: none of 100 points has a finite density.
        """
        if self._graph is not None:
            points = self._graph.initial(_NUM_STARTS, generator)
            return points[self.values(points).argmin()]
        shape, device = (self._model.size,), generator.device
        for _ in range(_MAX_STARTS):
            unit = torch.rand(shape, dtype=self._model.dtype, generator=generator, device=device)
            point = (4 * unit - 2).to(self._model.device)
            value, gradient = self.value_and_gradient(point)
            if bool(value.isfinite() & gradient.isfinite().all()):
                return point
        raise NumericalError(
            message(
                "No starting point with a finite log density and gradient was found",
                remedy="check the data for values outside the support, and rescale the model",
            )
        )

    def value_and_gradient(
        self, flat: Float[Tensor, " size"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " size"]]:
        """Infinite where the model breaks down."""
        try:
            if self._graph is not None:
                return self._graph.value_and_gradient_at(flat)
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
            rows = []
            if not gradient.requires_grad:  # linear in every unknown
                return torch.zeros(len(flat), len(flat), dtype=flat.dtype, device=flat.device)
            for unit in torch.eye(len(flat), dtype=flat.dtype, device=flat.device).split(
                _HESSIAN_ROWS
            ):
                rows.append(self._products(gradient, point, unit))
        matrix = torch.cat(rows)
        return (matrix + matrix.mT) / 2

    def values(self, flat: Float[Tensor, "draw size"]) -> Float[Tensor, " draw"]:
        """Values of many points; NaN or infinite where the model breaks down."""
        if self._graph is None:
            return torch.stack([self.value_and_gradient(point)[0] for point in flat])
        # blocks of one size, because a batch of another size is another graph
        blocks = flat.split(_BATCH)
        padded = [torch.cat([b, b[:1].expand(_BATCH - len(b), -1)]) for b in blocks]
        if len(blocks) == 1 and len(flat) == _NUM_STARTS:
            padded = list(blocks)
        found = [self._graph.value_and_gradient(block)[0] for block in padded]
        return torch.cat(found)[: len(flat)]

    def sites(self, flat: Float[Tensor, "draw size"]) -> dict[str, Float[Tensor, "draw *event"]]:
        """Unknowns and ``pyro.deterministic`` sites of every point."""
        if self._graph is not None:
            return self._graph.constrain(flat)
        with torch.no_grad(), self._plain():
            rows = [self._model.values(point) for point in flat]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    @contextmanager
    def _plain(self) -> Iterator[None]:
        # a model that is random outside its sites was refused; the seed is for Pyro's own draws
        with param_scope(), pyro.validation_enabled(False), pyro_seed(0):
            yield

    @staticmethod
    def _products(gradient: Tensor, point: Tensor, units: Tensor) -> Tensor:
        """Rows of the Hessian; all at once, or one by one where an operation has no batched form"""
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                found: Tensor = torch.autograd.grad(
                    gradient,
                    point,
                    units,
                    is_grads_batched=True,
                    retain_graph=True,
                    materialize_grads=True,
                )[0]
                return found
            except (RuntimeError, UserWarning):
                pass
        rows = [
            torch.autograd.grad(gradient, point, unit, retain_graph=True, materialize_grads=True)[0]
            for unit in units
        ]
        return torch.stack(rows)


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
        ConfigurationError: discrete unknowns, no unknowns, subsampling, or a model that is random
            outside its sites; the message names the site.
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
        # a seed of its own: a resumed fit traces again and must not draw other numbers
        graph = flat_potential(
            model, arguments, torch.Generator().manual_seed(0), jacobian=jacobian
        )
        return PyroDensity(graph.model, graph, "graph of the model")
    except Unflattenable as error:
        reason = str(error)
    try:
        with param_scope(), pyro_seed(0), pyro.validation_enabled(False):
            plain = UnconstrainedModel(model, arguments, jacobian=jacobian)
    except DiscreteUnknown as error:
        raise ConfigurationError(
            message(
                f"The mode of a density needs continuous unknowns, but {error}",
                remedy="sum the site out in the model, or use NUTS, which does so where it can",
            )
        ) from error
    return PyroDensity(plain, None, f"plain runs, because the model has no graph: {reason}")
