"""Blocks of optimisation steps in native code: the compiled form of :class:`.elbo.ElboProgram`.

Guide and model are run once with fake tensors while their operations are recorded, from the flat
vector of unconstrained parameters to the ELBO and its gradient; the recording becomes C++ with
Adam around it (:mod:`probkit.infer.native`). Fresh noise and fresh minibatches in every step come
from a generator inside, seeded by the loop's. What cannot be recorded raises ``Unsupported``:
sites without a reparametrised draw, enumeration, control flow that depends on values.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from probkit.infer.native.lowering import Unsupported
from probkit.infer.native.program import NativeFunction
from probkit.infer.protocols import State
from probkit.infer.pyro_data import ModelArguments, ScaleObserved
from probkit.infer.updates import natural_gradient

__all__ = ["CompiledElbo"]


class CompiledElbo:
    """Adam on the ELBO, many steps a call; must be built inside ``param_scope``.

    Args:
        model, guide: as the user gave them.
        arguments: the data; their values are fixed from here on.
        elbo: a Pyro ELBO object.
        batch_size: rows of a minibatch, 0 for all.
        parameters: unconstrained parameters by name, as in Pyro's store.
        natural: plain steps along natural gradients in the place of Adam.

    Attributes:
        native: loss and gradient in native code.

    Raises:
        Unsupported: the reason why it has to run eagerly.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        arguments: ModelArguments,
        elbo: Any,
        *,
        batch_size: int,
        parameters: Mapping[str, Tensor],
        natural: bool = False,
    ) -> None:
        if type(elbo) not in (Trace_ELBO, TraceMeanField_ELBO, RenyiELBO):
            raise Unsupported(f"{type(elbo).__name__} has no native form")
        self._model, self._guide, self._arguments, self._elbo = model, guide, arguments, elbo
        self._batch_size, self._natural = batch_size, natural
        self._names = list(parameters)
        self._shapes = [p.shape for p in parameters.values()]
        self._sizes = [p.numel() for p in parameters.values()]
        if isinstance(elbo, RenyiELBO) and elbo.vectorize_particles:
            raise Unsupported("RenyiELBO with vectorised particles")
        if len({p.dtype for p in parameters.values()}) != 1:
            raise Unsupported("parameters of several dtypes")
        if any("$$$" in name for name in self._names):
            raise Unsupported("pyro.module inside a function; make it an attribute of a PyroModule")
        flat = torch.cat([p.detach().reshape(-1) for p in parameters.values()])

        def loss_and_gradient(values: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
            gradient, loss = torch.func.grad_and_value(self._loss)(values, *data)
            if natural:
                gradient = self._joined(natural_gradient(*map(self._parts, (values, gradient))))
            return loss, gradient

        with pyro.validation_enabled(False):
            self.native = NativeFunction(
                loss_and_gradient, flat, arguments.tensors(), driver="adam.cpp"
            )

    def block(
        self,
        state: State,
        rates: Tensor,
        seed: int,
        *,
        clip_norm: float = 0.0,
        weight_decay: float = 0.0,
    ) -> tuple[State, Tensor, bool]:
        """Up to ``len(rates)`` steps from a state of :class:`.elbo.ElboProgram`.

        Args:
            state: parameters and moments.
            rates: (K,) learning rate of each step, float64.
            seed: of noise and minibatches.
            clip_norm: largest Euclidean norm of the gradient, 0 for any.
            weight_decay: of AdamW.

        Returns:
            The new parameters and moments, and the parameters of the last loss (``evaluated``);
            the losses of the steps that were done, fewer than K
            where the next one is not finite; whether a matrix that must be positive definite was
            not, in that step.
        """
        theta, first, second = (self._join(state, part) for part in ("param", "first", "second"))
        evaluated = theta.clone()
        losses = torch.empty(len(rates), dtype=torch.float64)
        failure = ctypes.c_int64(0)
        done = self.native.library.adam(
            ctypes.c_int64(len(rates)),
            ctypes.c_int64(int(state["num_steps"])),
            _pointer(theta),
            _pointer(first),
            _pointer(second),
            _pointer(evaluated),
            _pointer(rates),
            ctypes.c_double(clip_norm),
            ctypes.c_double(weight_decay),
            ctypes.c_int64(self._natural),
            self.native.inputs,
            ctypes.c_uint64(seed),
            self.native.workspace_pointer(),
            _pointer(losses),
            ctypes.byref(failure),
        )
        new: State = {}
        parts = {"param": theta, "first": first, "second": second, "evaluated": evaluated}
        for part, values in parts.items():
            pieces = values.split(self._sizes)
            for name, piece, shape in zip(self._names, pieces, self._shapes, strict=True):
                new[f"{part}.{name}"] = piece.reshape(shape).clone()
        return new, losses[:done], bool(failure.value)

    def _join(self, state: State, part: str) -> Tensor:
        return self._joined({name: state[f"{part}.{name}"] for name in self._names})

    def _joined(self, values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([values[name].reshape(-1) for name in self._names])

    def _parts(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = zip(flat.split(self._sizes), self._shapes, strict=True)
        return {
            name: piece.reshape(shape)
            for name, (piece, shape) in zip(self._names, pieces, strict=True)
        }

    def _loss(self, values: Tensor, *data: Tensor) -> Tensor:
        """Negative ELBO as a differentiable function of the flat vector."""
        model, arguments = self._model, self._arguments.with_tensors(data)
        if self._batch_size:
            length = arguments.common_length()
            model = ScaleObserved(length / self._batch_size)(model)
            arguments = arguments.rows(torch.randperm(length)[: self._batch_size])
        args, kwargs = arguments
        with _parameters_as(self._parts(values), (self._guide, self._model)):
            traces = list(self._elbo._get_traces(model, self._guide, args, kwargs))
        mean_field = isinstance(self._elbo, TraceMeanField_ELBO)
        terms = [_particle(p, q, mean_field) for p, q in traces]
        if isinstance(self._elbo, RenyiELBO):
            power = 1 - self._elbo.alpha
            return -(torch.stack(terms) * power).logsumexp(0).sub(math.log(len(terms))) / power
        total = sum(terms)
        assert isinstance(total, Tensor)
        return -total / self._elbo.num_particles


def _particle(p: Any, q: Any, mean_field: bool) -> Any:
    """The ELBO of one pair of traces; analytic KL divergences where ``mean_field`` and known."""
    total: Any = 0.0
    done = set()
    for name, site in p.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if mean_field and not site["is_observed"] and name in q.nodes:
            divergence = _divergence(q.nodes[name], site)
            if divergence is not None:
                total = total - divergence
                done.add(name)
                continue
        total = total + site["log_prob_sum"]
    for name, site in q.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site) or name in done:
            continue
        if not getattr(site["fn"], "has_rsample", False):
            raise Unsupported(f"site {name!r} has no reparametrised draw")
        total = total - site["log_prob_sum"]
    return total


def _divergence(own: Any, prior: Any) -> Any:
    from pyro.distributions.util import scale_and_mask

    try:
        value = kl_divergence(own["fn"], prior["fn"])
    except NotImplementedError:
        return None
    return scale_and_mask(value, scale=own["scale"], mask=own["mask"]).sum()


@contextmanager
def _parameters_as(values: Mapping[str, Tensor], owners: tuple[Any, ...]) -> Iterator[None]:
    """Pyro's store, and the modules that share its tensors, with other tensors in their place."""
    store = pyro.get_param_store()
    kept = dict(store._params)
    by_identity = {id(kept[name]): value for name, value in values.items()}
    slots: list[tuple[dict[str, Any], str, Any]] = [
        (inner._parameters, key, parameter)
        for owner in owners
        if isinstance(owner, torch.nn.Module)
        for inner in owner.modules()
        for key, parameter in inner._parameters.items()
        if id(parameter) in by_identity
    ]
    try:
        store._params = {**kept, **values}
        for slot, key, parameter in slots:
            slot[key] = by_identity[id(parameter)]
        yield
    finally:
        store._params = kept
        for slot, key, parameter in slots:
            slot[key] = parameter


def _pointer(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())
