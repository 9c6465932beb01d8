"""The posterior of a fit by a guide that is known by itself: fresh draws, also after loading."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probkit.infer.flat_guides import FlatGuide
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
    """

    def __init__(self, draws: dict[str, Tensor], guide: FlatGuide) -> None:
        super().__init__(draws)
        self.guide = guide

    def sample(self, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh draws of the guide, (num_samples, *event) by site."""
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
        return cls(draws, FlatGuide.from_spec(spec["guide"], state))


def posterior_of(draws: dict[str, Tensor], guide: Any) -> DrawsPosterior:
    """The posterior of a variational fit: with its guide, if that is known by itself."""
    return GuidePosterior(draws, guide) if isinstance(guide, FlatGuide) else DrawsPosterior(draws)
