"""``MarkovGaussianGuide``: the posterior of the path by a conditioned (Doob) Markov process.

Linearise the drift along a reference path. The state z = (x, Y, slope) then moves linearly,
``z' = F z + c + T e`` with white e, and the likelihood of all later observations is a Gaussian
function of the state, ``h(z) ~ exp(-z'L z / 2 + l'z)``, found by the backward recursion::

    M = I + T'L T,   L_ = L - L T M^-1 T'L,   l_ = l - L T M^-1 T'l
    L <- F'L_ F + observation,   l <- F'(l_ - L_ c) + observation

The guide draws the white noise of each step from its law given the state and the future::

    e given z ~ N(M^-1 T'(l - L f(z)), M^-1)

with the true step f. Nothing is piecewise constant and no control is needed: for a linear drift
this is the exact posterior, and the ELBO is the log evidence. For other drifts the reference path
is that of the guide's mean, iterated (Gauss-Newton), and weights log p - log q tell the rest.
Working with white noise avoids an inverse of the nearly singular Q.

What is new against the published scheme: there the posterior has a control that is constant over a
step and the prior's law of Y(0), which costs 5 nats for H = .2. Cost: N d^3 for the recursion
with d = D (K + 2), N d K a path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.fractional.hurst_law import HurstLaw
from probkit.fractional.linearized import (
    Conditional,
    backward,
    first_reference,
    flat_state,
    inverse_root,
    linearized,
)
from probkit.fractional.sde import FractionalSDE, SDEPath, joined_path
from probkit.infer import pyro_seed
from probkit.infer.importance import WeightedDraws
from probkit.infer.native.lowering import Unsupported
from probkit.random import Seed, as_generator
from probkit.sde.exact import weighted
from probkit.sde.scan import scan_steps

__all__ = ["GuidePaths", "MarkovGaussianGuide"]

_LOG_2PI = math.log(2 * math.pi)
_HURST_DRAWS = 50
_ENSEMBLE = 64
"""paths that a drift is linearised around"""


class GuidePaths(NamedTuple):
    """Paths drawn from the guide.

    Attributes:
        path: states on the grid.
        start, noise: the white noise they come from.
        log_q: log density of that noise under the guide.
        log_weight: log p(y, noise) - log q(noise); its mean is the ELBO.
    """

    path: SDEPath
    start: Tensor
    noise: Tensor
    log_q: Float[Tensor, " S"]
    log_weight: Float[Tensor, " S"]

    @property
    def elbo(self) -> Tensor:
        """Monte-Carlo mean of the log weights."""
        return self.log_weight.mean()

    @property
    def log_evidence(self) -> Tensor:
        """Importance-weighted bound, above the ELBO and below the log evidence in the mean."""
        return torch.logsumexp(self.log_weight, 0) - math.log(len(self.log_weight))

    def khat(self) -> float:
        """Pareto shape of the weights: below .7 corrected moments can be used."""
        return WeightedDraws({"x": self.path.x.detach()}, self.log_weight.detach()).khat


class MarkovGaussianGuide:
    """Guide of a :class:`FractionalSDE` given observations; callable as a Pyro guide.

    Args:
        sde: the model.
        y: observations, (M, D) for Gaussian ones.
        num_iterations: linearisations of the drift; 1 suffices for a linear one.
        refresh: calls as a Pyro guide between two linearisations, for parameters that move.
        network: ``e(t, x, y)`` with x (S, D) and y (S, D, K), (S, D, K): a trainable shift of the
            white noise, for what the linearisation misses. End it with a layer of zeros.

    Where the Hurst index has a prior, its law is learned with the other parameters
    (``hurst_law``), and the path is conditioned anew for every draw of it; ``sample`` and
    ``update`` are for its median. In a fit, ``FitResult.posterior`` has the paths as ``x`` and the
    index as ``hurst``, and the weights behind k-hat are those of single paths.

    Example:
        >>> sde = FractionalSDE(
        ...     lambda t, x: -x, 1.0, 0.3, dt=0.1, num_steps=50, observed=torch.arange(1, 51, 7)
        ... )
        >>> _, y = sde.simulate(seed=1)
        >>> paths = MarkovGaussianGuide(sde, y).sample(64)
        >>> bool(paths.log_weight.std() < 1e-6)  # exact for a linear drift
        True
    """

    def __init__(
        self,
        sde: FractionalSDE,
        y: Tensor,
        *,
        num_iterations: int = 8,
        refresh: int = 10,
        network: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.sde, self.y, self.num_iterations, self.network = sde, y, num_iterations, network
        self.reference: Float[Tensor, "S N+1 D"] | None = None
        prior = sde.hurst_prior
        self.hurst_law = None if prior is None else HurstLaw(prior)
        self.refresh, self._calls = refresh, 0
        self._start: tuple[Tensor, Tensor, Tensor]
        self._steps: Conditional
        self.update()

    def update(self) -> None:
        """Linearise anew, for the current parameters, which are held fixed.

        Iterations go on from the last reference paths.
        """
        with torch.no_grad(), self.sde.at_hurst(self._median()):
            reference = self.reference
            if reference is None:
                reference = first_reference(self.sde, self.y)[None]
                for _ in range(self.num_iterations):
                    self.condition(reference)
                    moved = self._mean_path()
                    done = bool((moved - reference).abs().max() < 1e-3)
                    reference = moved
                    if done:
                        break
            for _ in range(2):
                self.condition(reference)
                reference = self._draw(_ENSEMBLE, as_generator(0)).path.x
            self.reference = reference

    def sample(self, num_paths: int, *, seed: Seed = 0) -> GuidePaths:
        """Draw paths with their weights; gradients reach the parameters of the drift."""
        with self.sde.at_hurst(self._median()):
            return self._draw(num_paths, as_generator(seed))

    def weighted_draws(self, num_samples: int) -> tuple[dict[str, Tensor], Tensor]:
        """Paths and their log weights under the present parameters, from torch's generator."""
        with torch.no_grad():
            generator = as_generator(int(torch.randint(2**62, ())))
            self.update()
            groups = 1 if self.hurst_law is None else min(num_samples, _HURST_DRAWS)
            sizes = [len(part) for part in torch.arange(num_samples).tensor_split(groups)]
            found = [self._weighted(size, generator) for size in sizes]
            draws = {name: torch.cat([part[0][name] for part in found]) for name in found[0][0]}
            return draws, torch.cat([part[1] for part in found])

    def _weighted(self, size: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        if self.hurst_law is None:
            drawn = self._draw(size, generator)
            return {"x": drawn.path.x}, drawn.log_weight
        law, prior = self.hurst_law.law(), self.sde.hurst_prior
        assert prior is not None and self.reference is not None
        with pyro_seed(int(torch.randint(2**62, (), generator=generator))):
            hurst = law.sample()
        with self.sde.at_hurst(hurst):
            self.condition(self.reference)
            drawn = self._draw(size, generator)
        weight = drawn.log_weight + prior.log_prob(hurst).sum() - law.log_prob(hurst)
        return {"x": drawn.path.x, "hurst": hurst.expand(size, *hurst.shape)}, weight

    def _median(self) -> Tensor | None:
        return None if self.hurst_law is None else self.hurst_law.median.detach()

    def _draw(self, num_paths: int, generator: torch.Generator) -> GuidePaths:
        like, size = self.sde.matrices.decay, len(self.sde.matrices.decay)

        def normal(*sizes: int) -> Tensor:
            return torch.randn(*sizes, generator=generator, dtype=like.dtype)

        first = normal(num_paths, self.sde.dim * (size + 2))
        return self._paths(first, normal(self.sde.num_steps, num_paths, self.sde.dim * size))

    def __call__(self, y: Tensor) -> None:
        """The Pyro guide."""
        if torch._C._functorch.get_interpreter_stack():
            raise Unsupported("the guide is linearised between steps")
        if self.hurst_law is None:
            self._refresh()
            self._sites()
            return
        pyro.module("hurst_law", self.hurst_law)
        hurst = pyro.sample("hurst", self.hurst_law.law())
        with self.sde.at_hurst(hurst):
            self._refresh(always=True)
            self._sites()

    def _refresh(self, *, always: bool = False) -> None:
        """Linearise around the paths of the last call, now and then."""
        due = self._calls % self.refresh == 0 and self._calls > 0
        if (due or always) and self.reference is not None:
            self.condition(self.reference)
        self._calls += 1

    def _sites(self) -> None:
        sde, size = self.sde, len(self.sde.matrices.decay)
        if isinstance(self.network, torch.nn.Module):
            pyro.module("residual", self.network)
        with pyro.plate("paths", sde.num_paths), pyro.poutine.scale(scale=1 / sde.num_paths):
            like = sde.matrices.decay.new_zeros(())
            first = torch.randn_like(like.expand(sde.num_paths, sde.dim * (size + 2)))
            white = torch.randn_like(like.expand(sde.num_steps, sde.num_paths, sde.dim * size))
            drawn = self._paths(first, white)
            if bool(drawn.path.x.isfinite().all()):  # a step that breaks down is taken back
                self.reference = drawn.path.x.detach()
            # the density of all noise is given with the last site
            zero = drawn.log_q.new_zeros(sde.num_paths)
            pyro.sample("start", dist.Delta(drawn.start, zero, event_dim=2))
            pyro.sample("noise", dist.Delta(drawn.noise, drawn.log_q, event_dim=3))

    def _paths(self, first: Float[Tensor, "S m"], white: Float[Tensor, "N S m"]) -> GuidePaths:
        sde, steps, scale = self.sde, self._steps, self.sde.noise_scale()
        times = sde.times()
        mean, root, log_det = self._start
        start = (mean + first @ root.mT).reshape(len(first), sde.dim, -1)
        x, y, slope = sde.start(start, scale)
        matrices, h = sde.matrices, sde.dt
        falls, jump = scale.weights * (matrices.decay - 1), matrices.root.mT
        trend = slope * h
        # what does not depend on the path is computed for all steps at once
        own = torch.baddbmm(steps.pull[:, None], white, steps.root.mT)
        gain = -steps.gain.mT

        def step(n: int, states: tuple[Tensor, ...], own: Tensor, gain: Tensor) -> Any:
            x, y = states
            width = sde.diffusion(times[n], x)
            after = y * matrices.decay
            base = torch.add(x, sde.drift(times[n], x), alpha=h)
            base = torch.addcmul(base, width, weighted(y, falls) + trend)
            ahead = flat_state(base, after, slope)
            e = torch.addmm(own, ahead, gain).reshape(y.shape)
            if self.network is not None:
                e = e + self.network(times[n], x, y)
            moved = e @ jump
            base = torch.addcmul(base, width, weighted(moved, scale.weights))
            after = after + moved
            return (base, after), (base, after, e)

        _, (xs, ys, used) = scan_steps(step, (x, y), (own, gain), segment=sde.segment)
        path, noise = joined_path((x, y), xs, ys), used.movedim(0, -3)
        count = start[0].numel() + noise[0].numel()
        drawn = first.square().sum(-1) + white.square().sum((0, -1))
        log_q = -0.5 * (drawn + count * _LOG_2PI) + log_det + steps.log_det.sum()
        squares = start.square().sum((-2, -1)) + noise.square().sum((-3, -2, -1))
        log_p = sde.log_likelihood(path.x, self.y) - 0.5 * (squares + count * _LOG_2PI)
        return GuidePaths(path, start, noise, log_q, log_p - log_q)

    def _mean_path(self) -> Tensor:
        like, size = self.sde.matrices.decay, len(self.sde.matrices.decay)
        first = like.new_zeros(1, self.sde.dim * (size + 2))
        white = like.new_zeros(self.sde.num_steps, 1, self.sde.dim * size)
        return self._paths(first, white).path.x

    def condition(self, reference: Float[Tensor, "S N+1 D"]) -> None:
        """Linearise around an ensemble of paths, and condition on the observations."""
        with torch.no_grad():
            linear = linearized(self.sde, reference, self.y)
            L, pull, self._steps = backward(linear, self.sde.num_steps)
            self._start = self._start_law(L, pull)

    def _start_law(self, L: Tensor, pull: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The law of the white start given all observations."""
        sde, size, scale = self.sde, len(self.sde.matrices.decay), self.sde.noise_scale()
        count = sde.dim * (size + 2)
        units = torch.eye(count, dtype=L.dtype).reshape(count, sde.dim, size + 2)
        zero = flat_state(*sde.start(torch.zeros_like(units[0]), scale))
        T = (flat_state(*sde.start(units, scale)) - zero).mT
        M = torch.eye(count, dtype=L.dtype) + T.mT @ L @ T
        chol = torch.linalg.cholesky(M)
        mean = torch.cholesky_solve((T.mT @ (pull - L @ zero))[:, None], chol)[:, 0]
        return (mean, *inverse_root(chol))
