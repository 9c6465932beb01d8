"""``FractionalSDE``: a stochastic differential equation with fractional noise, as a Pyro model.

``dX = b(t, X) dt + s(t, X) dB_hat``, observed as ``y_i ~ N(X(t_i), noise^2)`` or by a likelihood of
the user's. On a grid of steps the path is a deterministic function of white noise (exact steps of
the Ornstein-Uhlenbeck block, ``probkit.sde.exact``), so that the unknowns of the Pyro model are::

    start  (D, K + 2)   x(0), Y(0) and the slope, white
    noise  (N, D, K)    of every step, white

and a guide is any law of these. Several paths are a plate, scaled so that the ELBO is their mean.
Source: Daems et al., ICLR 2024, arXiv 2310.12975; the discretisation is ours.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

from probkit.errors import ConfigurationError, ShapeError, message
from probkit.fractional.observation import (
    GaussianLikelihood,
    Likelihood,
    as_event,
    log_likelihood,
)
from probkit.infer import pyro_seed
from probkit.random import Seed, fixed_seed
from probkit.sde.exact import StepMatrices, advance, step_matrices
from probkit.sde.scan import scan_steps
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_tables import HURST_RANGE
from probkit.validation import as_real, check_whole, require_all_positive

__all__ = ["FractionalSDE", "NoiseScale", "SDEPath"]


class SDEPath(NamedTuple):
    """States at the N + 1 points of the grid."""

    x: Float[Tensor, "*batch N+1 D"]
    y: Float[Tensor, "*batch N+1 D K"]


class NoiseScale(NamedTuple):
    """What depends on the Hurst index: weights of the modes (K,), and the sd of the slope ().

    Where every coordinate has its own index, (D, K) and (D,).
    """

    weights: Float[Tensor, "*dim K"]
    slope: Float[Tensor, "*dim"]


class FractionalSDE(PyroModule):
    """A latent SDE with fractional noise, and observations of its path.

    Args:
        drift: ``b(t, x)`` with x (*batch, D); a module's parameters are learned. It must not mix
            paths of the batch (``torch.func.vmap`` linearises it).
        diffusion: ``s(t, x)``, positive, or a number.
        hurst: of the driving noise: a number, (D,) for one index a coordinate, or a
            :class:`MarkovApproxFBM`, whose kind of weights is then used. A Pyro distribution is a
            prior, with the site ``hurst``.
        dt: length of a step.
        num_steps: steps N; the path covers [0, N dt].
        observed: (M,) indices of the grid, 0 ... N, at which ``y`` is observed.
        noise: sd of Gaussian observations.
        likelihood: instead of ``noise``: from x at the observed points, (*batch, M, D), to a Pyro
            distribution of y that keeps the batch.
        learn_hurst: make the Hurst index a parameter that starts from ``hurst``.
        dim: number of coordinates D.
        initial: mean and sd of x(0).
        num_paths: paths that the ELBO is averaged over.
        segment: steps between two checkpoints of the backward pass (``probkit.sde.scan``); None
            keeps all activations.

    Raises:
        ConfigurationError: settings that are not positive, numbers of steps, paths or coordinates
            that are not whole, a Hurst index off its range, or observations that are no indices
            of the grid.
        ShapeError: drift or diffusion of another shape than the state's.

    Example:
        >>> grid = torch.arange(10, 101, 10)
        >>> sde = FractionalSDE(lambda t, x: -x, 0.5, 0.7, dt=0.01, num_steps=100, observed=grid)
        >>> path, y = sde.simulate(seed=0)
        >>> path.x.shape, y.shape
        (torch.Size([101, 1]), torch.Size([10, 1]))
    """

    def __init__(
        self,
        drift: Callable[[Tensor, Tensor], Tensor],
        diffusion: float | Callable[[Tensor, Tensor], Tensor],
        hurst: float | Tensor | MarkovApproxFBM | torch.distributions.Distribution,
        *,
        dt: float,
        num_steps: int,
        observed: Int[Tensor, " M"],
        noise: float = 0.1,
        likelihood: Likelihood | None = None,
        learn_hurst: bool = False,
        dim: int = 1,
        initial: tuple[float, float] = (0.0, 0.0),
        num_paths: int = 32,
        segment: int | None = None,
    ) -> None:
        super().__init__()
        num_steps = check_whole("num_steps", num_steps, 1, sys.maxsize)
        dim = check_whole("dim", dim, 1, sys.maxsize)
        num_paths = check_whole("num_paths", num_paths, 1, sys.maxsize)
        require_all_positive(dt=dt, noise=noise)
        if not initial[1] >= 0:
            raise ConfigurationError(
                message("The sd of x(0) must not be negative", where="initial", got=initial)
            )
        indices = _indices(observed, num_steps)
        self.hurst_prior = hurst if isinstance(hurst, torch.distributions.Distribution) else None
        if isinstance(hurst, torch.distributions.Distribution):
            self.hurst = PyroSample(hurst)
            hurst = _central(hurst, learn_hurst)
        self._given_hurst: list[Tensor] = []
        if not isinstance(hurst, MarkovApproxFBM):
            hurst = MarkovApproxFBM(hurst, num_steps=num_steps, dt=dt)
        _check_process(hurst, dim)
        hurst.warn_beyond(num_steps, dt)
        self.drift = drift
        self._diffusion = diffusion
        self._process, self.dt, self.num_steps = hurst, dt, num_steps
        self.observed, self.dim = indices, dim
        self.likelihood = GaussianLikelihood(noise) if likelihood is None else likelihood
        self.initial, self.num_paths, self.segment = initial, num_paths, segment
        low, high = HURST_RANGE
        if learn_hurst:
            share = ((hurst.hurst - low) / (high - low)).clamp(1e-3, 1 - 1e-3)
            self.raw_hurst = torch.nn.Parameter(torch.logit(share))
        self.learn_hurst = learn_hurst
        self.matrices: StepMatrices = step_matrices(hurst.rates, dt)
        values, vectors = torch.linalg.eigh(hurst.initial_covariance)
        self.start_root = vectors * values.clamp_min(0).sqrt()
        # a copy, because modules that have run cannot be put into another PyroModule
        with pyro_seed(0):  # only shapes and signs matter: the global state is not for this draw
            copy.deepcopy(self).draw_parameters()

    @property
    def process(self) -> MarkovApproxFBM:
        """The driving noise, at the present Hurst index; draws it if it has a prior."""
        if self._given_hurst:
            return self._process.with_hurst(self._given_hurst[-1])
        if self.hurst_prior is not None:
            return self._process.with_hurst(self.hurst)
        if not self.learn_hurst:
            return self._process
        low, high = HURST_RANGE
        return self._process.with_hurst(low + (high - low) * torch.sigmoid(self.raw_hurst))

    @contextmanager
    def at_hurst(self, value: Tensor | None) -> Iterator[None]:
        """Use this Hurst index within the context; None changes nothing."""
        if value is None:
            yield
            return
        self._given_hurst.append(value)
        try:
            yield
        finally:
            self._given_hurst.pop()

    def noise_scale(self) -> NoiseScale:
        """Weights and slope of the driving noise, to be computed once for a path."""
        process = self.process
        return NoiseScale(process.weights, process.slope_variance.clamp_min(1e-300).sqrt())

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """``s(t, x)``, (*batch, D)."""
        if callable(self._diffusion):
            found: Tensor = self._diffusion(t, x)
            return found
        return torch.full_like(x, self._diffusion)

    def start(
        self, white: Float[Tensor, "*batch D K+2"], scale: NoiseScale
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x(0), Y(0) and the slope from white noise."""
        mean, sd = self.initial
        x = mean + sd * white[..., 0]
        y = white[..., 1:-1] @ self.start_root.mT
        return x, y, white[..., -1] * scale.slope

    def times(self) -> Float[Tensor, " N+1"]:
        """Times of the points of the grid."""
        return self.dt * torch.arange(self.num_steps + 1, dtype=self.matrices.decay.dtype)

    def step(
        self, t: Tensor, x: Tensor, y: Tensor, slope: Tensor, white: Tensor, scale: NoiseScale
    ) -> tuple[Tensor, ...]:
        """The states one step after time t."""
        return advance(
            *(x, y, slope, white, self.drift(t, x)),
            lambda value: self.diffusion(t, value),
            scale.weights,
            self.matrices,
        )

    def path(
        self, start: Float[Tensor, "*batch D K+2"], noise: Float[Tensor, "*batch N D K"]
    ) -> SDEPath:
        """The path as a function of white noise."""
        scale, times = self.noise_scale(), self.times()
        x, y, slope = self.start(start, scale)

        def step(n: int, states: tuple[Tensor, ...], white: Tensor) -> Any:
            x, y = states
            moved = self.step(times[n], x, y, slope, white, scale)
            return moved, moved

        _, (xs, ys) = scan_steps(step, (x, y), (noise.movedim(-3, 0),), segment=self.segment)
        return joined_path((x, y), xs, ys)

    def simulate(self, *, seed: Seed = 0) -> tuple[SDEPath, Tensor]:
        """A path and its observations, (M, D) for Gaussian ones.

        Args:
            seed: an integer, a generator, whose state advances, or None for fresh entropy.

        Raises:
            ConfigurationError, DtypeError: no seed.
        """
        size = len(self._process.rates)
        with torch.no_grad(), pyro_seed(fixed_seed(seed)):
            like = self._process.rates.new_zeros(())
            white = dist.Normal(like, 1.0)
            start = white.sample([self.dim, size + 2])
            path = self.path(start, white.sample([self.num_steps, self.dim, size]))
            y: Tensor = as_event(self.likelihood(path.x[self.observed]), 0).sample()
        return path, y

    def log_likelihood(
        self, x: Float[Tensor, "*batch N+1 D"], y: Tensor
    ) -> Float[Tensor, " *batch"]:
        """Of observations given paths."""
        return log_likelihood(self.likelihood, x[..., self.observed, :], y)

    def forward(self, y: Tensor, *, marginal: Callable[[Tensor], Tensor] | None = None) -> None:
        """The Pyro model; guides have the sites ``start`` and ``noise``.

        Args:
            y: observations.
            marginal: their log-likelihood with the path integrated out, in place of the path.
        """
        like, size = self._process.rates, len(self._process.rates)
        self.draw_parameters()
        if marginal is not None:
            pyro.factor("y", marginal(y))
            return
        with pyro.plate("paths", self.num_paths), pyro.poutine.scale(scale=1 / self.num_paths):
            white = dist.Normal(like.new_zeros(()), 1.0)
            start = pyro.sample("start", white.expand([self.dim, size + 2]).to_event(2))
            shape = [self.num_steps, self.dim, size]
            noise = pyro.sample("noise", white.expand(shape).to_event(3))
            path = self.path(start, noise)
            law = as_event(self.likelihood(path.x[..., self.observed, :]), 1)
            pyro.sample("y", law, obs=y.expand(law.batch_shape + law.event_shape))

    def draw_parameters(self) -> None:
        """Draw what has a prior (``PyroSample``), outside any plate and once for a run."""
        like = self.matrices.decay
        self.check_terms(like.new_zeros(()), like.new_zeros(2, self.dim))
        if self.hurst_prior is not None:
            self.hurst  # noqa: B018  (draws the site)

    def check_terms(self, t: Tensor, x: Tensor) -> None:
        """Refuse a drift or diffusion of the wrong shape or sign at x (*batch, D).

        Raises:
            ConfigurationError, ShapeError: drift or diffusion do not fit the state.
        """
        for name, term in (("drift", self.drift(t, x)), ("diffusion", self.diffusion(t, x))):
            if term.shape != x.shape:
                raise ShapeError(
                    message(
                        f"The {name} must have the shape of the state",
                        where=name,
                        got=tuple(term.shape),
                        expected=tuple(x.shape),
                    )
                )
        if not bool((self.diffusion(t, x) > 0).all()):
            raise ConfigurationError(
                message(
                    "The diffusion must be positive",
                    where="diffusion",
                    got=float(self.diffusion(t, x).detach().min()),
                    remedy="end a network with softplus",
                )
            )


def joined_path(first: tuple[Tensor, Tensor], xs: Tensor, ys: Tensor) -> SDEPath:
    """The path from its start and what a scan stacked."""
    x, y = (torch.cat([a[None], rest]) for a, rest in zip(first, (xs, ys), strict=True))
    return SDEPath(x.movedim(0, -2), y.movedim(0, -3))


def _central(prior: torch.distributions.Distribution, learn_hurst: bool) -> Tensor:
    """A Hurst index in the middle of its prior.

    Raises:
        ConfigurationError: the prior reaches beyond the range, or ``learn_hurst`` is set.
    """
    low, high = HURST_RANGE
    bounds = [getattr(prior.support, end, None) for end in ("lower_bound", "upper_bound")]
    ends = [torch.as_tensor(math.nan if b is None else b) for b in bounds]
    inside = all(bool(((end >= low) & (end <= high)).all()) for end in ends)
    if not inside or learn_hurst:
        raise ConfigurationError(
            message(
                "A prior of the Hurst index lies within its range and excludes learn_hurst",
                where="hurst",
                got=f"support {prior.support}, learn_hurst={learn_hurst}",
                expected=f"a distribution on a part of [{low}, {high}], as Uniform is",
            )
        )
    return torch.as_tensor(prior.mean, dtype=torch.float64)


def _check_process(process: MarkovApproxFBM, dim: int) -> None:
    shape = tuple(process.hurst.shape)
    if shape not in ((), (dim,)):
        raise ConfigurationError(
            message(
                "The driving noise has one Hurst index, or one for every coordinate",
                where="hurst",
                got=shape,
                expected=f"() or ({dim},)",
            )
        )


def _indices(observed: Int[Tensor, " M"], num_steps: int) -> Int[Tensor, " M"]:
    """Indices of the grid as int64.

    Raises:
        ConfigurationError: they are off the grid, not whole (times, say) or a mask.
    """
    found = as_real(observed, "observed")
    whole = found.dtype != torch.bool and bool((found == found.round()).all())
    if found.dim() != 1 or not whole or not bool(((found >= 0) & (found <= num_steps)).all()):
        raise ConfigurationError(
            message(
                "Observations must lie on the grid",
                where="observed",
                got=f"{found.dtype} of shape {tuple(found.shape)}: {found.flatten().tolist()[:5]}",
                expected=f"a vector of indices of the grid, whole numbers in 0 ... {num_steps}",
                remedy="divide times by dt and round; turn a mask into mask.nonzero()[:, 0]",
            )
        )
    return found.long()
