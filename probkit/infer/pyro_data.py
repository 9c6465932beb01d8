"""Data of Pyro models: the arguments a model is called with, their digest and minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.provenance import data_digest

__all__ = ["ModelArguments", "ScaleObserved"]


@dataclass(frozen=True)
class ModelArguments:
    """Positional and keyword arguments of a model and its guide.

    Example:
        >>> arguments = ModelArguments.of({"x": torch.zeros(4, 2), "y": torch.zeros(4)})
        >>> arguments.common_length(), arguments.rows(torch.tensor([1, 3])).kwargs["x"].shape
        (4, torch.Size([2, 2]))
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, data: Any) -> ModelArguments:
        """None is no argument, a tuple or list positional ones, a mapping keywords, else one."""
        if data is None:
            return cls((), {})
        if isinstance(data, Mapping):
            return cls((), dict(data))
        if isinstance(data, tuple | list):
            return cls(tuple(data), {})
        return cls((data,), {})

    def __iter__(self) -> Iterator[Any]:
        """Allows ``args, kwargs = arguments``."""
        return iter((self.args, dict(self.kwargs or {})))

    def digest(self) -> str:
        """Digest of the tensors, in order; other arguments enter by their representation."""
        args, kwargs = self
        values = [*args, *(kwargs[name] for name in sorted(kwargs))]
        tensors = [v if isinstance(v, Tensor) else _encode(repr(v)) for v in values]
        return data_digest(*tensors)

    def device(self) -> torch.device:
        """Where the data are: the device of the first tensor, the CPU if there is none."""
        return next((value.device for value in self.tensors()), torch.device("cpu"))

    def common_length(self) -> int:
        """First dimension that all tensors share.

        Raises:
            ConfigurationError: there is no tensor, or their first dimensions differ.
        """
        shapes = [tuple(value.shape) for value in self.tensors()]
        lengths = {shape[0] if shape else 0 for shape in shapes}
        if len(lengths) != 1 or 0 in lengths:
            raise ConfigurationError(
                message(
                    "Minibatches need tensors that share their first dimension",
                    where="data",
                    got=shapes,
                    expected="one common first dimension",
                    remedy="set batch_size=None, and subsample with pyro.plate in the model",
                )
            )
        return int(lengths.pop())

    def rows(self, index: Tensor) -> ModelArguments:
        """The arguments with every tensor reduced to some rows."""

        def take(value: Any) -> Any:
            return value[index.to(value.device)] if isinstance(value, Tensor) else value

        args, kwargs = self
        return ModelArguments(
            tuple(take(value) for value in args), {k: take(v) for k, v in kwargs.items()}
        )

    def tensors(self) -> list[Tensor]:
        """The arguments that are tensors, positional ones first."""
        args, kwargs = self
        return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]

    def with_tensors(self, tensors: Sequence[Tensor]) -> ModelArguments:
        """The same arguments with other tensors in place of :meth:`tensors`."""
        left = iter(tensors)
        args, kwargs = self
        return ModelArguments(
            tuple(next(left) if isinstance(v, Tensor) else v for v in args),
            {k: next(left) if isinstance(v, Tensor) else v for k, v in kwargs.items()},
        )


class ScaleObserved(Messenger):
    """Effect handler: multiplies the log density of observed sites (``pyro.factor`` included).

    With a random subset of the rows and the factor ``rows / subset`` it keeps the expected log
    likelihood unchanged, while the priors of global unknowns count once.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.factor


def _encode(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
