"""The loss of an ELBO program as a function of one flat vector of unconstrained parameters.

As such it can be recorded (``compiled_elbo``), differentiated by ``torch.func`` and mapped over
many vectors at once (``starting_points``). What has no reparametrised draw has no such form.
"""

from __future__ import annotations

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
from probkit.infer.pyro_data import ModelArguments, ScaleObserved
from probkit.infer.updates import natural_gradient

__all__ = ["FlatElbo"]


class FlatElbo:
    """Negative ELBO and its gradient; must be built, and called, inside ``param_scope``.

    Args:
        model, guide: as the user gave them.
        arguments: the data.
        elbo: a Pyro ELBO object.
        batch_size: rows of a minibatch, 0 for all.
        parameters: unconstrained parameters by name, as in Pyro's store.
        natural: natural gradients in the place of ordinary ones.

    Attributes:
        names: of the parameters, in the order of the vector.
        start: (P,) the parameters as they are.
        data: tensors among the arguments.

    Raises:
        Unsupported: the reason why there is no such form.
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
        if isinstance(elbo, RenyiELBO) and elbo.vectorize_particles:
            raise Unsupported("RenyiELBO with vectorised particles")
        self._model, self._guide, self._arguments, self._elbo = model, guide, arguments, elbo
        self._batch_size, self.natural = batch_size, natural
        self.names, self.data = list(parameters), arguments.tensors()
        self._shapes = [p.shape for p in parameters.values()]
        self._sizes = [p.numel() for p in parameters.values()]
        if len({p.dtype for p in parameters.values()}) != 1:
            raise Unsupported("parameters of several dtypes")
        if any("$$$" in name for name in self.names):
            raise Unsupported("pyro.module inside a function; make it an attribute of a PyroModule")
        self.start = self.joined({name: p.detach() for name, p in parameters.items()})

    def __call__(self, values: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient (P,) at a vector (P,)."""
        gradient, loss = torch.func.grad_and_value(self._loss)(values, *data)
        if self.natural:
            gradient = self.joined(natural_gradient(*map(self.parts, (values, gradient))))
        return loss, gradient

    def joined(self, values: Mapping[str, Tensor]) -> Tensor:
        """One vector from parameters by name."""
        return torch.cat([values[name].reshape(-1) for name in self.names])

    def parts(self, flat: Tensor) -> dict[str, Tensor]:
        """Parameters by name from one vector."""
        pieces = zip(flat.split(self._sizes), self._shapes, strict=True)
        return {
            name: piece.reshape(shape)
            for name, (piece, shape) in zip(self.names, pieces, strict=True)
        }

    def _loss(self, values: Tensor, *data: Tensor) -> Tensor:
        """Negative ELBO as a differentiable function of the flat vector."""
        model, arguments = self._model, self._arguments.with_tensors(data)
        if self._batch_size:
            length = arguments.common_length()
            model = ScaleObserved(length / self._batch_size)(model)
            arguments = arguments.rows(torch.randperm(length)[: self._batch_size])
        args, kwargs = arguments
        with _parameters_as(self.parts(values), (self._guide, self._model)):
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
