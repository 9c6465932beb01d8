"""A point estimate: values by site without any uncertainty, and not called a posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.protocols import State
from probkit.infer.registry import register

__all__ = ["PointEstimate"]


@register("probkit.infer.PointEstimate")
class PointEstimate:
    """Values by site name. It takes the place of a posterior in a result, but has no spread.

    Args:
        values: by site, ``(*event)``.

    Example:
        >>> PointEstimate({"x": torch.tensor(2.0)}).point()["x"]
        tensor(2.)
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        self.values = dict(values)

    def point(self) -> dict[str, Tensor]:
        """The values."""
        return dict(self.values)

    def mean(self) -> dict[str, Tensor]:
        """Refused: see :meth:`point`.

        Raises:
            ConfigurationError: always.
        """
        self._refuse("mean")

    def sd(self) -> dict[str, Tensor]:
        """Refused: a point has no spread.

        Raises:
            ConfigurationError: always.
        """
        self._refuse("sd")

    def quantile(self, q: float | Sequence[float]) -> dict[str, Tensor]:
        """Refused: a point has no spread.

        Raises:
            ConfigurationError: always.
        """
        self._refuse("quantile")

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Refused: a point has no draws.

        Raises:
            ConfigurationError: always.
        """
        self._refuse("sample")

    def datatree_groups(
        self, num_samples: int, generator: torch.Generator
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[str]], dict[str, list[Any]]]:
        """One group, ``point_estimate``, and none called ``posterior``."""
        values = {name: value[None, None] for name, value in self.values.items()}
        return {"point_estimate": values}, {}, {}

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        return {"sites": sorted(self.values)}

    def tensors(self) -> State:
        """The values, by prefixed site name."""
        return {f"point.{name}": value for name, value in self.values.items()}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> PointEstimate:
        """Rebuild from a manifest's spec and the saved tensors."""
        return cls({name: tensors[f"point.{name}"] for name in spec["sites"]})

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigurationError(
            message(
                f"A point estimate has no {what}",
                remedy="use posterior.point(), or fit with Laplace, SVI or HMC for uncertainty",
            )
        )
