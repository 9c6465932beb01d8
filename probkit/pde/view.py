"""What the solutions of forward and inverse problems have in common: a view on a fit's result."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ExtrapolationWarning, ShapeError, message
from probkit.infer import FitResult
from probkit.pde.door import check_derivative
from probkit.validation import as_real, check_finite

__all__ = ["SolutionView"]

_BESIDE = 1e-6  # of a side: float32 points of the ends lie inside


class SolutionView:
    """A view on a :class:`probkit.infer.FitResult` whose posterior has the sides of a box.

    Args:
        result: of a solver's ``fit``, or loaded.
    """

    _posteriors: ClassVar[tuple[type, ...]] = ()
    """classes of posteriors that it can show"""

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
        """Read a saved solution.

        Raises:
            CheckpointError: missing or damaged files, or the result of another model.
        """
        return cls(FitResult.load(directory, expect=cls._posteriors))

    @property
    def _sides(self) -> list[Any]:
        """Features of every dimension."""
        posterior: Any = self.result.posterior
        return list(posterior.sides)

    def _orders(self, derivative: Any) -> tuple[int, ...] | None:
        """Orders of a derivative, one a dimension.

        Raises:
            ConfigurationError: not one integer >= 0 a dimension.
        """
        return check_derivative(derivative, len(self._sides))

    def _points(self, x: Any) -> Float[Tensor, "n d"]:
        """Points as a float64 matrix; a vector is taken as points of one dimension.

        Raises:
            ShapeError, DtypeError, DataError: not real, finite points of this many dimensions.

        Warns:
            ExtrapolationWarning: points outside the box.
        """
        dim = len(self._sides)
        points = as_real(x, "x").to(torch.float64)
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
        check_finite(points, "x")
        self._tell_outside(list(points.unbind(1)))
        return points

    def _tell_outside(self, columns: Sequence[Float[Tensor, " n"]]) -> None:
        """Warn of coordinates outside their sides; a periodic side has no outside."""
        for axis, (side, x) in enumerate(zip(self._sides, columns, strict=True)):
            place = (x - side.origin) / side.length
            outside = int(((place < -_BESIDE) | (place > 1 + _BESIDE)).sum())
            if outside and side.period > side.length:
                warnings.warn(
                    f"x: {outside} of {len(x)} coordinates of axis {axis} lie outside the box, "
                    f"[{side.origin:g}, {side.origin + side.length:g}]: neither mean nor sd is to "
                    "be relied on there.",
                    ExtrapolationWarning,
                    stacklevel=4,
                )
                return
