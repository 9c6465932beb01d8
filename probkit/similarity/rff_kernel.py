"""``PrivateRFFKernel``: the kernel that a release of random waves has, for GPyTorch.

    k(x, y) = (1/m) sum_j cos(w_j (x - y) / lengthscale)

GPyTorch's ``RFFKernel`` knows the Gaussian kernel only and draws its waves at the first call from
the global generator. Here all six kernels have waves, drawn from a stored seed, kept in the state
dict, and returned as operators of rank 2m. Cost: O(n m) where GPyTorch uses the low rank.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gpytorch.kernels import Kernel
from linear_operator import LinearOperator
from linear_operator.operators import LowRankRootLinearOperator, MatmulLinearOperator
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.similarity.feature_kde import FeatureKDE
from probkit.similarity.release import Release
from probkit.similarity.spectral_laws import law_of
from probkit.validation import check_whole

__all__ = ["PrivateRFFKernel"]


class PrivateRFFKernel(Kernel):
    """Random-feature kernel of a similarity, with stored waves.

    Nothing in it is private: waves, seed and lengthscale are public.

    Args:
        dim: number of coordinates.
        kernel: a name of ``KERNELS``.
        num_features: m waves, 2m features.
        seed: of the waves.
        arguments: of ``gpytorch.kernels.Kernel``.

    Raises:
        ConfigurationError: an unknown kernel, or a size out of range.

    Example:
        >>> kernel = PrivateRFFKernel(2, "laplacian", num_features=500).double()
        >>> kernel.lengthscale = 1.0
        >>> x = torch.tensor([[0.0, 0.0], [0.3, -0.2]], dtype=torch.float64)
        >>> bool(abs(kernel(x).to_dense()[0, 1] - math.exp(-0.5)) < 0.1)
        True
    """

    has_lengthscale = True
    waves: Tensor

    def __init__(
        self,
        dim: int,
        kernel: str = "gaussian",
        *,
        num_features: int = 512,
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        check_whole("dim", dim, 1, 2**16)
        check_whole("num_features", num_features, 1, 2**20)
        waves = law_of(kernel, dim=dim, num=num_features, seed=seed).waves
        self.register_buffer("waves", waves)

    @classmethod
    def of_release(cls, release: Release) -> PrivateRFFKernel:
        """The kernel whose sums a release answers, float64, at its bandwidth.

        Raises:
            ConfigurationError: not a release of random waves with one bandwidth.
        """
        design = release.design
        if not isinstance(design, FeatureKDE) or len(design.bandwidths) != 1:
            raise ConfigurationError(
                message(
                    "Only releases of random waves with one bandwidth have such a kernel",
                    where="release",
                    got=design.kind,
                )
            )
        kernel = cls(design.dim, num_features=design.num_features).double()
        kernel.waves = design.waves.frequencies * design.bandwidths[0]
        kernel.lengthscale = design.bandwidths[0]
        return kernel

    def features(self, x: Tensor) -> Tensor:
        """(..., N, 2m) features whose products are the kernel."""
        angle = (x / self.lengthscale) @ self.waves.to(x).mT
        return torch.cat([angle.cos(), angle.sin()], -1) / math.sqrt(len(self.waves))

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any
    ) -> LinearOperator | Tensor:
        if diag:
            return (self.features(x1) * self.features(x2)).sum(-1)
        if x1.shape == x2.shape and torch.equal(x1, x2):
            return LowRankRootLinearOperator(self.features(x1))
        return MatmulLinearOperator(self.features(x1), self.features(x2).mT)
