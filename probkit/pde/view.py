"""What the solutions of forward and inverse problems have in common: a view on a fit's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.infer import FitResult

__all__ = ["SolutionView"]


class SolutionView:
    """A view on a :class:`probkit.infer.FitResult` whose posterior has the sides of a box.

    Args:
        result: of a solver's ``fit``, or loaded.
    """

    def __init__(self, result: FitResult) -> None:
        self.result = result

    @property
    def status(self) -> Any:
        """How the fit ended."""
        return self.result.status

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Figures of the solve: rank, residuals, flags; of an inverse problem the engine's."""
        return self.result.diagnostics

    def save(self, directory: str | Path) -> Path:
        """Write the result; see :meth:`probkit.infer.FitResult.save`."""
        return self.result.save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read a saved solution."""
        return cls(FitResult.load(directory))

    @property
    def _sides(self) -> list[Any]:
        """Features of every dimension."""
        posterior: Any = self.result.posterior
        return list(posterior.sides)

    def _points(self, x: Any) -> Float[Tensor, "n d"]:
        """Points as a float64 matrix; a vector is taken as points of one dimension."""
        dim = len(self._sides)
        points = torch.as_tensor(x, dtype=torch.float64)
        points = points[:, None] if points.dim() == 1 and dim == 1 else points
        if points.dim() != 2 or points.shape[1] != dim:
            raise ShapeError(
                message(
                    "Points have the wrong shape",
                    where="x",
                    got=tuple(points.shape),
                    expected=f"(n, {dim})",
                )
            )
        return points
