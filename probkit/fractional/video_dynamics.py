"""The latent equation of a video: the prior's law of its path, and the posterior's.

``dX = b(X) dt + s(X) dB_hat`` with D coordinates and exact steps of the noise. Under the posterior
a network of (x, y, g(t)) shifts the noise of every step; its divergence from the prior is::

    "control"   dW becomes u dt + dW over a step:   u^2 h / 2            (published)
    "gaussian"  N(m, v) in the place of N(0, 1) for the part R'w of the white noise, which moves
                the path:                           (m^2 + v - 1 - log v) / 2

for every coordinate and step. A control leaves the path as noisy as before; v takes noise away.
For Brownian motion m = u h^1/2, v = 1 is the control. The divergence is on the noise, so that
neither diffusion nor Hurst index appear in it.

"tracking", the default, has equations of second order. Half of the coordinates are positions Q,
the others their velocities V, and only velocities are noisy::

    dQ = c V dt,    dV = b(Q, V) dt + s(Q) dB_hat

with c fixed. The posterior is "gaussian" with a mean that steers to what the context says of the
next positions and velocities (``Tracker``), by gains that depend on how far off they are: steady
motion costs nothing, a change of velocity does.
s depends on Q, which is smooth, so that all readings of the equation agree, for any Hurst index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probkit.errors import ConfigurationError, message
from probkit.fractional.video_networks import (
    CoordinateDiffusion,
    PositionDiffusion,
    perceptron,
    waves,
)
from probkit.fractional.video_noise import LatentNoise, NoiseTerms
from probkit.fractional.video_tracking import Aims, Tracker, steering
from probkit.infer import pyro_seed
from probkit.sde.exact import advance, weighted
from probkit.sde.scan import scan_steps
from probkit.validation import require_all_positive

__all__ = ["LatentDynamics", "LatentPath", "PathLaw"]

_GAIN = 0.25
_LEAST_LOG_SD = -6.0
_FIRST_LOG_SD = -1.0
_MOST_OBJECTS = 5  # there are 120 orders of five


class LatentPath(NamedTuple):
    """A batch of paths.

    Attributes:
        x: states at the points of the grid, (N + 1, B, D).
        y: modes of the noise there, (N + 1, B, D, K).
        slope: static slope of the noise, (B, D).
        kl: divergence of start and noise from their prior, (B,); 0 under the prior.
    """

    x: Tensor
    y: Tensor
    slope: Tensor
    kl: Tensor


class LatentDynamics(nn.Module):
    """Prior and posterior of the path.

    Args:
        dim: coordinates D.
        noise: "fractional" or "brownian".
        hurst, learn_hurst, weights: of fractional noise, see ``LatentNoise``.
        posterior: "tracking", "gaussian", or the published "control". With the first D is even and
            only the first half of the coordinates, the positions, is decoded.
        num_objects: positions belong to that many objects, in equal shares; the context may name
            these in any order, with "tracking". At most 5.
        num_frames: of a video, for the table of the noise.
        frame_step: time between frames.
        num_substeps: steps between frames.
        num_context: length of g(t).
        hidden: width of the networks of drift and posterior.
        diffusion_width: width of the networks of the diffusion.
        diffusion: where the diffusion starts; by default 1 for velocities, .2 otherwise.
        segment: steps between two checkpoints of the backward pass; None keeps everything.
        seed: of the starting weights.

    Raises:
        ConfigurationError: settings that are not positive, an unknown noise or posterior, an odd
            dimension with "tracking", or objects that positions cannot be shared among.

    Example:
        >>> dynamics = LatentDynamics(dim=4, noise="brownian", hidden=8)
        >>> path = dynamics.sample(3, 6, generator=torch.Generator().manual_seed(0))
        >>> path.x.shape, path.kl.tolist()
        (torch.Size([7, 3, 4]), [0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        *,
        dim: int = 8,
        noise: str = "fractional",
        hurst: float = 0.5,
        learn_hurst: bool = True,
        weights: str = "law",
        posterior: str = "tracking",
        num_objects: int = 1,
        num_frames: int = 25,
        frame_step: float = 0.1,
        num_substeps: int = 1,
        num_context: int = 32,
        hidden: int = 64,
        diffusion_width: int = 16,
        diffusion: float | None = None,
        segment: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"dim": dim, "num_frames": num_frames, "num_substeps": num_substeps}
        sizes |= {"num_context": num_context, "hidden": hidden, "diffusion_width": diffusion_width}
        tracking = posterior == "tracking"
        if diffusion is None:
            diffusion = 1.0 if tracking else 0.2
        require_all_positive(
            **sizes, frame_step=frame_step, diffusion=diffusion, num_objects=num_objects
        )
        _check_posterior(posterior, dim, num_objects)
        self.dim, self.posterior, self.num_context = dim, posterior, num_context
        self.num_substeps, self.segment = num_substeps, segment
        self.num_decoded = dim // 2 if tracking else dim
        step = frame_step / num_substeps
        self.noise = LatentNoise(
            noise,
            hurst=hurst,
            learn_hurst=learn_hurst,
            step=step,
            num_steps=max(num_frames - 1, 1) * num_substeps,
            weights=weights,
        )
        K = self.noise.size
        # the published posterior keeps the prior of Y(0); Brownian motion starts from 0
        own = posterior != "control" and noise == "fractional"
        self.start_size = K + 2 if own else 1
        moved = dim // 2 if tracking else dim  # coordinates with noise
        shifts = {"control": 1, "gaussian": 2, "tracking": 4}[posterior] * moved
        self.tracker: Tracker | None = None
        self.speed = _GAIN / frame_step
        with pyro_seed(seed):
            inputs = waves(torch.zeros(moved)).numel() + moved if tracking else dim
            self.drift_net = perceptron(inputs, hidden, moved, zero=True)
            self.diffusion_net: nn.Module = (
                PositionDiffusion(moved, diffusion_width, diffusion)
                if tracking
                else CoordinateDiffusion(dim, diffusion_width, diffusion)
            )
            inputs = dim * (K + 2) + num_context + 2 * moved * tracking
            self.shift_net = perceptron(inputs, hidden, shifts, zero=True)
            if tracking:
                self.tracker = Tracker(num_context, moved, num_objects)
            else:
                self.drift_linear = nn.Parameter(torch.zeros(dim, dim))
        self.start_mean = nn.Parameter(torch.zeros(dim))
        self.start_log_sd = nn.Parameter(torch.zeros(dim))

    def drift(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """b(x); with velocities these are the drift of the positions."""
        if self.tracker is None:
            found: Tensor = self.drift_net(x) + x @ self.drift_linear
            return found
        q, v = x.chunk(2, -1)
        return torch.cat([self.speed * v, self.drift_net(torch.cat([waves(q), v], -1))], -1)

    def diffusion(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """s(x); that of positions is 0."""
        found: Tensor = self.diffusion_net(x[..., : self.num_decoded])
        return found if self.tracker is None else torch.cat([torch.zeros_like(found), found], -1)

    def sample(
        self, num_paths: int, num_steps: int, *, generator: torch.Generator | None = None
    ) -> LatentPath:
        """Paths of the prior."""
        like = self.start_mean
        white = _normal(generator, like, num_paths, self.dim, self.noise.size + 2)
        terms = self.noise.terms(like)
        start = self._start(white, terms)
        return self._run(start, _noise(self, num_steps, like, num_paths, generator), terms)

    def follow(self, path: LatentPath, num_steps: int, *, generator: torch.Generator) -> LatentPath:
        """Go on from the end of paths under the prior; the first point is their last."""
        state = (path.x[-1], path.y[-1], path.slope)
        white = _noise(self, num_steps, path.x, len(path.slope), generator)
        return self._run(state, white, self.noise.terms(path.x))

    def infer(
        self,
        start: Float[Tensor, "B 2 D S"],
        context: Float[Tensor, "B T G"],
        *,
        generator: torch.Generator | None = None,
    ) -> LatentPath:
        """Paths of the posterior; derivatives reach all parameters.

        Args:
            start: mean and logarithm of the sd of the white start: of x(0) alone, or of x(0), Y(0)
                and the slope.
            context: g at every frame, linear between.
            generator: None for torch's global one, which Pyro's engines seed.
        """
        terms = self.noise.terms(context)
        mean, log_sd = start[:, 0], start[:, 1].clamp_min(_LEAST_LOG_SD)
        white = _normal(generator, context, len(start), self.dim, self.noise.size + 2)
        own = mean + log_sd.exp() * white[..., : self.start_size]
        kl = 0.5 * (mean.square() + (2 * log_sd).exp() - 1) - log_sd
        state = self._start(torch.cat([own, white[..., self.start_size :]], -1), terms)
        m = self.num_substeps
        share = torch.arange(m, dtype=context.dtype, device=context.device) / m
        between = torch.lerp(context[:, :-1, None], context[:, 1:, None], share[:, None])
        grid = between.flatten(1, 2).transpose(0, 1)
        noise = _noise(self, len(grid), context, len(start), generator)
        path = self._run(state, noise, terms, grid)
        return path._replace(kl=path.kl + kl.sum((-2, -1)))

    def _start(self, white: Tensor, terms: NoiseTerms) -> tuple[Tensor, Tensor, Tensor]:
        x = self.start_mean + self.start_log_sd.exp() * white[..., 0]
        return x, white[..., 1:-1] @ terms.start_root.mT, terms.slope * white[..., -1]

    def _run(
        self,
        state: tuple[Tensor, Tensor, Tensor],
        white: Float[Tensor, "N B D K"],
        terms: NoiseTerms,
        context: Float[Tensor, "N B G"] | None = None,
    ) -> LatentPath:
        first, modes, slope = state

        def step(n: int, states: tuple[Tensor, ...], own: Tensor, *given: Tensor) -> Any:
            x, y, kl = states
            drift, scale = self.drift(x), self.diffusion(x)
            control = None
            if given:
                seen = (x, y, slope, drift, scale)
                own, control, more = self._shifted(*seen, own, terms, *given)
                kl = kl + more
            x, y = advance(
                *(x, y, slope, own, drift),
                lambda _: scale,
                terms.weights,
                terms.matrices,
                control,
            )
            return (x, y, kl), (x, y)

        inputs = (white,) if context is None else (white, context)
        if context is not None and self.tracker is not None:
            inputs = (*inputs, *self.tracker(context))
        start = (first, modes, first.new_zeros(len(first)))
        (_, _, kl), (xs, ys) = scan_steps(step, start, inputs, segment=self.segment)
        x, y = torch.cat([first[None], xs]), torch.cat([modes[None], ys])
        return LatentPath(x, y, slope, kl)

    def _shifted(
        self,
        x: Tensor,
        y: Tensor,
        slope: Tensor,
        drift: Tensor,
        scale: Tensor,
        own: Tensor,
        terms: NoiseTerms,
        context: Tensor,
        *aims: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """White noise and control of the posterior's next step, and its divergence."""
        h = terms.matrices.step
        expected = weighted(y, terms.weights * (terms.matrices.decay - 1)) + slope * h
        seen = (x, expected / h**0.5, (y / terms.scale).flatten(-2), context)
        if self.tracker is not None:
            aim = Aims(*aims)
            ahead = x + drift * h + scale * expected
            off = self.tracker.errors(ahead, aim, self.speed * h)
            mean, log_sd, *gains = self.shift_net(torch.cat((*seen, *off), -1)).chunk(4, -1)
            fresh = scale[..., self.num_decoded :] * terms.fresh_sd
            mean = aim.live * (mean + steering(off, gains) / fresh)
            log_sd = aim.live * (log_sd + _FIRST_LOG_SD)
            still = torch.zeros_like(mean)
            mean, log_sd = torch.cat([still, mean], -1), torch.cat([still, log_sd], -1)
        else:
            found = self.shift_net(torch.cat(seen, -1))
            if self.posterior == "control":
                return own, found, 0.5 * h * found.square().sum(-1)
            mean, log_sd = found.chunk(2, -1)
        log_sd = log_sd.clamp_min(_LEAST_LOG_SD)
        along = own @ terms.along
        moved = (mean + torch.expm1(log_sd) * along)[..., None] * terms.along
        kl = 0.5 * (mean.square() + torch.expm1(2 * log_sd)) - log_sd
        return own + moved, None, kl.sum(-1)


class PathLaw(dist.TorchDistribution):
    """The prior's law of the states (x, y) on the grid; densities are relative to it, so 1."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = dist.constraints.independent(dist.constraints.real, 3)

    def __init__(self, dynamics: LatentDynamics, num_paths: int, num_steps: int) -> None:
        self.dynamics, self.num_steps = dynamics, num_steps
        shape = (num_steps + 1, dynamics.dim, dynamics.noise.size + 1)
        super().__init__(torch.Size([num_paths]), torch.Size(shape), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw paths, ``(*sample_shape, B, N + 1, D, K + 1)``."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            path = self.dynamics.sample(shape.numel(), self.num_steps)
        return joined(path).reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Zero, (B,): the density of the prior relative to itself."""
        return value.new_zeros(value.shape[:-3])


def joined(path: LatentPath) -> Float[Tensor, "B N+1 D K+1"]:
    """States and modes as one tensor."""
    return torch.cat([path.x[..., None], path.y], -1).transpose(0, 1)


def _noise(
    dynamics: LatentDynamics,
    num_steps: int,
    like: Tensor,
    num_paths: int,
    generator: torch.Generator | None,
) -> Tensor:
    return _normal(generator, like, num_steps, num_paths, dynamics.dim, dynamics.noise.size)


def _normal(generator: torch.Generator | None, like: Tensor, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=like.dtype, device=like.device)


def _check_posterior(posterior: str, dim: int, num_objects: int) -> None:
    if posterior not in ("tracking", "gaussian", "control"):
        raise ConfigurationError(
            message(
                "There is no such posterior",
                where="posterior",
                got=repr(posterior),
                expected='"tracking", "gaussian" or "control"',
            )
        )
    if posterior == "tracking" and dim % 2:
        raise ConfigurationError(
            message(
                "Half of the coordinates cannot be velocities",
                where="dim",
                got=dim,
                expected="an even number",
                remedy='posterior="gaussian" has no velocities',
            )
        )
    if posterior == "tracking" and (dim // 2 % num_objects or num_objects > _MOST_OBJECTS):
        raise ConfigurationError(
            message(
                "Positions must be shared equally among few objects",
                where="num_objects",
                got=f"{num_objects} for {dim // 2} positions",
                expected=f"a divisor of {dim // 2}, at most {_MOST_OBJECTS}",
            )
        )
