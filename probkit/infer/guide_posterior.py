"""The posterior of a fit by a guide that is known by itself: fresh draws, also after loading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probkit.infer.flat_guides import FlatGuide
from probkit.infer.point_estimate import PointEstimate
from probkit.infer.posterior import DrawsPosterior
from probkit.infer.protocols import State
from probkit.infer.registry import register

__all__ = ["GuidePosterior", "posterior_of"]

_GUIDE = "guide."


@register("probkit.infer.GuidePosterior")
class GuidePosterior(DrawsPosterior):
    """Draws for moments and quantiles, and the guide for as many more as are asked for.

    Args:
        draws: (chain, draw, *event) by site.
        guide: the fitted guide.
        dims: names of a site's dimensions, for the data tree.
    """

    def __init__(
        self,
        draws: dict[str, Tensor],
        guide: FlatGuide,
        *,
        dims: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__(draws, dims=dims)
        self.guide = guide

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh draws of the guide, (num_samples, *event) by unknown; no derived sites."""
        return self.guide.draw(num_samples, int(torch.randint(2**62, (), generator=generator)))

    def spec(self) -> dict[str, Any]:
        """What ``from_spec`` needs besides the tensors."""
        return {**super().spec(), "guide": self.guide.spec()}

    def tensors(self) -> State:
        """The draws, and the parameters of the guide."""
        own = {_GUIDE + k: v.detach() for k, v in self.guide.state_dict().items()}
        return super().tensors() | own

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: State) -> GuidePosterior:
        """Rebuild from a manifest's spec and the saved tensors; no model, no data."""
        draws = {name: tensors[f"draws.{name}"] for name in spec["sites"]}
        state = {k.removeprefix(_GUIDE): v for k, v in tensors.items() if k.startswith(_GUIDE)}
        return cls(draws, FlatGuide.from_spec(spec["guide"], state), dims=spec["dims"])


def posterior_of(
    draws: Mapping[str, Tensor], guide: Any, learned: dict[str, Tensor]
) -> DrawsPosterior | PointEstimate:
    """The posterior of a variational fit: with its guide, if that is known by itself.

    A model without unknowns of its own, whose parameters were maximised, has only these.

    Args:
        draws: (draw, *event) by site.
        guide: the fitted guide.
        learned: values of parameters by name.
    """
    if not draws:
        return PointEstimate(learned)
    chain = {name: value[None] for name, value in draws.items()}
    return GuidePosterior(chain, guide) if isinstance(guide, FlatGuide) else DrawsPosterior(chain)
