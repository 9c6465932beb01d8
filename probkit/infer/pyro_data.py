"""Data of Pyro models: the arguments a model is called with, their digest and minibatches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer.provenance import data_digest

__all__ = ["Batches", "ModelArguments", "ScaleObserved", "StreamedArguments", "sample_sites"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


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
        if isinstance(data, Batches):
            return StreamedArguments.of_batches(data)
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
        """Digest of all numbers, and of the names of keywords.

        What is neither a number, an array nor a container of them enters by its representation
        without its address, which a second process would not find again.
        """
        args, kwargs = self
        return data_digest(*_content((args, {name: kwargs[name] for name in sorted(kwargs)})))

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


@dataclass(frozen=True)
class Batches:
    """Minibatches from an iterable, such as a ``torch.utils.data.DataLoader``, as data of ``SVI``.

    Args:
        iterable: yields the model's arguments (a tensor, a tuple or a dict); it is begun anew
            whenever it ends. Its order is its own: a resumed fit does not see the same batches.
        num_rows: rows in all; observed sites count ``num_rows`` over the rows of a batch.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.zeros(10, 2), torch.zeros(10))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=4)
        >>> stream = ModelArguments.of(Batches(loader, len(data)))
        >>> [stream.next_batch().common_length() for _ in range(4)]
        [4, 4, 2, 4]
    """

    iterable: Iterable[Any]
    num_rows: int


@dataclass(frozen=True)
class StreamedArguments(ModelArguments):
    """The first batch of a stream, and the ones that follow; made by :meth:`ModelArguments.of`."""

    batches: Batches | None = None
    stream: Iterator[ModelArguments] = field(default_factory=lambda: iter(()), compare=False)

    @classmethod
    def of_batches(cls, batches: Batches) -> StreamedArguments:
        """Read the first batch.

        Raises:
            ConfigurationError: the iterable is empty, or ``num_rows`` is less than a batch.
        """
        first = next((ModelArguments.of(x) for x in batches.iterable), None)
        if first is None or not first.common_length() <= batches.num_rows:
            rows = 0 if first is None else first.common_length()
            raise ConfigurationError(
                message(
                    "Batches must hold rows, and not more than there are in all",
                    where="data",
                    got=f"a first batch of {rows} rows",
                    expected=f"1 to num_rows={batches.num_rows}",
                )
            )
        args, kwargs = first
        return cls(args, kwargs, batches, _endless(batches.iterable))

    def next_batch(self) -> ModelArguments:
        """The next batch; after the last one the first."""
        return next(self.stream)

    def digest(self) -> str:
        """Of the first batch and the number of rows."""
        assert self.batches is not None
        return data_digest(*self.tensors(), torch.tensor(self.batches.num_rows))


def _endless(iterable: Iterable[Any]) -> Iterator[ModelArguments]:
    while True:
        for item in iterable:
            yield ModelArguments.of(item)


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


def _content(value: Any) -> Iterator[Tensor]:
    """Everything in an argument as tensors; representations of arrays leave numbers out."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield _encode(repr(name))
            yield from _content(part)
    elif isinstance(value, tuple | list):
        yield _encode(f"{type(value).__name__} {len(value)}")
        for part in value:
            yield from _content(part)
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
        plain = array.dtype.kind in "biufcmM"
        names = list(getattr(value, "columns", ()))
        yield _encode(f"{array.dtype} {array.shape} {names} {'' if plain else array.tolist()}")
        if plain:
            yield torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
    else:
        yield _encode(_ADDRESS.sub("", repr(value)))


def _encode(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def sample_sites(trace: Any) -> list[tuple[str, Any]]:
    """Sample sites of a trace with their names, without the draws of subsampling plates."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    ]
