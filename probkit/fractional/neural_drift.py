"""A neural network with one hidden layer as the drift of an SDE, with priors for its weights.

    b(x) = V tanh(W x + c),   V ~ N(0, scale^2 / width),
    W ~ N(W_0, anchor^2),   c ~ N(c_0, anchor^2)

with W_0 and c_0 drawn once. A prior around zero for both layers would have its mode at a constant
drift, since the layers shrink each other; around random values the outer layer sees features, and
the drift is close to a Gaussian process of sd ``scale`` that varies over ``1 / rate``.

Source of the priors: Pearce, Leibfried & Brintrup, AISTATS 2020 (anchored networks).
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

from probkit.random import Seed, as_generator
from probkit.validation import require_all_positive

__all__ = ["NeuralDrift"]


class NeuralDrift(PyroModule):
    """``b(t, x)`` of a state of any dimension, not of time.

    Args:
        dim: coordinates D.
        width: hidden units.
        scale: prior sd of the drift where all units are saturated.
        rate: inverse of the length over which the drift varies.
        anchor: prior sd of the hidden layer around its random start.
        seed: of that start.

    Raises:
        ConfigurationError: a setting that is not positive.

    Example:
        >>> import torch
        >>> from probkit.fractional import FractionalSDE
        >>> sde = FractionalSDE(
        ...     NeuralDrift(), 0.5, 0.7, dt=0.1, num_steps=10, observed=torch.arange(1, 11)
        ... )
        >>> path, y = sde.simulate(seed=0)  # a drift from the prior, and a path under it
        >>> y.shape
        torch.Size([10, 1])
    """

    def __init__(
        self,
        dim: int = 1,
        *,
        width: int = 48,
        scale: float = 3.0,
        rate: float = 1.5,
        anchor: float = 0.3,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        require_all_positive(dim=dim, width=width, scale=scale, rate=rate, anchor=anchor)
        generator = as_generator(seed)

        def normal(*shape: int) -> Tensor:
            return rate * torch.randn(*shape, generator=generator, dtype=torch.float64)

        def prior(centre: Tensor, sd: float) -> PyroSample:
            return PyroSample(dist.Normal(centre, sd).to_event(centre.dim()))

        self.hidden = prior(normal(width, dim), anchor)
        self.bias = prior(normal(width), anchor)
        outer = torch.zeros(dim, width, dtype=torch.float64)
        self.outer = prior(outer, scale / math.sqrt(width))

    def forward(self, t: Tensor, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """The drift at x."""
        return torch.tanh(x @ self.hidden.mT + self.bias) @ self.outer.mT
