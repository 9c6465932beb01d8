"""The posterior of the coefficients given their scales: Gaussian, exact, never densified.

Mean, variances and draws cost one pass over the kept slices. Draws are made by perturbation: with
x0 ~ prior and e0 ~ noise, ``mean + x0 - g o A^H C^-1 (A x0 + e0)`` has the posterior's law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probkit.infer.registry import register
from probkit.linalg.kronecker_gaussian import condition, posterior_variance
from probkit.linalg.mode_products import mode_products, outer
from probkit.sparse.problem import scatter_grid
from probkit.validation import check_levels, check_quantile

__all__ = ["SparsePosterior"]

_LISTS = ("factors", "scales", "index", "inclusion")


@register("probkit.sparse.SparsePosterior")
class SparsePosterior:
    """Posterior of ``x`` of B problems; moments are shaped (*batch, [snapshots,] N_1, ..., N_I).

    Complex coefficients are circular: ``sd`` is the root of the total variance, real and imaginary
    parts have ``sd / sqrt(2)`` each, and a quantile is that of both parts.

    Args:
        factors: kept columns, (B, M_k, n_k).
        scales: their scales, (B, n_k), zero where padded.
        index: their numbers in the dictionary, (B, n_k).
        noise: noise variance, (B).
        mean_grid: (B, L, N_1, ..., N_I).
        log_evidence: (B).
        inclusion: probability of each slice, (B, N_k).
        layout: batch shape, whether there are snapshots, order and sizes.
    """

    def __init__(
        self,
        *,
        factors: list[Tensor],
        scales: list[Tensor],
        index: list[Tensor],
        noise: Tensor,
        mean_grid: Tensor,
        log_evidence: Tensor,
        inclusion: list[Tensor],
        layout: dict[str, Any],
    ) -> None:
        self.factors, self.scales, self.index = factors, scales, index
        self.noise, self.mean_grid, self.log_evidence = noise, mean_grid, log_evidence
        self.inclusion, self.layout = inclusion, layout
        self._variance: Tensor | None = None

    @property
    def is_complex(self) -> bool:
        return self.mean_grid.is_complex()

    def mean(self) -> dict[str, Tensor]:
        return {"x": self._shape(self.mean_grid)}

    def sd(self) -> dict[str, Tensor]:
        return {"x": self.variance().sqrt()}

    def variance(self) -> Tensor:
        """Posterior variances, of the shape of the mean; zero for atoms that were dropped."""
        if self._variance is None:
            kept = posterior_variance(self.factors, self.scales, self.noise).unsqueeze(1)
            sizes = self.layout["sizes"]
            self._variance = scatter_grid(kept, self.scales, self.index, sizes)
        full = self._variance.expand(self.mean_grid.shape)
        return self._shape(full)

    def quantile(self, q: float | Sequence[float]) -> dict[str, Tensor]:
        """Quantiles of every coefficient, of both parts if complex; a sequence adds a leading
        dimension.

        Raises:
            ConfigurationError: a level that is no probability strictly between 0 and 1.
        """
        levels = torch.as_tensor(
            check_quantile("q", q), dtype=self.noise.dtype, device=self.noise.device
        )
        z = torch.special.ndtri(levels).reshape(*levels.shape, *[1] * self.mean()["x"].dim())
        mean, sd = self.mean()["x"], self.sd()["x"]
        if self.is_complex:
            return {"x": mean + z * sd / math.sqrt(2) * (1 + 1j)}
        return {"x": mean + z * sd}

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Central credible interval of every coefficient (of both parts, if complex).

        Raises:
            ConfigurationError: an impossible level.
        """
        (level,) = check_levels("level", [level])
        both = self.quantile([(1 - level) / 2, (1 + level) / 2])["x"]
        return both[0], both[1]

    def inclusion_probability(self) -> Tensor:
        """Probability that an atom is in the support, (*batch, N_1, ..., N_I), given the others."""
        return self._reshape(outer(self.inclusion))

    def support(self) -> Tensor:
        """Which atoms have a positive scale, (*batch, N_1, ..., N_I)."""
        kept = outer(self.scales).unsqueeze(1)
        full = scatter_grid(kept, self.scales, self.index, self.layout["sizes"])
        return self._reshape(full[:, 0] > 0)

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Joint draws, ``(num_samples, *mean.shape)``."""
        num_columns = self.mean_grid.shape[1]
        root = outer(self.scales).sqrt().unsqueeze(1)
        kept, rows = root.shape[2:], [a.shape[-2] for a in self.factors]
        b = self.mean_grid.shape[0]
        options: dict[str, Any] = {
            "generator": generator,
            "dtype": self.mean_grid.dtype,
            "device": root.device,
        }
        x = root * torch.randn(b, num_samples * num_columns, *kept, **options)
        e = torch.randn(b, num_samples * num_columns, *rows, **options)
        noise = self.noise.reshape(b, *[1] * (e.dim() - 1))
        y = mode_products(x, self.factors) + noise.sqrt() * e
        difference = x - condition(self.factors, self.scales, self.noise, y).mean
        full = scatter_grid(difference, self.scales, self.index, self.layout["sizes"])
        draws = full.reshape(b, num_samples, num_columns, *full.shape[2:]).transpose(0, 1)
        draws = draws + self.mean_grid
        return {"x": torch.stack([self._shape(d) for d in draws])}

    def predict(self) -> Tensor:
        """The noiseless measurements at the mean, (*batch, [snapshots,] M_1, ..., M_I)."""
        y = mode_products(_mean_of_kept(self), self.factors)
        columns = y.shape[1:2] if self.layout["snapshots"] else ()
        return y.reshape(*self.layout["batch"], *columns, *self.layout["rows"])

    def spec(self) -> dict[str, Any]:
        complex_parts = [name for name, t in self._parts().items() if t.is_complex()]
        counts = {"num_factors": len(self.factors), "complex": complex_parts}
        return {"layout": self.layout, **counts}

    def tensors(self) -> dict[str, Tensor]:
        """Real ones; complex ones have a last dimension of real and imaginary part."""
        parts = self._parts().items()
        return {n: torch.view_as_real(t) if t.is_complex() else t for n, t in parts}

    def _parts(self) -> dict[str, Tensor]:
        found = {
            "noise": self.noise,
            "mean_grid": self.mean_grid,
            "log_evidence": self.log_evidence,
        }
        for name in _LISTS:
            found |= {f"{name}_{k}": value for k, value in enumerate(getattr(self, name))}
        return found

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: dict[str, Tensor]) -> SparsePosterior:
        """The posterior from its spec and tensors."""
        # not a view: a file's memory need not be aligned as complex products want it
        joined = {n: torch.complex(*tensors[n].unbind(-1)) for n in spec["complex"]}
        tensors = {**tensors, **joined}
        single: dict[str, Any] = {n: tensors[n] for n in ("noise", "mean_grid", "log_evidence")}
        count = range(spec["num_factors"])
        lists: dict[str, Any] = {n: [tensors[f"{n}_{k}"] for k in count] for n in _LISTS}
        return cls(**single, **lists, layout=spec["layout"])

    def _shape(self, grid: Tensor) -> Tensor:
        """(B, L, ...) to the user's (*batch, [L,] ...)."""
        return self._reshape(grid if self.layout["snapshots"] else grid.squeeze(1))

    def _reshape(self, grid: Tensor) -> Tensor:
        columns = grid.shape[1 : grid.dim() - len(self.layout["sizes"])]
        return grid.reshape(*self.layout["batch"], *columns, *self.layout["shape"])


def _mean_of_kept(posterior: SparsePosterior) -> Tensor:
    """The mean on the kept slices, (B, L, n_1, ..., n_I), zero where padded."""
    b, num_columns = posterior.mean_grid.shape[:2]
    out = []
    for i in range(b):
        part = posterior.mean_grid[i]
        for k, index in enumerate(posterior.index):
            part = part.index_select(k + 1, index[i])
        out.append(part * (outer([g[i] for g in posterior.scales]) > 0))
    return torch.stack(out).reshape(b, num_columns, *out[0].shape[1:])
