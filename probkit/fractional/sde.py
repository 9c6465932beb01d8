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

from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.nn import PyroModule
from torch import Tensor

from probkit.errors import ConfigurationError, ShapeError, message
from probkit.sde.exact import StepMatrices, advance, step_matrices
from probkit.statespace.fractional import MarkovApproxFBM

__all__ = ["FractionalSDE", "SDEPath"]

_EVEN = 1e-6


class SDEPath(NamedTuple):
    """States at the N + 1 points of the grid."""

    x: Float[Tensor, "*batch N+1 D"]
    y: Float[Tensor, "*batch N+1 D K"]


class FractionalSDE(PyroModule):
    """A latent SDE with fractional noise, and Gaussian observations of its path.

    Args:
        drift: ``b(t, x)`` with x (*batch, D); a module's parameters are learned.
        diffusion: ``s(t, x)``, positive, or a number.
        process: the driving noise, with one Hurst index.
        dt: length of a step.
        num_steps: steps N; the path covers [0, N dt].
        observed: (M,) indices of the grid, 0 ... N, at which ``y`` is observed.
        noise: sd of the observations.
        dim: number of coordinates D.
        initial: mean and sd of x(0).
        num_paths: paths that the ELBO is averaged over.

    Raises:
        ConfigurationError: settings that are not positive, indices off the grid, or a process
            with several Hurst indices.

    Example:
        >>> process = MarkovApproxFBM(0.7, num_steps=100, dt=0.01)
        >>> grid = torch.arange(10, 101, 10)
        >>> sde = FractionalSDE(
        ...     lambda t, x: -x, 0.5, process, dt=0.01, num_steps=100, observed=grid
        ... )
        >>> path, y = sde.simulate(seed=0)
        >>> path.x.shape, y.shape
        (torch.Size([101, 1]), torch.Size([10, 1]))
    """

    def __init__(
        self,
        drift: Callable[[Tensor, Tensor], Tensor],
        diffusion: float | Callable[[Tensor, Tensor], Tensor],
        process: MarkovApproxFBM,
        *,
        dt: float,
        num_steps: int,
        observed: Float[Tensor, " M"],
        noise: float = 0.1,
        dim: int = 1,
        initial: tuple[float, float] = (0.0, 0.0),
        num_paths: int = 32,
    ) -> None:
        super().__init__()
        _check(process, dt, num_steps, observed, noise, dim, num_paths, initial)
        self.drift = drift
        self._diffusion = diffusion
        self.process, self.dt, self.num_steps = process, dt, num_steps
        self.observed, self.noise, self.dim = observed.long(), noise, dim
        self.initial, self.num_paths = initial, num_paths
        self.matrices: StepMatrices = step_matrices(process.rates, dt)
        values, vectors = torch.linalg.eigh(process.initial_covariance)
        self.start_root = vectors * values.clamp_min(0).sqrt()
        like = process.rates
        self._check_terms(like.new_zeros(()), like.new_zeros(2, dim))

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """``s(t, x)``, (*batch, D)."""
        if callable(self._diffusion):
            found: Tensor = self._diffusion(t, x)
            return found
        return torch.full_like(x, self._diffusion)

    def start(self, white: Float[Tensor, "*batch D K+2"]) -> tuple[Tensor, Tensor, Tensor]:
        """x(0), Y(0) and the slope from white noise."""
        mean, sd = self.initial
        x = mean + sd * white[..., 0]
        y = white[..., 1:-1] @ self.start_root.mT
        return x, y, white[..., -1] * self.process.slope_variance.sqrt()

    def time(self, n: int) -> Tensor:
        """Time of a point of the grid."""
        return self.process.rates.new_tensor(n * self.dt)

    def step(
        self, n: int, x: Tensor, y: Tensor, slope: Tensor, white: Tensor
    ) -> tuple[Tensor, ...]:
        """The states one step after point ``n``."""
        t = self.time(n)
        weights = self.process.weights
        return advance(
            *(x, y, slope, white, self.drift(t, x)),
            lambda value: self.diffusion(t, value),
            weights,
            self.matrices,
        )

    def path(
        self, start: Float[Tensor, "*batch D K+2"], noise: Float[Tensor, "*batch N D K"]
    ) -> SDEPath:
        """The path as a function of white noise."""
        x, y, slope = self.start(start)
        xs, ys = [x], [y]
        for n in range(self.num_steps):
            x, y = self.step(n, x, y, slope, noise[..., n, :, :])
            xs.append(x)
            ys.append(y)
        return SDEPath(torch.stack(xs, -2), torch.stack(ys, -3))

    def simulate(self, *, seed: int = 0) -> tuple[SDEPath, Float[Tensor, "M D"]]:
        """A path and its observations."""
        generator = torch.Generator().manual_seed(seed)
        size = len(self.process.rates)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        with torch.no_grad():
            path = self.path(normal(self.dim, size + 2), normal(self.num_steps, self.dim, size))
        y = path.x[self.observed]
        return path, y + self.noise * normal(*y.shape)

    def log_likelihood(
        self, x: Float[Tensor, "*batch N+1 D"], y: Float[Tensor, "M D"]
    ) -> Float[Tensor, " *batch"]:
        """Of observations given paths."""
        seen = x[..., self.observed, :]
        found: Tensor = dist.Normal(seen, self.noise).log_prob(y).sum((-2, -1))
        return found

    def model(self, y: Float[Tensor, "M D"]) -> None:
        """The Pyro model; guides have the sites ``start`` and ``noise``."""
        like, size = self.process.rates, len(self.process.rates)
        with pyro.plate("paths", self.num_paths), pyro.poutine.scale(scale=1 / self.num_paths):
            white = dist.Normal(like.new_zeros(()), 1.0)
            start = pyro.sample("start", white.expand([self.dim, size + 2]).to_event(2))
            shape = [self.num_steps, self.dim, size]
            noise = pyro.sample("noise", white.expand(shape).to_event(3))
            path = self.path(start, noise)
            seen = path.x[..., self.observed, :]
            pyro.sample("y", dist.Normal(seen, self.noise).to_event(2), obs=y.expand(seen.shape))

    def _check_terms(self, t: Tensor, x: Tensor) -> None:
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
                    got=float(self.diffusion(t, x).min()),
                    remedy="end a network with softplus",
                )
            )


def _check(
    process: MarkovApproxFBM,
    dt: float,
    num_steps: int,
    observed: Tensor,
    noise: float,
    dim: int,
    num_paths: int,
    initial: tuple[float, float],
) -> None:
    if process.hurst.dim():
        raise ConfigurationError(
            message(
                "The driving noise must have one Hurst index",
                where="process",
                got=tuple(process.hurst.shape),
            )
        )
    positive = {"dt": dt, "num_steps": num_steps, "noise": noise, "dim": dim}
    for name, value in {**positive, "num_paths": num_paths}.items():
        if not value > 0:
            raise ConfigurationError(
                message("A setting must be positive", where=name, got=value, expected="> 0")
            )
    if not initial[1] >= 0:
        raise ConfigurationError(
            message("The sd of x(0) must not be negative", where="initial", got=initial)
        )
    if observed.dim() != 1 or not bool(((observed >= 0) & (observed <= num_steps)).all()):
        raise ConfigurationError(
            message(
                "Observations must lie on the grid",
                where="observed",
                got=observed.tolist()[:5],
                expected=f"indices in 0 ... {num_steps}",
            )
        )
