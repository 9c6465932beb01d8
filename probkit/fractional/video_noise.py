"""The driving noise of a latent video: Markov-approximate fractional, or Brownian.

Both are K processes that share one white noise a coordinate, with exact steps; Brownian motion is
the case K = 1 with rate 0 and weight 1, which starts at 0. Rates, weights and step matrices are
computed in float64 on the CPU and then take the states' dtype and device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probkit.errors import ConfigurationError, message
from probkit.sde.exact import StepMatrices, step_matrices
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_l2 import geometric_rates
from probkit.statespace.fractional_tables import HURST_RANGE

__all__ = ["LatentNoise", "NoiseTerms"]


class NoiseTerms(NamedTuple):
    """What the steps of a path need, in the dtype of its states.

    Attributes:
        matrices: of an exact step.
        weights: of the modes, (K,).
        slope: sd of the static slope, ().
        start_root: root of the covariance of Y(0), (K, K).
        along: direction in white noise that moves the path, ``R'w / |R'w|``, (K,).
        fresh_sd: ``|R'w|``, how far the white noise of a step moves the path, ().
        scale: stationary sd of the modes, by which networks see them, (K,).
    """

    matrices: StepMatrices
    weights: Float[Tensor, " K"]
    slope: Tensor
    start_root: Float[Tensor, "K K"]
    along: Float[Tensor, " K"]
    fresh_sd: Tensor
    scale: Float[Tensor, " K"]


class LatentNoise(nn.Module):
    """Fractional noise with one Hurst index for all coordinates, which can be learned, or Brownian.

    Args:
        kind: "fractional" or "brownian".
        hurst: where the Hurst index starts.
        learn_hurst: whether it is a parameter.
        step: length of a step.
        num_steps: of a path; chooses the table of "law".
        weights: "law", or "l2" with the five published rates, .05 to 20 per unit of time.

    Raises:
        ConfigurationError: an unknown kind.

    Example:
        >>> noise = LatentNoise("fractional", hurst=0.3, step=0.1, num_steps=24)
        >>> noise.size, round(noise.hurst.item(), 6)
        (8, 0.3)
    """

    def __init__(
        self,
        kind: str,
        *,
        hurst: float = 0.5,
        learn_hurst: bool = True,
        step: float = 0.1,
        num_steps: int = 24,
        weights: str = "law",
    ) -> None:
        super().__init__()
        if kind not in ("fractional", "brownian"):
            raise ConfigurationError(
                message(
                    "There is no such noise",
                    where="noise",
                    got=repr(kind),
                    expected='"fractional" or "brownian"',
                )
            )
        self.kind, self.step = kind, step
        self._process: MarkovApproxFBM | None = None
        if kind == "brownian":
            one = torch.ones(1, dtype=torch.float64)
            self._matrices = StepMatrices(step, one, one * step, one[:, None] * step**0.5)
            self.size = 1
            return
        rates = geometric_rates(5, 0.05, 20.0) if weights == "l2" else None
        process = MarkovApproxFBM(hurst, num_steps=num_steps, dt=step, weights=weights, rates=rates)
        self._process, self.size = process, len(process.rates)
        self._matrices = step_matrices(process.rates, step)
        self.raw_hurst: nn.Parameter | None = None
        if learn_hurst:
            low, high = HURST_RANGE
            self.raw_hurst = nn.Parameter(torch.logit((process.hurst - low) / (high - low)))

    @property
    def process(self) -> MarkovApproxFBM | None:
        """The fractional noise at the present Hurst index; None for Brownian motion."""
        if self._process is None or self.raw_hurst is None:
            return self._process
        return self._process.with_hurst(self.hurst)

    @property
    def hurst(self) -> Tensor:
        """The present Hurst index, float64 on the CPU; 1/2 for Brownian motion."""
        if self._process is None:
            return torch.tensor(0.5, dtype=torch.float64)
        if self.raw_hurst is None:
            return self._process.hurst
        low, high = HURST_RANGE
        return low + (high - low) * torch.sigmoid(self.raw_hurst.double().cpu())

    def terms(self, like: Tensor) -> NoiseTerms:
        """Everything a path needs, in dtype and device of ``like``; derivatives in H pass."""
        process, root = self.process, self._matrices.root
        if process is None:
            weights, slope = torch.ones(1, dtype=torch.float64), torch.zeros((), dtype=root.dtype)
            start, scale = torch.zeros_like(root), torch.ones_like(weights)
        else:
            weights, slope = process.weights, process.slope_variance.clamp_min(1e-300).sqrt()
            values, vectors = torch.linalg.eigh(process.initial_covariance)
            start = vectors * values.clamp_min(0).sqrt()
            scale = (2 * process.rates).rsqrt()
        along = root.mT @ weights
        fresh_sd = along.norm()
        matrices = StepMatrices(self.step, *(m.to(like) for m in self._matrices[1:]))
        rest = (
            value.to(like) for value in (weights, slope, start, along / fresh_sd, fresh_sd, scale)
        )
        return NoiseTerms(matrices, *rest)
