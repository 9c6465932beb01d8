"""One mode of the functional Tucker model: R Markov GPs on a grid, updated as one block.

Given sites ``exp(eta_i' u_i - u_i' Lambda_i u_i / 2)`` at the grid points (sums of the entries'
messages), the posterior of the mode's paths is a block-tridiagonal Gaussian. Its evidence
``log Z(theta)`` with the sites fixed is the ELBO as a function of the mode's kernel
hyper-parameters, so maximising it over theta and then taking the posterior can only raise the ELBO.

Kernel hyper-parameters live in the state as ``<prefix>kernel.<name>`` raw tensors; the kernel
module is a function of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import Parameter

from probkit.errors import NumericalError
from probkit.kernels import MarkovKernel
from probkit.linalg.log_normalizer import log_normalizer
from probkit.statespace.information import (
    PriorPrecision,
    prior_precision,
    smooth_with_precision,
)
from probkit.statespace.smoother import choose_method, smooth
from probkit.statespace.smoother import log_normalizer as log_normalizer_of_chain
from probkit.statespace.stacking import block_diagonal, stack_batch
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = ["BOUNDS", "ModeMoments", "ModePrior", "scaled_sites"]

State = dict[str, Tensor]

BOUNDS = (1e-4, 20.0)
"""range of learned lengthscales and periods, in units of the mode's range"""
_LOG_BOUNDS = (math.log(BOUNDS[0]), math.log(BOUNDS[1]))
_LOG_SCALES = (-math.log(1e3), math.log(1e3))


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
        self._fixed: _Fixed | None = None

    def parameters(self) -> State:
        """Raw kernel hyper-parameters by name."""
        return {name: p.detach().clone() for name, p in self.kernel.named_parameters()}

    def load(self, parameters: State) -> None:
        """Set the kernel's raw hyper-parameters."""
        self._fixed = None
        with torch.no_grad():
            for name, parameter in self.kernel.named_parameters():
                parameter.copy_(parameters[name])

    def log_prior(self) -> Tensor:
        """Log density of the hyper-priors registered on the kernel, as densities of log values.

        The maximum over a lengthscale's logarithm and over itself differ; that of the logarithm of
        a log-normal variable is its median, the other lies far below it.
        """
        total = self.grid.new_zeros(())
        for _, module, prior, closure, _ in self.kernel.named_priors():
            value = closure(module)
            total = total + (prior.log_prob(value) + value.log()).sum()
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

    @torch.no_grad()
    def posterior(self, sites: Sites) -> Posterior:
        """Posterior marginals of the stacked state given sites on the R components."""
        if self.fixed.precision is not None:
            return smooth_with_precision(self.fixed.precision, self.fixed.H, sites)
        return smooth(stack_batch(self.kernel.transitions(self.grid)), self.fixed.H, sites)

    @property
    def fixed(self) -> _Fixed:
        """What depends on the hyper-parameters alone, computed once for given ones."""
        if self._fixed is None:
            with torch.no_grad():
                transitions, precision = self.kernel.transitions(self.grid), None
                if choose_method(transitions).method == "information":
                    precision = _stack_precision(prior_precision(transitions))
                self._fixed = _Fixed(precision, self._outputs(), self.log_prior())
        return self._fixed

    def learn(
        self,
        sites: Sites,
        max_iterations: int,
        count: Float[Tensor, " R"],
        weight: Float[Tensor, " R"],
    ) -> Float[Tensor, " R"] | None:
        """Raise the ELBO over hyper-parameters and component scales; None if no step was taken.

        With u_r = c_r v_r and W_r -> c_r W_r the function stays as it is, and the ELBO in terms
        of kernel and scales is ``log Z(theta; C Lambda C, C eta) + sum_r count_r log c_r - weight_r
        (c_r^2 - 1) / 2 + log prior``, where ``count_r`` weights of the slice have ``weight_r = sum
        alpha E[W^2]``. Lengthscale and variance of a path are known together far less well than one
        given the other, so that taking them in turn would creep.

        A few iterations of L-BFGS-B on the log scale, lengthscales within ``BOUNDS`` in internal
        units: beyond them a factor is white noise or a polynomial, the likelihood flat. A step
        that ends lower, or breaks down numerically, is taken back.

        Returns:
            The scales c_r; the kernel holds the new hyper-parameters.
        """
        parameters = [p for p in self.kernel.parameters() if p.requires_grad]
        if not parameters:
            return None
        self._fixed = None
        log_scales = torch.zeros_like(count, requires_grad=True)
        unknowns = [*parameters, log_scales]
        before = torch.cat([p.detach().reshape(-1) for p in unknowns])
        num_scales = log_scales.numel()
        bounds = [_LOG_BOUNDS] * (before.numel() - num_scales) + [_LOG_SCALES] * num_scales
        start = before.cpu().numpy().clip(*np.array(bounds).T)

        def loss_and_gradient(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            _assign(unknowns, torch.as_tensor(values))
            scales = log_scales.exp()
            change = count * log_scales - 0.5 * weight * (scales.square() - 1)
            loss = -self._objective(scaled_sites(sites, scales)) - change.sum()
            gradients = torch.autograd.grad(loss, unknowns)
            flat = torch.cat([g.reshape(-1) for g in gradients])
            return float(loss.detach()), flat.cpu().numpy()

        try:
            first, _ = loss_and_gradient(before.cpu().numpy())
            found = minimize(
                loss_and_gradient,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"maxiter": max_iterations, "maxfun": 2 * max_iterations},
            )
            accepted = bool(found.fun < first)
            _assign(unknowns, torch.as_tensor(found.x) if accepted else before)
        except (NumericalError, torch.linalg.LinAlgError):
            _assign(unknowns, before)
            return None
        return log_scales.detach().exp() if accepted else None

    def expected_squares(
        self, sites: Sites, rows: Float[Tensor, "D R"], second: Float[Tensor, "D R R"]
    ) -> Float[Tensor, " R"]:
        """``E[z_r' J_r z_r]`` for each component r, J_r its prior precision.

        With the posterior precision ``J = J_0 + H' Lambda H`` and ``J m = H' eta`` this is
        ``s D - sum_i [Lambda_i E u_i u_i']_rr + sum_i m_ir eta_ir``: the prior precision, which
        loses digits for close points, is not needed.
        """
        states = self.kernel.state_dimension * self.grid.shape[0]
        informed = (sites.precision * second.mT).sum((0, 2))
        return states - informed + (rows * sites.linear).sum(0)

    def _objective(self, sites: Sites) -> Tensor:
        """``log Z``, from the components' own precisions where these are accurate."""
        transitions, H = self.kernel.transitions(self.grid), self._outputs()
        if choose_method(transitions).method != "information":
            chain = stack_batch(transitions)
            return log_normalizer_of_chain(chain, H, sites, "parallel") + self.log_prior()
        prior = _stack_precision(prior_precision(transitions))
        diagonal = prior.diagonal + H.mT @ sites.precision @ H
        evidence = log_normalizer(diagonal, prior.lower, sites.linear @ H)
        return 0.5 * prior.logdet + evidence + self.log_prior()

    def _outputs(self) -> Float[Tensor, "R n"]:
        return block_diagonal(list(self.kernel.output_map()))


def scaled_sites(sites: Sites, scales: Float[Tensor, " R"]) -> Sites:
    """Sites on v where those on ``u_r = scales_r v_r`` are given."""
    precision = sites.precision * (scales[:, None] * scales)
    return Sites(precision, sites.linear * scales, sites.log_scale)


class _Fixed(NamedTuple):
    precision: PriorPrecision | None
    """of all components stacked; None where the information form is not accurate"""
    H: Tensor
    log_prior: Tensor


def _stack_precision(prior: PriorPrecision) -> PriorPrecision:
    """Components' precisions (R, T, s, s) as one block-diagonal process."""
    diagonal = stack_batch(Transitions(prior.diagonal, prior.diagonal)).A
    lower = stack_batch(Transitions(prior.lower, prior.lower)).A
    return PriorPrecision(diagonal, lower, prior.logdet.sum())


def _assign(parameters: list[Parameter], values: Tensor) -> None:
    """Copy a flat vector into the parameters."""
    position = 0
    with torch.no_grad():
        for parameter in parameters:
            size = parameter.numel()
            parameter.copy_(values[position : position + size].reshape(parameter.shape))
            position += size
