"""A fitted Pyro model against its data: pointwise likelihood, leave-one-out, predictive draws.

With posterior draws z_s, ``log_likelihood`` is log p(y_n | z_s) of every observed scalar or event,
leave-one-out cross-validation reweighs the draws by 1 / p(y_n | z_s), Pareto-smoothed,

    elpd_loo = sum_n log sum_s w_ns p(y_n | z_s),

and a predictive check is the share of replicated data sets y_s ~ p(. | z_s) whose statistic exceeds
that of the data: near 0 or 1, the model does not reproduce it. All draws are run at once under
``vmap``; a model that cannot be mapped is run draw by draw.

Sources: Vehtari, Gelman & Gabry, Stat. Comput. 27 (2017); Gelman, Meng & Stern, Stat. Sinica 6
(1996). Cost: one run of the model for each draw, without Python's share where mapped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.func import vmap

from probkit.errors import ConfigurationError, message
from probkit.infer.importance import rounding_of_sums
from probkit.infer.mapped_noise import FreshNoise
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import PosteriorLike
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.seeding import param_scope, pyro_seed
from probkit.random import Seed, as_generator, spawn_seeds

__all__ = ["ModelChecks", "leave_one_out", "predictive_p_values"]

_CHUNK_ELEMENTS = 10_000_000
_BAD_KHAT = 0.7


@dataclass(frozen=True)
class ModelChecks:
    """A Pyro model with the data it was fitted to.

    Args:
        model: the model.
        arguments: its data.
        params: values of ``pyro.param`` that were learned with the posterior, by name.
    """

    model: Callable[..., Any]
    arguments: ModelArguments
    params: dict[str, Tensor] | None = None

    def log_likelihood(
        self, draws: dict[str, Float[Tensor, "draw *event"]]
    ) -> dict[str, Float[Tensor, "draw *batch"]]:
        """log p(y_n | z_s) by observed site; ``pyro.factor`` sites are no observations.

        Raises:
            ConfigurationError: the model subsamples its data, or observes nothing.
        """
        names = self._observed()  # conditioning makes unknowns look observed: ask before

        def one(values: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
            return {
                name: scale_and_mask(
                    site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]),
                    1.0,
                    site["mask"],
                )
                for name, site in self._run(poutine.condition(self.model, data=values))
                if name in names
            }

        return self._map(one, draws, 0)

    def replicate(
        self, draws: dict[str, Float[Tensor, "draw *event"]], seed: Seed = 0
    ) -> dict[str, Float[Tensor, "draw *batch *event"]]:
        """One data set for each draw, by observed site.

        Raises:
            ConfigurationError: the model subsamples its data, or observes nothing.
        """
        names = self._observed()

        def one(values: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
            free = poutine.condition(_Free()(self.model), data=values)
            return {name: site["value"] for name, site in self._run(free) if name in names}

        return self._map(one, draws, spawn_seeds(as_generator(seed), 1)[0])

    def prior(self, num_samples: int, seed: Seed = 0) -> dict[str, Float[Tensor, "draw *event"]]:
        """Draws of unknowns and of data from the model alone, by site.

        Raises:
            ConfigurationError: the model subsamples its data, or observes nothing.
        """
        self._observed()

        def one(_: dict[str, Tensor], __: Tensor) -> dict[str, Tensor]:
            return {
                name: site["value"]
                for name, site in self._run(_Free()(self.model))
                if not site_is_subsample(site) and not isinstance(site["fn"], dist.Unit)
            }

        nothing = {"": torch.zeros(num_samples)}
        return self._map(one, nothing, spawn_seeds(as_generator(seed), 1)[0])

    def deterministic(
        self, draws: dict[str, Float[Tensor, "draw *event"]]
    ) -> dict[str, Float[Tensor, "draw *event"]]:
        """Values at every draw of ``pyro.deterministic`` sites that the draws lack, by site.

        None where a plate subsamples: the values would be those of one minibatch.
        """
        sites = self.sites()
        names = {n for n, s in sites.items() if s["infer"].get("_deterministic", False)}
        if not names - set(draws) or any(_subsamples(site) for site in sites.values()):
            return {}

        def one(values: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
            found = self._run(poutine.condition(self.model, data=values))
            return {name: site["value"] for name, site in found if name in names - set(draws)}

        return self._map(one, draws, 0)

    def sites(self) -> dict[str, Any]:
        """Sample sites of one run of the model, subsampling included, by name."""
        with param_scope(), self._learned(), pyro_seed(0), torch.no_grad():
            return dict(self._run(self.model))

    def check(
        self, posterior: PosteriorLike, num_samples: int = 500, seed: Seed = 0
    ) -> dict[str, Any]:
        """``loo`` and ``predictive_p`` by observed site, for a result's diagnostics.

        A site that is one joint observation has nothing to leave out, and no ``loo``. Entries that
        ``poutine.mask`` hides are no data: they count in neither.
        """
        generator = as_generator(seed)
        draws = _distinct(posterior, num_samples, generator)
        found = self.log_likelihood(draws)
        replicated, data = self.replicate(draws, generator), self.data()
        for name, seen in self._seen().items():
            found[name] = found[name].expand(-1, *seen.shape)[:, seen]
            replicated[name] = replicated[name][:, seen]
            data[name] = data[name].expand(seen.shape + data[name].shape[seen.dim() :])[seen]
        return {
            "loo": {
                name: leave_one_out(value) for name, value in found.items() if value[0].numel() > 1
            },
            "predictive_p": {
                name: predictive_p_values(data[name], value)
                for name, value in replicated.items()
                if value.numel()
            },
        }

    def data(self) -> dict[str, Tensor]:
        """The observed values by site."""
        return {n: s["value"] for n, s in self.sites().items() if _is_observation(s)}

    def _seen(self) -> dict[str, Tensor]:
        """Which entries count, ``(*batch)``, of observed sites where some do not."""
        masks = {
            name: torch.as_tensor(site["mask"], dtype=torch.bool).expand(site["fn"].batch_shape)
            for name, site in self.sites().items()
            if _is_observation(site) and site["mask"] is not None
        }
        return {name: mask for name, mask in masks.items() if not bool(mask.all())}

    def _observed(self) -> list[str]:
        sites = self.sites()
        for name, site in sites.items():
            if _subsamples(site):
                raise ConfigurationError(
                    message(
                        "Pointwise likelihoods and predictions need all the data",
                        where=f"plate {name!r}",
                        got=f"{len(site['value'])} of {site['fn'].size} rows",
                        remedy="check with a model whose plates do not subsample",
                    )
                )
        names = [name for name, site in sites.items() if _is_observation(site)]
        if not names:
            raise ConfigurationError(
                message("The model observes nothing", remedy="give data to a site by obs=")
            )
        return names

    def _run(self, model: Callable[..., Any]) -> list[tuple[str, Any]]:
        args, kwargs = self.arguments
        nodes = poutine.trace(model).get_trace(*args, **kwargs).nodes
        return [(name, site) for name, site in nodes.items() if site["type"] == "sample"]

    def _learned(self) -> _Parameters:
        return _Parameters(self.params or {})

    def _map(
        self,
        one: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]],
        draws: dict[str, Tensor],
        seed: int,
    ) -> dict[str, Tensor]:
        count = len(next(iter(draws.values())))
        with param_scope(), self._learned(), pyro.validation_enabled(False), torch.no_grad():
            with pyro_seed(seed):
                first = one({k: v[0] for k, v in draws.items()}, torch.zeros(()))
            elements = sum(v.numel() for v in first.values()) * 4 + 1
            chunk = max(1, min(count, _CHUNK_ELEMENTS // elements))
            index = torch.arange(count)
            try:
                with pyro_seed(seed), warnings.catch_warnings(), FreshNoise():
                    warnings.simplefilter("error", UserWarning)
                    found: dict[str, Tensor] = vmap(one, randomness="different", chunk_size=chunk)(
                        draws, index
                    )
                return found
            except (RuntimeError, ValueError, NotImplementedError, UserWarning):
                with pyro_seed(seed):
                    rows = [one({k: v[i] for k, v in draws.items()}, index[i]) for i in index]
                return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class _Free(UnconditionMessenger):
    """Effect handler: draws observed sites, and leaves derived ones what the model makes them."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic", False):
            super()._pyro_sample(msg)


class _Parameters(poutine.messenger.Messenger):
    """Effect handler: learned values in the place of a model's parameters."""

    def __init__(self, params: dict[str, Tensor]) -> None:
        super().__init__()
        self.params = params

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self.params:
            msg["value"], msg["done"] = self.params[msg["name"]], True


def leave_one_out(log_likelihood: Float[Tensor, "draw *batch"]) -> dict[str, Any]:
    """``elpd`` with its standard error ``se``, ``p_loo``, ``max_khat``, ``num_bad`` (k-hat > .7).

    Example:
        >>> constant = torch.full((100, 5), -1.0, dtype=torch.float64)
        >>> found = leave_one_out(constant)
        >>> round(found["elpd"], 6), found["num_bad"]
        (-5.0, 0)
    """
    from arviz_stats.base import array_stats

    values = log_likelihood.detach().to("cpu", torch.float64)
    values = values.reshape(len(values), -1).T.contiguous()
    rounding = rounding_of_sums(log_likelihood.dtype) * values.abs().max(1).values.clamp(min=1)
    varying = values.max(1).values - values.min(1).values > rounding
    pointwise, khat = values.mean(1), torch.full((len(values),), -torch.inf, dtype=torch.float64)
    if bool(varying.any()):
        some = values[varying]
        weights, shapes = array_stats.psislw(some.numpy(), axis=-1)
        logs = torch.as_tensor(np.asarray(weights)).log_softmax(-1)
        pointwise[varying] = (logs + some).logsumexp(-1)
        khat[varying] = torch.as_tensor(np.atleast_1d(shapes))
    plain = values.logsumexp(1) - np.log(values.shape[1])
    count = len(values)
    return {
        "elpd": float(pointwise.sum()),
        "se": float(pointwise.std() * count**0.5) if count > 1 else 0.0,
        "p_loo": float((plain - pointwise).sum()),
        "max_khat": float(khat.max()),
        "num_bad": int((khat > _BAD_KHAT).sum()),
    }


def predictive_p_values(
    data: Float[Tensor, "*shape"], replicated: Float[Tensor, "draw *shape"]
) -> dict[str, float]:
    """Share of replicated data sets whose mean, sd, least or greatest value exceeds the data's.

    Ties count half, so that discrete data are judged fairly.

    Example:
        >>> predictive_p_values(torch.tensor([1.0, 3.0]), torch.zeros(9, 2))["mean"]
        0.0
    """
    own = data.detach().flatten().double()[None]
    many = replicated.detach().double().reshape(len(replicated), -1)
    statistics: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda x: x.mean(1),
        "minimum": lambda x: x.min(1).values,
        "maximum": lambda x: x.max(1).values,
    }
    if own.shape[1] > 1:
        statistics["sd"] = lambda x: x.std(1)
    found = {}
    for name, statistic in statistics.items():
        there, here = statistic(many), statistic(own)
        found[name] = float(((there > here).double() + 0.5 * (there == here)).mean())
    return found


def _distinct(
    posterior: PosteriorLike, num_samples: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draws without repetition, which would look like a heavy tail to Pareto smoothing."""
    if not isinstance(posterior, DrawsPosterior):
        return posterior.sample(num_samples, generator)
    total = posterior.num_chains * posterior.num_draws
    index = torch.linspace(0, total - 1, min(num_samples, total)).long()
    return {name: value.flatten(0, 1)[index] for name, value in posterior.draws.items()}


def _subsamples(site: Any) -> bool:
    return site_is_subsample(site) and len(site["value"]) < site["fn"].size


def _is_observation(site: Any) -> bool:
    return (
        site["is_observed"]
        and not site_is_subsample(site)
        and not isinstance(site["fn"], dist.Unit)
        and not site["infer"].get("_deterministic", False)
    )
