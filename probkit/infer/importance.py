"""Importance-corrected estimates of an approximate posterior, and whether they can be had.

Draws z_s ~ q with log weights l_s = log p(x, z_s) - log q(z_s) give, after Pareto smoothing of the
largest weights, self-normalised estimates of any posterior moment and the log evidence
log mean exp l. The fitted shape k-hat says whether the weights have enough moments: below .7 the
corrected estimates can be used (and q is close), above it neither they nor q should be trusted.

Sources: Vehtari, Simpson, Gelman, Yao & Gabry, JMLR 25 (2024); Yao et al., ICML 2018.
Cost: O(S log S) for S draws.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.infer.posterior import as_numbers
from probkit.infer.protocols import State

__all__ = ["K_HAT_LIMIT", "WeightedDraws", "pareto_smooth", "rounding_of_sums"]

K_HAT_LIMIT = 0.7
_MIN_DRAWS = 25


def rounding_of_sums(dtype: torch.dtype) -> float:
    """Relative differences of log densities, which are sums of many terms, that may be rounding."""
    return max(1e-9, 64 * torch.finfo(dtype).eps)


def pareto_smooth(log_weights: Float[Tensor, " draw"]) -> tuple[Float[Tensor, " draw"], float]:
    """Normalised smoothed weights and k-hat.

    k-hat is minus infinity where all weights agree up to rounding (of the input's dtype), infinite
    where some weight is not finite (the approximation reaches beyond the posterior's support, or
    the model breaks down there; such draws get no weight), and NaN below 25 draws.

    Example:
        >>> weights, khat = pareto_smooth(torch.zeros(100, dtype=torch.float64))
        >>> float(weights[0]), khat
        (0.01, -inf)
    """
    values = log_weights.detach().to("cpu", torch.float64)
    finite = values.isfinite()
    if not bool(finite.any()):
        return torch.full_like(values, 1 / len(values)), math.inf
    if not bool(finite.all()):
        lowest = torch.where(finite, values, torch.tensor(-math.inf, dtype=values.dtype))
        return lowest.softmax(0), math.inf
    # rounding differences of an exact approximation are no tail
    spread = float(values.max() - values.min())
    if spread <= rounding_of_sums(log_weights.dtype) * max(float(values.abs().max()), 1.0):
        return torch.full_like(values, 1 / len(values)), -math.inf
    if len(values) < _MIN_DRAWS:
        return values.softmax(0), math.nan
    from arviz_stats.base import array_stats

    # psislw takes the negative of the log weights (a log likelihood, in leave-one-out)
    smoothed, khat = array_stats.psislw(-values.numpy())
    return torch.as_tensor(smoothed, dtype=torch.float64).softmax(0), float(khat)


class WeightedDraws:
    """Draws of an approximation with their importance weights.

    Args:
        draws: by site, ``(draw, *event)``.
        log_weights: log p(x, z) - log q(z) of each draw, not normalised.

    Attributes:
        khat: Pareto shape of the weights.
        weights: normalised smoothed weights, ``(draw,)``.

    Raises:
        ShapeError: a site has another number of draws than there are weights.

    Example:
        >>> z = torch.linspace(-3, 3, 601, dtype=torch.float64)  # drawn evenly, weighed to N(1, 1)
        >>> weighted = WeightedDraws({"z": z}, -((z - 1) ** 2) / 2)
        >>> round(float(weighted.mean()["z"]), 1)
        0.9
    """

    def __init__(
        self, draws: dict[str, Float[Tensor, "draw *event"]], log_weights: Float[Tensor, " draw"]
    ) -> None:
        wrong = {k: tuple(v.shape) for k, v in draws.items() if len(v) != len(log_weights)}
        if wrong:
            raise ShapeError(
                message(
                    "Every draw needs one weight",
                    where="draws",
                    got=wrong,
                    expected=f"{len(log_weights)} draws",
                )
            )
        self.draws, self.log_weights = dict(draws), log_weights
        self.weights, self.khat = pareto_smooth(log_weights)

    def mean(self) -> dict[str, Tensor]:
        """Corrected posterior means by site."""
        return {name: self._average(value) for name, value in self.draws.items()}

    def sd(self) -> dict[str, Tensor]:
        """Corrected posterior standard deviations by site."""
        found = {}
        for name, draws in self.draws.items():
            value = as_numbers(draws)
            away = value - self._average(value)
            found[name] = self._average((away * away.conj()).real).sqrt()
        return found

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draws of the corrected posterior, ``(num_samples, *event)``: resampled by weight."""
        index = torch.multinomial(
            self.weights.to(generator.device), num_samples, replacement=True, generator=generator
        )
        return {name: value[index.to(value.device)] for name, value in self.draws.items()}

    def diagnostics(self) -> dict[str, Any]:
        """``khat``, ``importance_ess``, ``log_evidence`` (corrected) and ``sd_ratio``.

        ``sd_ratio`` is the corrected over the approximation's standard deviation of the scalar
        where they differ most; far from one the approximation's intervals have the wrong width.
        Counts and flags are left out: a rare one has hardly any draws to estimate its spread by.
        """
        logs = self.log_weights.to("cpu", torch.float64)
        finite = logs[logs.isfinite()]
        evidence = float(finite.logsumexp(0)) - math.log(len(logs)) if len(finite) else -math.inf
        return {
            "khat": self.khat,
            "importance_ess": float(1 / self.weights.square().sum()),
            "log_evidence": evidence,
            "sd_ratio": self._sd_ratio(),
        }

    def tensors(self) -> State:
        """The draws, by prefixed site name, and the weights."""
        return {
            "log_weights": self.log_weights,
            **{f"draws.{name}": value for name, value in self.draws.items()},
        }

    @classmethod
    def from_tensors(cls, tensors: State) -> WeightedDraws:
        """Rebuild from :meth:`tensors`."""
        draws = {k.removeprefix("draws."): v for k, v in tensors.items() if k != "log_weights"}
        return cls(draws, tensors["log_weights"])

    def _average(self, value: Tensor) -> Tensor:
        weights = self.weights.to(value.device, value.real.dtype if value.is_complex() else None)
        value = as_numbers(value)
        return torch.einsum("s,s...->...", weights.to(value.dtype), value)

    def _sd_ratio(self) -> float:
        worst = 1.0
        for name, corrected in self.sd().items():
            if not (self.draws[name].is_floating_point() or self.draws[name].is_complex()):
                continue
            own = self.draws[name].to(torch.complex128).std(0).real.to("cpu")
            ratio = (corrected.to("cpu", torch.float64) / own)[own > 0]
            for value in (ratio.max(), ratio.min()) if ratio.numel() else ():
                if abs(math.log(max(float(value), 1e-12))) > abs(math.log(worst)):
                    worst = max(float(value), 1e-12)
        return worst
