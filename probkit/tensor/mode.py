"""One mode of the functional Tucker model: R Markov GPs on a grid, updated as one block.

Given sites ``exp(eta_i' u_i - u_i' Lambda_i u_i / 2)`` at the grid points (sums of the entries'
messages), the posterior of the mode's paths is a block-tridiagonal Gaussian. Its evidence
``log Z(theta)`` with the sites fixed is the ELBO as a function of the mode's kernel
hyper-parameters, so maximising it over theta and then taking the posterior can only raise the ELBO.

Kernel hyper-parameters live in the state as ``<prefix>kernel.<name>`` raw tensors; the kernel
module is a function of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import NumericalError
from probkit.kernels import MarkovKernel
from probkit.linalg.cyclic_reduction import log_normalizer
from probkit.statespace.information import prior_precision
from probkit.statespace.smoother import choose_method, smooth
from probkit.statespace.smoother import log_normalizer as log_normalizer_of_chain
from probkit.statespace.stacking import block_diagonal, stack_batch
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = ["ModeMoments", "ModePrior"]

State = dict[str, Tensor]


class ModeMoments(NamedTuple):
    """What the other updates read of one mode."""

    mean: Float[Tensor, "D R"]
    covariance: Float[Tensor, "D R R"]


class ModePrior:
    """Prior of one mode: a component-batched Markov kernel on a sorted grid.

    Args:
        kernel: kernel with ``batch_shape = [R]`` (one set of hyper-parameters a component).
        grid: (D,) sorted internal coordinates.
    """

    def __init__(self, kernel: MarkovKernel, grid: Float[Tensor, " D"]) -> None:
        self.kernel, self.grid = kernel, grid
        self.rank = int(kernel.batch_shape[0])

    def parameters(self) -> State:
        """Raw kernel hyper-parameters by name."""
        return {name: p.detach().clone() for name, p in self.kernel.named_parameters()}

    def load(self, parameters: State) -> None:
        """Set the kernel's raw hyper-parameters."""
        with torch.no_grad():
            for name, parameter in self.kernel.named_parameters():
                parameter.copy_(parameters[name])

    def log_prior(self) -> Tensor:
        """Log density of the hyper-priors registered on the kernel."""
        total = self.grid.new_zeros(())
        for _, module, prior, closure, _ in self.kernel.named_priors():
            total = total + prior.log_prob(closure(module)).sum()
        return total

    def stacked(self, grid: Tensor | None = None) -> tuple[Transitions, Tensor]:
        """All components as one process of dimension n: transitions and ``H`` (R, n)."""
        transitions = self.kernel.transitions(self.grid if grid is None else grid)
        return stack_batch(transitions), self._outputs()

    def chain(self, times: Float[Tensor, "Q T"]) -> Transitions:
        """Stacked transitions over a batch of short chains, ``(Q, T, n, n)``."""
        batched = self.kernel.transitions(
            times.unsqueeze(0).expand(self.rank, -1, -1).movedim(0, 1)
        )
        return stack_batch(batched)

    def posterior(self, sites: Sites) -> Posterior:
        """Posterior marginals of the stacked state given sites on the R components."""
        transitions, H = self.stacked()
        return smooth(transitions, H, sites)

    def learn(self, sites: Sites, max_iterations: int) -> bool:
        """Raise ``log Z + log prior`` over the hyper-parameters; False if no step was taken.

        A few L-BFGS iterations with a strong Wolfe line search. A step that ends lower, or breaks
        down numerically, is taken back.
        """
        parameters = [p for p in self.kernel.parameters() if p.requires_grad]
        if not parameters:
            return False
        before = [p.detach().clone() for p in parameters]
        optimizer = torch.optim.LBFGS(
            parameters, lr=0.5, max_iter=max_iterations, line_search_fn="strong_wolfe"
        )
        values: list[float] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            if not all(bool(torch.isfinite(p).all()) for p in parameters):
                raise NumericalError("the line search left the finite numbers")
            loss = -self._objective(sites)
            loss.backward()
            values.append(float(loss.detach()))
            return loss

        improved = self._step(optimizer, closure)
        with torch.no_grad():
            final = -float(self._objective(sites)) if improved else float("inf")
            accepted = final <= values[0]
            if not accepted:
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
        for parameter in parameters:
            parameter.grad = None
        return accepted

    def expected_squares(self, posterior: Posterior) -> Float[Tensor, " R"]:
        """``E[z_r' J_r z_r]`` for each component, J_r its prior precision."""
        transitions = self.kernel.transitions(self.grid)
        states = transitions.A.shape[-1]
        diagonal, lower, _ = prior_precision(transitions)
        second = _component_blocks(
            posterior.covariance + _outer(posterior.mean, posterior.mean), self.rank, states
        )
        total = (diagonal * second).sum((-3, -2, -1))
        if self.grid.shape[0] > 1:
            cross = posterior.cross + _outer(posterior.mean[1:], posterior.mean[:-1])
            pairs = _component_blocks(cross, self.rank, states)
            total = total + 2 * (lower * pairs).sum((-3, -2, -1))
        return total

    def _objective(self, sites: Sites) -> Tensor:
        """``log Z``, from the components' own precisions where these are accurate."""
        transitions, H = self.kernel.transitions(self.grid), self._outputs()
        if choose_method(transitions).method != "information":
            chain = stack_batch(transitions)
            return log_normalizer_of_chain(chain, H, sites, "parallel") + self.log_prior()
        prior = prior_precision(transitions)
        blocks = stack_batch(Transitions(prior.diagonal, prior.diagonal)).A
        lower = stack_batch(Transitions(prior.lower, prior.lower)).A
        diagonal = blocks + H.mT @ sites.precision @ H
        evidence = log_normalizer(diagonal, lower, sites.linear @ H)
        return 0.5 * prior.logdet.sum() + evidence + self.log_prior()

    def _outputs(self) -> Float[Tensor, "R n"]:
        return block_diagonal(list(self.kernel.output_map()))

    def _step(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> bool:
        try:
            optimizer.step(closure)  # type: ignore[arg-type]
        except (NumericalError, torch.linalg.LinAlgError):
            return False  # the caller restores the parameters and reports the failed step
        return all(bool(torch.isfinite(p).all()) for p in self.kernel.parameters())


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None] * b[..., None, :]


def _component_blocks(matrix: Tensor, rank: int, states: int) -> Tensor:
    """Diagonal blocks (R, T, s, s) of stacked (T, R s, R s) matrices."""
    blocks = matrix.reshape(matrix.shape[0], rank, states, rank, states)
    return torch.diagonal(blocks, dim1=1, dim2=3).movedim(-1, 0)
