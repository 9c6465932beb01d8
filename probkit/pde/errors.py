"""Errors of the solver that keep what was computed."""

from __future__ import annotations

from torch import Tensor

from probkit.errors import NumericalError

__all__ = ["UnsolvableError"]


class UnsolvableError(NumericalError):
    """An equation has no answer or many: a resonance, or a Newton step that does not help.

    Attributes:
        iterate: the last iterate, the solver's unknowns (weights or values, by its route);
            empty where the problem was refused before anything was solved.

    Example:
        >>> import torch
        >>> UnsolvableError("no answer", torch.zeros(3)).iterate.shape
        torch.Size([3])
    """

    def __init__(self, text: str, iterate: Tensor) -> None:
        super().__init__(text)
        self.iterate = iterate
