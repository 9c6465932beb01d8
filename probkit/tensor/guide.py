"""A guide for the functional Tucker model whose factors are Gaussian processes like their priors.

    q(u^k_r) propto GP(u; 0, kappa_k) prod_i exp(-p_i (u_i - m_i)^2 / 2)    p_i > 0, m_i learned
    q(W, b) = Normal with a full covariance,  q(tau) = Gamma,  q(df), q(dispersion) = LogNormal

A Gaussian posterior of a path given scalar information at each point has this form exactly, so
2 D_k parameters a component give the optimal covariance, D_k^2 numbers wide, at O(D_k) cost
(Khan & Lin, AISTATS 2017; Chang et al., MLSP 2020). Components of one mode are independent in q,
where the coordinate updates of ``FunctionalTucker`` keep their correlations; at rank one both
families are the same. Sites are learned as pseudo-observations m and log p rather than as natural
parameters (p m, p), since the former do not grow with the data and Adam's steps suit them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int64
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints

from probkit.distributions import MarkovGaussianProcess
from probkit.kernels import MarkovKernel
from probkit.random import Seed, as_generator
from probkit.statespace.types import Sites
from probkit.tensor.model import core_shape
from probkit.tensor.starting import smooth_draws

__all__ = ["MarkovGuide"]

_START_PRECISION = 30.0
_START_SD = 0.1


class MarkovGuide(PyroModule):
    """Guide of :func:`probkit.tensor.model.functional_tucker_model`, for ``probkit.infer.SVI``.

    It needs no run on data before its parameters exist, and works with vectorised particles.

    Args:
        grids, kernels, structure, likelihood: as given to the model; the kernels must be the same
            objects, so that learned parameters are those of prior and guide alike.
        num_entries: N, sets where the posterior of the noise precision starts.
        generator: seed or generator of the starting curves, which must differ between components.

    Example:
        >>> from functools import partial
        >>> from probkit.infer import SVI
        >>> from probkit.kernels import kernel_from_name
        >>> from probkit.tensor.model import functional_tucker_model
        >>> grids = [torch.linspace(0, 1, d, dtype=torch.float64) for d in (4, 5)]
        >>> setting = {
        ...     "grids": grids,
        ...     "kernels": [kernel_from_name("matern32", num_components=1) for _ in grids],
        ... }
        >>> index = torch.cartesian_prod(torch.arange(4), torch.arange(5))
        >>> y = torch.sin(index.sum(1).double())
        >>> engine = SVI(
        ...     steps=10,
        ...     guide=MarkovGuide(num_entries=20, **setting),
        ...     num_posterior_samples=5,
        ...     num_diagnostic_samples=0,
        ... )
        >>> result = engine.fit(partial(functional_tucker_model, **setting), (index, y))
        >>> result.posterior.mean()["factor_1"].shape
        torch.Size([1, 5])
    """

    def __init__(
        self,
        *,
        grids: Sequence[Float[Tensor, " D_k"]],
        kernels: Sequence[MarkovKernel],
        structure: str = "tucker",
        likelihood: str = "gaussian",
        num_entries: int,
        generator: Seed = 0,
    ) -> None:
        super().__init__()
        random = as_generator(generator)
        # tuples, because a kernel that is a submodule would be registered with Pyro on each access
        self._grids, self._kernels = tuple(grids), tuple(kernels)
        ranks = [int(kernel.batch_shape[0]) for kernel in kernels]
        self._core_shape = core_shape(ranks, structure)
        self._likelihood = likelihood
        for k, (grid, rank) in enumerate(zip(grids, ranks, strict=True)):
            start = smooth_draws(grid, rank, structure, random).to(grid).mT.contiguous()
            setattr(self, f"target_{k}", PyroParam(start))
            precision = torch.full_like(start, _START_PRECISION)
            setattr(self, f"precision_{k}", PyroParam(precision, constraints.positive))
        self._start_core(torch.Size(self._core_shape).numel(), grids[0], structure, random)
        self._start_noise(num_entries, grids[0])

    def factor(self, k: int) -> MarkovGaussianProcess:
        """The law of mode k's components: mean and variance are (R_k, D_k)."""
        precision = getattr(self, f"precision_{k}")
        linear = precision * getattr(self, f"target_{k}")
        scale = linear.new_zeros(linear.shape[0])
        sites = Sites(precision[..., None, None], linear[..., None], scale)
        return MarkovGaussianProcess(self._kernels[k], self._grids[k], sites=sites)

    def forward(
        self, index: Int64[Tensor, "N K"], y: Float[Tensor, " N"] | None, **settings: object
    ) -> None:
        """Draw all unknowns; the data and further settings of the model do not matter."""
        for k, kernel in enumerate(self._kernels):
            with pyro.plate(f"components_{k}", kernel.batch_shape[0], dim=-1):
                pyro.sample(f"factor_{k}", self.factor(k))
        weights = pyro.sample(
            "core_and_intercept",
            dist.MultivariateNormal(self.core_mean, scale_tril=self.core_scale),
            infer={"is_auxiliary": True},
        )
        core = weights[..., :-1].unflatten(-1, self._core_shape)
        pyro.sample("core", dist.Delta(core, event_dim=len(self._core_shape)))
        pyro.sample("intercept", dist.Delta(weights[..., -1]))
        if self._likelihood in ("gaussian", "student_t"):
            pyro.sample("tau", dist.Gamma(self.tau_shape, self.tau_rate))
        for name in self._positive_sites():
            loc, sd = getattr(self, f"{name}_loc"), getattr(self, f"{name}_sd")
            pyro.sample(name, dist.LogNormal(loc, sd))

    def _start_core(self, size: int, like: Tensor, structure: str, random: torch.Generator) -> None:
        """Small random weights for Tucker and ones for CP, as the coordinate updates start."""
        noise = torch.randn(size, generator=random, dtype=like.dtype, device=random.device)
        core = 0.3 * noise.to(like) if structure == "tucker" else like.new_ones(size)
        self.core_mean = PyroParam(torch.cat([core, like.new_zeros(1)]))
        root = _START_SD * torch.eye(size + 1, dtype=like.dtype, device=like.device)
        self.core_scale = PyroParam(root, constraints.lower_cholesky)

    def _start_noise(self, num_entries: int, like: Tensor) -> None:
        if self._likelihood in ("gaussian", "student_t"):
            # the conjugate update's shape; the rate says that nothing is explained yet
            shape = like.new_tensor(1 + num_entries / 2)
            self.tau_shape = PyroParam(shape, constraints.positive)
            self.tau_rate = PyroParam(shape.clone(), constraints.positive)
        for name in self._positive_sites():
            setattr(self, f"{name}_loc", PyroParam(like.new_tensor(10.0).log()))
            sd = PyroParam(like.new_tensor(0.3), constraints.positive)
            setattr(self, f"{name}_sd", sd)

    def _positive_sites(self) -> tuple[str, ...]:
        extra = {"student_t": ("df",), "negative_binomial": ("dispersion",)}
        return extra.get(self._likelihood, ())
