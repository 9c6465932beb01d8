"""The negative log joint density of a Pyro model as a function of one unconstrained vector.

With ``z`` the concatenation of all unknowns, mapped to the real line, and ``x = t(z)``,

    U(z) = -sum_sites log p(site | parents) - sum_unknowns log abs(det dt / dz).

``U`` and its gradient are traced once to a graph without Python. A batch of chains is that graph
under ``vmap``, which keeps the meaning of a single run whatever the model broadcasts, and the graph
is compared with plain runs of the model at random points before it is trusted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyro
import torch
from jaxtyping import Float
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from probkit.errors import ConfigurationError, NumericalError, message
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.infer.unconstrained import DiscreteUnknown, UnconstrainedModel

__all__ = ["Potential", "Unflattenable", "flat_potential"]

_NUM_CHECKS = 3
_CHECK_TOLERANCE = 1e-6
_MAX_STARTS = 100
_START_RADIUS = 2.0
_CALLS_BEFORE_GRAPH = 5  # recording a batch takes as long as a few runs of it
_ATEN = torch.ops.aten


class Unflattenable(Exception):
    """The model has no graph of its own (discrete unknowns, control flow by values); why."""


class Potential:
    """``U`` and its gradient for one point or for many; made by :func:`flat_potential`.

    Attributes:
        size: length of the flat vector.
        dtype, device: of the model's last unknown.
        graph: ``graph(flat (size,)) -> (gradient, U)``, ATen operations only; a failed
            factorisation raises.
        work: elements that one evaluation computes, products of matrices included. The same on
            every machine, so that choices made by it are reproducible.
        shares_products: whether matrices are multiplied and none is factorised: a batch of points
            then reads them once.
    """

    def __init__(self, model: UnconstrainedModel, graph: fx.GraphModule) -> None:
        self.size, self.dtype, self.device = model.size, model.dtype, model.device
        self.graph, self.work = graph, _work(graph)
        self.shares_products = _shares_products(graph)
        self._model = model
        self._single = _nan_on_failure(graph)
        self._batched: dict[int, fx.GraphModule] = {}
        self._calls: Counter[int] = Counter()

    def value_and_gradient(
        self, flat: Float[Tensor, "chain size"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain size"]]:
        """Values and gradients of a batch; not finite where the model is not."""
        chains = flat.shape[0]
        self._calls[chains] += 1
        with torch.no_grad():
            if chains not in self._batched and self._calls[chains] > _CALLS_BEFORE_GRAPH:
                self._batched[chains] = _record(vmap(self._single), flat)
            gradient, value = self._batched.get(chains, vmap(self._single))(flat)
        return value, gradient

    def value_and_gradient_at(
        self, flat: Float[Tensor, " size"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " size"]]:
        """Value and gradient at one point, by the graph; raises where a factorisation fails."""
        gradient, value = self.graph(flat)
        return value, gradient

    def constrain(
        self, flat: Float[Tensor, "draw size"]
    ) -> dict[str, Float[Tensor, "draw *event"]]:
        """Unknowns and ``pyro.deterministic`` sites of every draw, by site name."""
        with param_scope(), pyro.validation_enabled(False), torch.no_grad(), pyro_seed(0):
            found: dict[str, Tensor] = vmap(self._model.values, chunk_size=4096)(flat)
        return found

    def initial(self, chains: int, generator: torch.Generator) -> Float[Tensor, "chain size"]:
        """Starting points, uniform in (-2, 2), with finite value and gradient.

        Raises:
            NumericalError: a chain found none in 100 attempts; names the site.
        """
        flat = self._uniform(chains, generator)
        for _ in range(_MAX_STARTS):
            value, gradient = self.value_and_gradient(flat)
            bad = ~(value.isfinite() & gradient.isfinite().all(-1))
            if not bad.any():
                return flat
            culprit = flat[bad][0]
            flat = torch.where(bad[:, None], self._uniform(chains, generator), flat)
        with param_scope(), pyro.validation_enabled(False), pyro_seed(0):
            terms = _finite_terms(self._model, culprit)
        raise NumericalError(
            message(
                "No starting point with a finite log density and gradient was found",
                where=next((f"site {n!r}" for n, ok in terms.items() if not ok), "the gradient"),
                remedy="check the data for values outside the support, and rescale the model",
            )
        )

    def _uniform(self, chains: int, generator: torch.Generator) -> Tensor:
        # drawn where the generator lives, so that a seed means the same on every device
        shape, device = (chains, self.size), generator.device
        unit = torch.rand(shape, dtype=self.dtype, generator=generator, device=device)
        return ((2 * unit - 1) * _START_RADIUS).to(self.device)


def flat_potential(
    model: Callable[..., Any], arguments: ModelArguments, generator: torch.Generator
) -> Potential:
    """Trace a model's potential and check the graph against plain runs.

    Args:
        model: a Pyro model with continuous unknowns.
        arguments: its data; all of them, without subsampling.
        generator: of the trial run and the points of the check.

    Raises:
        Unflattenable: the model cannot be traced; the text says why.
        ConfigurationError: no unknowns, subsampling, or a log density that differs between two
            runs at one point; the message names the site.
        ShapeError: the log density of a site does not fit its plates.
        DtypeError: a complex unknown.

    Example:
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("rate", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        >>> potential = flat_potential(model, ModelArguments.of(None), torch.Generator())
        >>> value, gradient = potential.value_and_gradient(torch.zeros(1, 1).double())
        >>> round(float(value), 6), round(float(gradient), 6)  # e^z - 2 z
        (1.0, -1.0)
    """
    with (
        param_scope(),
        pyro_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device))),
        pyro.validation_enabled(False),
    ):
        try:
            flat = UnconstrainedModel(model, arguments)
        except DiscreteUnknown as error:
            raise Unflattenable(str(error)) from error
        point = torch.zeros(flat.size, dtype=flat.dtype, device=flat.device)
        try:
            # a plain function: the tracer reads the signature, which the transforms hide
            graph = _record(lambda z: functionalize(grad_and_value(flat.potential))(z), point)
        except Exception as error:  # the tracer reports what it cannot follow in many ways
            reason = str(error).strip().splitlines() or [""]
            raise Unflattenable(f"{type(error).__name__}: {reason[0][:200]}") from error
        graph.graph.eliminate_dead_code()
        graph.recompile()
        potential = Potential(flat, graph)
        _check(potential, flat, generator)
    return potential


def _record(function: Callable[[Tensor], Any], point: Tensor) -> fx.GraphModule:
    """The graph of a function. Shapes of values share one mode: one each takes half of the time."""
    with tracing(TracingContext(FakeTensorMode())):
        return make_fx(function)(point)


def _check(potential: Potential, model: UnconstrainedModel, generator: torch.Generator) -> None:
    """Compare the batched graph with two plain runs of the model at each of a few points."""
    points = potential._uniform(_NUM_CHECKS, generator)
    totals = []
    for point in points:
        runs = [_plain(model, point) for _ in range(2)]
        for name, term in runs[0].items():
            if not _close(term, runs[1].get(name, math.nan)):
                raise ConfigurationError(
                    message(
                        "Two runs of the model at one point give different log densities",
                        where=f"site {name!r}",
                        got=f"{term:.6g} and {runs[1].get(name, math.nan):.6g}",
                        causes=("random numbers outside pyro.sample", "a model with a memory"),
                        remedy="make every random number of the model a site",
                    )
                )
        totals.append(sum(runs[0].values()))
    values, _ = potential.value_and_gradient(points)
    for total, value in zip(totals, values, strict=True):
        if not _close(total, float(value)):
            raise Unflattenable(
                f"the graph gives {float(value):.6g} where a plain run gives {total:.6g}: "
                "the model's course depends on the values of its unknowns"
            )


def _plain(model: UnconstrainedModel, point: Tensor) -> dict[str, float]:
    """Terms of a plain run; a run that breaks down has no value."""
    try:
        with torch.no_grad():
            return {name: float(term) for name, term in model.terms(point).items()}
    except torch.linalg.LinAlgError:
        return {"": math.nan}


def _finite_terms(model: UnconstrainedModel, point: Tensor) -> dict[str, bool]:
    return {name: math.isfinite(term) for name, term in _plain(model, point).items() if name}


def _close(one: float, other: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.isfinite(one) == math.isfinite(other)
    return abs(one - other) <= _CHECK_TOLERANCE * (1 + abs(one))


def _nan_on_failure(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy that gives NaN, for itself alone, where a point's factorisation fails."""
    new = fx.Graph()
    values: dict[fx.Node, Any] = {}
    passed: list[fx.Node] = []
    for node in graph.graph.nodes:
        if node.target is _ATEN._linalg_check_errors.default:
            fine = new.call_function(_ATEN.eq.Scalar, (values[node.args[0]], 0))
            passed.append(new.call_function(_ATEN.all.default, (fine,)))
        elif node.op == "output":
            gradient, value = (values[part] for part in node.args[0])
            for fine in passed:
                value = new.call_function(_ATEN.where.ScalarOther, (fine, value, math.nan))
            new.output((gradient, value))
        else:
            values[node] = new.node_copy(node, values.__getitem__)
    return fx.GraphModule(graph, new)


def _shares_products(graph: fx.GraphModule) -> bool:
    names = [getattr(node.target, "__name__", "") for node in graph.graph.nodes]
    products = any(name.startswith(("mm", "mv", "addmm", "addmv")) for name in names)
    return products and not any(name.startswith("linalg") for name in names)


def _work(graph: fx.GraphModule) -> int:
    """Elements computed, with the inner dimension of products and factorisations."""
    total = 0
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or value is None:
            continue
        first = value[0] if isinstance(value, tuple | list) else value
        name = getattr(node.target, "__name__", "")
        inner = 1
        if name.startswith(("mm", "bmm", "mv", "addmm", "dot")):
            inner = node.args[0].meta["val"].shape[-1]
        elif name.startswith(("linalg_cholesky", "linalg_solve_triangular")):
            inner = first.shape[-2]
        total += first.numel() * inner
    return total
