"""Random numbers inside ``vmap``: fresh ones for every member of the batch.

``torch.distributions`` draws by filling an empty tensor in place (``normal_``), which ``vmap``
refuses because the empty tensor has no batch dimension. Inside :class:`FreshNoise` the functions
that fill are replaced by those that create.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["FreshNoise"]


class FreshNoise(TorchFunctionMode):
    """Context in which ``normal_``, ``uniform_`` and ``exponential_`` return new tensors.

    What they are called on keeps its values, so that it serves code that goes on with the returned
    tensor, as all distributions do.

    Example:
        >>> from torch.func import vmap
        >>> def draw(_):
        ...     return torch.empty(2).normal_()
        >>> with FreshNoise():
        ...     found = vmap(draw, randomness="different")(torch.arange(3))
        >>> found.shape, len(found.unique())
        (torch.Size([3, 2]), 6)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        replacement = _REPLACEMENTS.get(func)
        return (replacement or func)(*args, **(kwargs or {}))


def _normal(like: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return mean + std * torch.randn(like.shape, dtype=like.dtype, device=like.device)


def _uniform(like: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    unit = torch.rand(like.shape, dtype=like.dtype, device=like.device)
    return low + (high - low) * unit


def _exponential(like: Tensor, rate: float = 1.0) -> Tensor:
    # 1 - u lies in (0, 1], whose logarithm is finite
    return -(1 - _uniform(like)).log() / rate


_REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    torch.Tensor.normal_: _normal,
    torch.Tensor.uniform_: _uniform,
    torch.Tensor.exponential_: _exponential,
}
