"""Hamiltonian trajectories of many chains whose lengths are known in advance.

With ``q = S z`` for a lower factor ``S`` of the (estimated) posterior covariance and momenta
``p ~ N(0, I)`` of ``z``, one leapfrog step of size ``e`` is

    p <- p - e/2 S' dU(q),   q <- q + e S p,   p <- p - e/2 S' dU(q),

and the end of a trajectory is accepted with probability ``min(1, exp(-error))``, where ``error`` is
the growth of ``U(q) + |p|^2 / 2`` (Neal, *Handbook of MCMC*, 2011, ch. 5). All chains share the
number of steps of a trajectory, and every random number is drawn beforehand, so that no Python is
needed within a block. Cost: one gradient a step and chain.

A block runs natively, one chain after the other, or eagerly, all chains at once. Both consume the
same random numbers and agree up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.infer.native.lowering import Unsupported
from probkit.infer.native.program import NativeFunction
from probkit.infer.potential import Potential

__all__ = ["Block", "Chains", "NativeTrajectories", "Noise", "eager_trajectories"]


class Chains(NamedTuple):
    """Where the chains are."""

    position: Float[Tensor, "chain size"]
    value: Float[Tensor, " chain"]
    gradient: Float[Tensor, "chain size"]


class Noise(NamedTuple):
    """What one block consumes: momenta and the logarithms of uniform numbers."""

    momenta: Float[Tensor, "trajectory chain size"]
    log_uniforms: Float[Tensor, "trajectory chain"]


class Block(NamedTuple):
    """What one block of trajectories gives.

    ``draws`` and ``values`` are those after acceptance, ``energies`` those at the start of each
    trajectory, ``errors`` infinite where a trajectory left the domain; ``proposals`` and ``ends``
    are positions and momenta at the end of each trajectory, accepted or not.
    """

    chains: Chains
    draws: Float[Tensor, "trajectory chain size"]
    values: Float[Tensor, "trajectory chain"]
    energies: Float[Tensor, "trajectory chain"]
    errors: Float[Tensor, "trajectory chain"]
    proposals: Float[Tensor, "trajectory chain size"]
    ends: Float[Tensor, "trajectory chain size"]


Trajectories = Callable[[Chains, float, Tensor, list[int], Noise], Block]
"""(chains, step size, factor (size,) or (size, size), leapfrog steps of each, noise) -> block"""


def eager_trajectories(potential: Potential) -> Trajectories:
    """Trajectories by torch operations, on any device.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from probkit.infer.potential import flat_potential
        >>> from probkit.infer.pyro_data import ModelArguments
        >>> def model():
        ...     pyro.sample("x", dist.Normal(torch.zeros(()).double(), 1.0))
        >>> normal = flat_potential(model, ModelArguments.of(None), torch.Generator())
        >>> start = torch.ones(1, 1).double()
        >>> chains = Chains(start, *normal.value_and_gradient(start))
        >>> noise = Noise(torch.zeros(1, 1, 1).double(), torch.full((1, 1), -9.0).double())
        >>> block = eager_trajectories(normal)(chains, 0.1, torch.ones(1).double(), [10], noise)
        >>> round(float(block.draws), 2)  # close to cos(1)
        0.54
    """

    def run(chains: Chains, step: float, factor: Tensor, lengths: list[int], noise: Noise) -> Block:
        rows = []
        for length, momentum, log_uniform in zip(lengths, *noise, strict=True):
            energy = chains.value + _kinetic(momentum)
            end, p = chains, momentum
            for _ in range(length):
                p = p - 0.5 * step * _transposed(factor, end.gradient)
                q = end.position + step * _apply(factor, p)
                end = Chains(q, *potential.value_and_gradient(q))
                p = p - 0.5 * step * _transposed(factor, end.gradient)
            error = end.value + _kinetic(p) - energy
            error = torch.where(error.isfinite(), error, torch.inf)
            accepted = log_uniform < -error
            chains = Chains(
                torch.where(accepted[:, None], end.position, chains.position),
                torch.where(accepted, end.value, chains.value),
                torch.where(accepted[:, None], end.gradient, chains.gradient),
            )
            rows.append((chains.position, chains.value, energy, error, end.position, p))
        return Block(chains, *(torch.stack(column) for column in zip(*rows, strict=True)))

    return run


class NativeTrajectories:
    """The same by native code on one CPU thread; called like ``eager_trajectories(potential)``.

    Chains run one after another, unless the potential multiplies matrices by its unknowns: then
    they go in step, and a matrix is read once for all of them.

    Args:
        potential: what is sampled.
        num_chains: rows of every call; a multiple of it is possible too.

    Attributes:
        note: why chains that could go in step do not; empty otherwise.

    Raises:
        Unsupported: the potential has no native form here; the text says why.
    """

    def __init__(self, potential: Potential, num_chains: int) -> None:
        self.note = ""
        if potential.shares_products and num_chains > 1:
            try:
                self._build_batch(potential, num_chains)
                return
            except Unsupported as error:
                self.note = f"chains one after another: {error}"
        self._build_single(potential)

    def _build_batch(self, potential: Potential, num_chains: int) -> None:
        shape = (num_chains, potential.size)
        points = torch.zeros(shape, dtype=potential.dtype, device=potential.device)
        potential.value_and_gradient(points)  # makes the graph of the batch, which is traced below

        def evaluate(z: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = potential.value_and_gradient(z.reshape(shape))
            return value, gradient.reshape(-1)

        self._function = NativeFunction(evaluate, points.reshape(-1), (), "hmc.cpp")
        self._scratch = torch.empty(4 * points.numel(), dtype=potential.dtype)

    def _build_single(self, potential: Potential) -> None:
        point = torch.zeros(potential.size, dtype=potential.dtype, device=potential.device)

        # a plain function: the tracer counts the arguments of what it is given
        def evaluate(z: Tensor) -> tuple[Tensor, Tensor]:
            return potential.value_and_gradient_at(z)

        self._function = NativeFunction(evaluate, point, (), "hmc.cpp")
        self._scratch = torch.empty(4 * potential.size, dtype=potential.dtype)

    def __call__(
        self, chains: Chains, step: float, factor: Tensor, lengths: list[int], noise: Noise
    ) -> Block:
        moved = Chains(chains.position.clone(), chains.value.double(), chains.gradient.clone())
        moved = moved._replace(value=moved.value.clone())
        shape = noise.log_uniforms.shape
        vectors = [torch.empty_like(noise.momenta) for _ in range(3)]
        scalars = [torch.empty(shape, dtype=torch.float64) for _ in range(3)]
        draws, proposals, ends = vectors
        values, energies, errors = scalars
        steps = torch.tensor(lengths)
        # kept alive until the call returns: only their addresses are passed
        inputs = [factor.double().contiguous(), noise.momenta.contiguous()]
        inputs.append(noise.log_uniforms.double().contiguous())
        self._function.library.hmc(
            ctypes.c_int64(shape[1]),
            ctypes.c_int64(shape[0]),
            _address(steps),
            ctypes.c_double(step),
            _address(inputs[0]),
            ctypes.c_int64(factor.dim() - 1),
            *map(_address, inputs[1:]),
            *map(_address, moved),
            self._function.inputs,
            self._function.workspace_pointer(),
            *map(_address, [self._scratch, draws, *scalars, proposals, ends]),
        )
        scalars = [x.to(chains.value.dtype) for x in scalars]
        values, energies, errors = scalars
        moved = moved._replace(value=moved.value.to(chains.value.dtype))
        return Block(moved, draws, values, energies, errors, proposals, ends)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().sum(-1)


def _apply(factor: Tensor, x: Tensor) -> Tensor:
    """``S x`` of each row."""
    return factor * x if factor.dim() == 1 else x @ factor.mT


def _transposed(factor: Tensor, x: Tensor) -> Tensor:
    """``S' x`` of each row."""
    return factor * x if factor.dim() == 1 else x @ factor
