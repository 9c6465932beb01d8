"""A posterior held as draws: what samplers return, and what variational fits are exported as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.infer.protocols import State
from probkit.infer.registry import register
from probkit.validation import check_quantile

__all__ = ["DrawsPosterior", "as_numbers"]

_AT_ONCE = 1 << 23


@register("probkit.infer.DrawsPosterior")
class DrawsPosterior:
    """Draws by site name, each of shape (chain, draw, *event).

    Args:
        draws: one tensor a site; all share the first two dimensions.
        dims: names of the event dimensions of a site, for the data tree.
        coords: coordinate values of named dimensions.

    Raises:
        ShapeError: sites that disagree in (chain, draw). A model without unknowns has no site.

    Example:
        >>> posterior = DrawsPosterior({"x": torch.arange(4.0).reshape(2, 2)})
        >>> float(posterior.mean()["x"])
        1.5
    """

    def __init__(
        self,
        draws: dict[str, Float[Tensor, "chain draw *event"]],
        *,
        dims: dict[str, list[str]] | None = None,
        coords: dict[str, list[Any]] | None = None,
    ) -> None:
        shapes = {name: tuple(value.shape[:2]) for name, value in draws.items()}
        if len(set(shapes.values())) > 1 or any(len(s) < 2 for s in shapes.values()):
            raise ShapeError(
                message(
                    "Draws must share their (chain, draw) dimensions",
                    where="draws",
                    got=shapes,
                    expected="the same two leading sizes for every site",
                )
            )
        self.draws, self.dims, self.coords = dict(draws), dims or {}, coords or {}

    @property
    def num_chains(self) -> int:
        return next((v.shape[0] for v in self.draws.values()), 0)

    @property
    def num_draws(self) -> int:
        return next((v.shape[1] for v in self.draws.values()), 0)

    def mean(self) -> dict[str, Tensor]:
        """Posterior means by site."""
        return {name: as_numbers(value.flatten(0, 1)).mean(0) for name, value in self.draws.items()}

    def sd(self) -> dict[str, Tensor]:
        """Posterior standard deviations by site."""
        return {name: as_numbers(value.flatten(0, 1)).std(0) for name, value in self.draws.items()}

    def quantile(self, q: float | Sequence[float]) -> dict[str, Tensor]:
        """Quantiles by site; a sequence of levels adds a leading dimension.

        Raises:
            ConfigurationError: a level outside [0, 1].
        """
        given = check_quantile("q", q, ends=True)
        result = {}
        for name, value in self.draws.items():
            flat = as_numbers(value.flatten(0, 1))
            levels = torch.as_tensor(given, dtype=flat.dtype, device=flat.device)
            result[name] = _quantile(flat, levels)
        return result

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Resample draws with replacement, (num_samples, *event) by site."""
        total = self.num_chains * self.num_draws
        if not self.draws:
            return {}
        index = torch.randint(
            0, total, (num_samples,), generator=generator, device=generator.device
        )
        return {n: v.flatten(0, 1)[index.to(v.device)] for n, v in self.draws.items()}

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        return {"sites": sorted(self.draws), "dims": self.dims, "coords": self.coords}

    def tensors(self) -> State:
        """The draws, by prefixed site name."""
        return {f"draws.{name}": value for name, value in self.draws.items()}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> DrawsPosterior:
        """Rebuild from a manifest's spec and the saved tensors."""
        draws = {name: tensors[f"draws.{name}"] for name in spec["sites"]}
        return cls(draws, dims=spec["dims"], coords=spec["coords"])


def _quantile(draws: Tensor, levels: Tensor) -> Tensor:
    """Along the first dimension; some columns at a time, since PyTorch takes 16 million numbers."""
    columns = draws.reshape(len(draws), -1)
    parts = columns.split(max(_AT_ONCE // len(draws), 1), 1)
    found = torch.cat([torch.quantile(part, levels, dim=0) for part in parts], -1)
    return found.reshape((*levels.shape, *draws.shape[1:]))


def as_numbers(draws: Tensor) -> Tensor:
    """Draws that have moments: counts and flags become float64, numbers stay as they are."""
    return draws if draws.is_floating_point() or draws.is_complex() else draws.double()
