"""``ControlGuide``: the published posterior, a drift on the noise, with a closed-form first guess.

dW becomes ``u(t, z) dt + dW`` with u constant over a step, Y(0) keeps its prior, and::

    ELBO = E_q[log p(y given x)] - E_q[sum u^2 h / 2]

(the path KL is on the driving noise, so diffusion, weights and Hurst index do not enter it). The
control here is the optimum for the linearised drift, by the Riccati recursion, plus a network of
the user's; the published one is the network alone (``gain=False``). A control that is constant over
a step cannot pin a rough path: for H = .2 it loses 5 nats, which ``MarkovGaussianGuide`` does not.
Source: Daems et al., ICLR 2024, arXiv 2310.12975. Cost: N D K a path, and the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, NumericalError, message
from probkit.fractional.control_step import StepGain, choose_step
from probkit.fractional.linearized import backward, first_reference, linearized
from probkit.fractional.sde import FractionalSDE, SDEPath, joined_path
from probkit.random import Seed, as_generator
from probkit.sde.scan import scan_steps

__all__ = ["ControlGuide", "ControlPaths"]

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class ControlPaths(NamedTuple):
    """Controlled paths, their log-likelihoods and path divergences."""

    path: SDEPath
    log_likelihood: Float[Tensor, " S"]
    kl: Float[Tensor, " S"]

    @property
    def elbo(self) -> Tensor:
        """Monte-Carlo mean."""
        return (self.log_likelihood - self.kl).mean()


class ControlGuide:
    """A controlled law of the path.

    Args:
        sde: the model.
        y: (M, D) observations.
        network: ``u(t, x, y)`` with x (S, D) and y (S, D, K), (S, D); None for none. End it with
            a layer of zeros, so that training starts from the gain.
        gain: whether to add the optimal control of the linearised model.
        num_iterations: linearisations of the drift.

    Raises:
        ConfigurationError: neither gain nor network.

    Example:
        >>> sde = FractionalSDE(
        ...     lambda t, x: -x, 1.0, 0.8, dt=0.1, num_steps=50, observed=torch.arange(1, 51, 7)
        ... )
        >>> _, y = sde.simulate(seed=1)
        >>> ControlGuide(sde, y).sample(16).kl.shape
        torch.Size([16])
    """

    def __init__(
        self,
        sde: FractionalSDE,
        y: Float[Tensor, "M D"],
        *,
        network: Network | None = None,
        gain: bool = True,
        num_iterations: int = 3,
    ) -> None:
        if network is None and not gain:
            raise ConfigurationError(
                message("A control needs a gain or a network", where="network", got=None)
            )
        self.sde, self.y, self.network, self.gain = sde, y, network, gain
        if gain:
            with torch.no_grad():
                reference = first_reference(sde, y)[None]
                for _ in range(num_iterations):
                    self._condition(reference)
                    reference = self._mean_path()

    def sample(self, num_paths: int, *, seed: Seed = 0) -> ControlPaths:
        """Paths, differentiable in the parameters of the network and the drift.

        Raises:
            NumericalError: a path is no longer finite; names the step.
        """
        generator = as_generator(seed)
        sde, size = self.sde, len(self.sde.matrices.decay)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=sde.matrices.decay.dtype)

        start = normal(num_paths, sde.dim, size + 2)
        return self._run(start, normal(sde.num_steps, num_paths, sde.dim, size), self.network)

    def model(self, y: Tensor) -> None:
        """The published objective as a Pyro model without unknowns: train it with no guide.

        ``SVI(guide=lambda y: None).fit(guide.model, y)`` maximises the ELBO over the parameters of
        the network, and of the drift, diffusion and Hurst index if these are learned.
        """
        sde, size = self.sde, len(self.sde.matrices.decay)
        pyro.module("sde", sde)
        if isinstance(self.network, torch.nn.Module):
            pyro.module("control", self.network)
        like = sde.matrices.decay.new_zeros(())
        start = torch.randn_like(like.expand(sde.num_paths, sde.dim, size + 2))
        white = torch.randn_like(like.expand(sde.num_steps, sde.num_paths, sde.dim, size))
        pyro.factor("elbo", self._run(start, white, self.network).elbo)

    def _run(self, start: Tensor, white: Tensor, network: Network | None) -> ControlPaths:
        sde, h, noise = self.sde, self.sde.dt, self.sde.noise_scale()
        matrices, times = sde.matrices, sde.times().unbind()
        x, y, slope = sde.start(start, noise)
        own = white @ matrices.root.mT  # of all steps at once: it does not depend on the path
        if self.gain:
            fixed = [StepGain(matrices, *one) for one in zip(self._gain, self._pull, strict=True)]
        else:
            fixed = [StepGain(matrices, None, None)] * sde.num_steps

        advance, weights = choose_step(x), noise.weights.expand(y.shape[1:])

        def step(n: int, states: tuple[Tensor, ...], own: Tensor) -> Any:
            x, y = states
            t = times[n]
            net = None if network is None else network(t, x, y)
            terms = (sde.drift(t, x), sde.diffusion(t, x), net)
            x, y, u = advance(x, y, *terms, slope, weights, own, fixed[n])
            return (x, y), (x, y, u)

        _, (xs, ys, us) = scan_steps(step, (x, y), (own,), segment=sde.segment)
        kl = 0.5 * h * us.square().sum((0, -1))
        wrong = torch.nonzero(~xs.isfinite().flatten(1).all(1))
        if len(wrong):
            raise NumericalError(
                message(
                    "A controlled path is no longer finite",
                    where=f"step {int(wrong[0]) + 1}",
                    remedy="take a smaller dt, or bound the drift and the network",
                )
            )
        path = joined_path((x, y), xs, ys)
        return ControlPaths(path, sde.log_likelihood(path.x, self.y), kl)

    def _condition(self, reference: Tensor) -> None:
        sde, K, D = self.sde, len(self.sde.matrices.decay), self.sde.dim
        linear = linearized(sde, reference, self.y)
        effect = linear.F.new_zeros(*linear.F.shape[:2], D)
        response, w = sde.matrices.response, sde.noise_scale().weights.expand(D, K)
        for n, t in enumerate(sde.times()[:-1]):
            scale = sde.diffusion(t, reference[:, n])[0]
            for i in range(D):
                effect[n, D + i * K : D + (i + 1) * K, i] = response
                effect[n, i, i] = scale[i] * (w[i] @ response)
        _, _, steps = backward(linear._replace(T=effect / sde.dt**0.5), sde.num_steps)
        self._gain = (-steps.gain.mT / sde.dt**0.5).contiguous()
        self._pull = steps.pull / sde.dt**0.5

    def _mean_path(self) -> Tensor:
        sde, size = self.sde, len(self.sde.matrices.decay)
        zero = torch.zeros(1, sde.dim, size + 2, dtype=sde.matrices.decay.dtype)
        still = zero[..., :size].expand(sde.num_steps, 1, sde.dim, size)
        return self._run(zero, still, None).path.x
