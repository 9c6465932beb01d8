"""Density of paths driven by fractional noise, for all steps at once.

A path x of ``x' = x + b(t, x) h + s(t, x) dB`` determines the increments of its noise,

    r_n = (x_(n+1) - x_n - b(t_n, x_n) h) / s(t_n, x_n),   log p(x) = log p(r) - sum log s,

which are Gaussian with the law of the driving process: its modes are integrated out by the filter

    v = r - b'm,   z = v / sd,   m <- a m + k v,   log p(r) = -sum (z^2 + log(2 pi sd^2)) / 2

(b the loadings of modes and slope on an increment). Gains k and sds do not depend on the path, so
they are computed once; drift and diffusion are evaluated on all steps in one call, which is what
makes learning a drift quick. Cost: N K^2 once; N K a path, and the terms.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.func import vmap

from probkit.fractional.native_paths import is_native, path_library
from probkit.fractional.sde import FractionalSDE
from probkit.infer.native.build import pointer
from probkit.sde.scan import scan_steps
from probkit.statespace.fractional import MarkovApproxFBM, exact_step

__all__ = ["Whitening", "increments", "log_density", "path_log_density", "whiten", "whitening"]


class Whitening(NamedTuple):
    """The filter of the increments of one coordinate.

    Attributes:
        gain: k of every step.
        sd: of every increment given those before.
        decay, loading: a and b, for the modes and the slope.
    """

    gain: Float[Tensor, "N n"]
    sd: Float[Tensor, " N"]
    decay: Float[Tensor, " n"]
    loading: Float[Tensor, " n"]


def whitening(process: MarkovApproxFBM, dt: float, num_steps: int, index: int = 0) -> Whitening:
    """Gains for the increments over ``dt``; ``index`` of the coordinate if each has its own."""
    with torch.no_grad():
        decay, noise = exact_step(process.rates, dt)
        shared = process.hurst.dim() == 0
        w = process.weights if shared else process.weights[index]
        slope = process.slope_variance if shared else process.slope_variance[index]
        a, b = torch.cat([decay, decay.new_ones(1)]), torch.cat([w * (decay - 1), w.new_ones(1)])
        b[-1] = dt
        Q = torch.block_diag(noise, noise.new_zeros(1, 1))
        P = torch.block_diag(process.initial_covariance, slope.reshape(1, 1))
        Qw = torch.cat([noise @ w, w.new_zeros(1)])
        own = w @ noise @ w
        gains, variances = [], []
        for _ in range(num_steps):
            Pb = P @ b
            variance = b @ Pb + own
            k = (a * Pb + Qw) / variance
            P = a[:, None] * P * a + Q - variance * k[:, None] * k
            gains.append(k)
            variances.append(variance)
        return Whitening(torch.stack(gains), torch.stack(variances).sqrt(), a, b)


def log_density(r: Float[Tensor, "N S"], filter: Whitening) -> Float[Tensor, " S"]:
    """Log density of increments, differentiable in them."""
    constant = len(r) * math.log(2 * math.pi) / 2 + filter.sd.log().sum()
    return -0.5 * whiten(r, filter).square().sum(0) - constant


def whiten(r: Float[Tensor, "N S"], filter: Whitening) -> Float[Tensor, "N S"]:
    """Increments as independent standard normal ones: prediction errors over their sds."""
    if not is_native(r):
        return _whiten(r, filter)
    z: Tensor = _Whiten.apply(r, filter)
    return z


def increments(
    sde: FractionalSDE, x: Float[Tensor, "S N+1 D"]
) -> tuple[Float[Tensor, "N S D"], Float[Tensor, " S"]]:
    """Increments r of the noise behind paths, and the sum of log s along each."""
    path = x.movedim(-2, 0)
    times = sde.times()[:-1]
    b, s = (vmap(term)(times, path[:-1]) for term in (sde.drift, sde.diffusion))
    return (path[1:] - path[:-1] - sde.dt * b) / s, s.log().sum((0, -1))


def path_log_density(
    sde: FractionalSDE, x: Float[Tensor, "S N+1 D"], filters: list[Whitening]
) -> Float[Tensor, " S"]:
    """Log density of paths given x(0), differentiable in the parameters of drift and diffusion."""
    r, log_s = increments(sde, x)
    total = -log_s
    for i in range(sde.dim):
        total = total + log_density(r[..., i], filters[i % len(filters)])
    return total


def _whiten(r: Tensor, filter: Whitening) -> Tensor:
    def step(n: int, states: tuple[Tensor, ...], value: Tensor) -> Any:
        (m,) = states
        v = value - m @ filter.loading
        return (m * filter.decay + v[:, None] * filter.gain[n],), (v / filter.sd[n],)

    start = r.new_zeros(r.shape[1], len(filter.decay))
    _, (z,) = scan_steps(step, (start,), (r,))
    return z


class _Whiten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: Tensor, filter: Whitening) -> Tensor:
        ctx.filter = filter
        return _run("whiten", r, filter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _run("whiten_adjoint", grad, ctx.filter), None


def _run(name: str, values: Tensor, filter: Whitening) -> Tensor:
    library = path_library()
    assert library is not None
    given = values.detach().contiguous()
    found = torch.empty_like(given)
    sizes = (len(given), len(filter.decay), given.shape[1])
    parts = [part.contiguous() for part in filter]
    getattr(library, name)(*sizes, *map(pointer, (given, *parts, found)))
    return found
