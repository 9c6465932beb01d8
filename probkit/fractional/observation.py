"""How a path is observed: a Gaussian law, or any Pyro distribution of the user's.

A likelihood is a function from the path at the observed points, x (*batch, M, D), to a distribution
of y whose first dimensions are the batch, as in ``lambda x: dist.Poisson(x.exp())``. Guides need it
as a Gaussian function of x, which Newton's method supplies at a reference path,

    log p(y given x) ~ -x'W x / 2 + p'x,   W = -(second derivative), p = (first) + W x_ref,

with a block W_m (D, D) for every observation; negative eigenvalues of W_m are set to 0.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message

__all__ = [
    "GaussianLikelihood",
    "Likelihood",
    "as_event",
    "derivative",
    "log_likelihood",
    "quadratic_sites",
]

Likelihood = Callable[[Tensor], dist.TorchDistribution]


class GaussianLikelihood:
    """``y ~ N(x, noise^2)``, every coordinate observed."""

    def __init__(self, noise: float | Tensor) -> None:
        self.noise = noise

    def __call__(self, x: Float[Tensor, "*batch M D"]) -> dist.TorchDistribution:
        return dist.Normal(x, self.noise)


def as_event(law: dist.TorchDistribution, num_batch: int) -> dist.TorchDistribution:
    """The law with all but its first ``num_batch`` dimensions as one event.

    Raises:
        ShapeError: a law with fewer dimensions than the batch of paths.
    """
    rest = len(law.batch_shape) - num_batch
    if rest < 0:
        raise ShapeError(
            message(
                "The likelihood lost the batch of paths",
                where="likelihood",
                got=tuple(law.batch_shape),
                expected=f"{num_batch} batch dimensions or more",
                remedy="reduce over the last two dimensions of x only",
            )
        )
    event: dist.TorchDistribution = law.to_event(rest)
    return event


def log_likelihood(
    likelihood: Likelihood, seen: Float[Tensor, "*batch M D"], y: Tensor
) -> Float[Tensor, "*batch"]:
    """Log density of the observations, summed over them."""
    found: Tensor = as_event(likelihood(seen), seen.dim() - 2).log_prob(y)
    return found


def quadratic_sites(
    likelihood: Likelihood, seen: Float[Tensor, "M D"], y: Tensor
) -> tuple[Float[Tensor, "M D D"], Float[Tensor, "M D"]]:
    """W and p of every observation at a reference path."""
    size, dim = seen.shape
    if isinstance(likelihood, GaussianLikelihood):
        precision = torch.as_tensor(likelihood.noise, dtype=seen.dtype).detach() ** -2
        units = torch.eye(dim, dtype=seen.dtype, device=seen.device)
        return precision * units.expand(size, dim, dim), precision * y
    with torch.enable_grad():
        x = seen.detach().requires_grad_()
        value = log_likelihood(likelihood, x, y)
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        # observations do not share coordinates: one product gives a row of every block
        rows = [derivative(slope[:, i].sum(), x) for i in range(dim)]
    W = -torch.stack(rows, -2)
    values, vectors = torch.linalg.eigh((W + W.mT) / 2)
    W = (vectors * values.clamp_min(0)[..., None, :]) @ vectors.mT
    return W, slope.detach() + (W @ seen[..., None])[..., 0]


def derivative(value: Tensor, x: Tensor) -> Tensor:
    """Of a number with respect to x; zero where it does not depend on x. The graph is kept."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found
