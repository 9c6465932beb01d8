"""Data-parallel stochastic variational inference: one fit, its rows dealt out to processes.

A step of ``SVI`` maximises sum_n log p(y_n | z) + log p(z) - log q(z), z ~ q. Rank r takes n_r of
the n rows of the step's batch and runs the model on them with its observed sites scaled by N / n_r,
where N is the number of all rows. All ranks draw the same z, so that

    sum_r (n_r / n) grad_r = gradient of the whole batch on one process,

exactly, for any share-out of the rows, by one all-reduce of the flat gradient a step. Adam then
makes the same move on every rank, and parameters never travel. Only rank 0 writes checkpoints,
which hold no trace of the number of ranks: a fit may go on with more or fewer.

Sources: Li et al., VLDB 2020 (PyTorch distributed: gradients by all-reduce); Hoffman et al., JMLR
14 (2013) (scaled subsets of rows). Cost of a step: the model on n / R rows, one guide and one prior
on each rank, and one all-reduce of as many numbers as there are parameters. Every process holds all
the data (the same file, memory-mapped if large).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, NumericalError, message
from probkit.infer.checkpoint import Checkpoint
from probkit.infer.elbo import ElboProgram
from probkit.infer.engine import Run
from probkit.infer.flat_elbo import FlatElbo
from probkit.infer.native.lowering import Unsupported
from probkit.infer.protocols import State, StepInfo
from probkit.infer.provenance import settings_digest
from probkit.infer.pyro_data import ModelArguments, ScaleObserved
from probkit.infer.ranks import Ranks, process_group
from probkit.infer.result import FitResult
from probkit.infer.svi import SVI
from probkit.random import as_generator
from probkit.validation import require_positive

__all__ = ["DataParallelSVI"]


@dataclass(frozen=True)
class DataParallelSVI(SVI):
    """``SVI`` by all processes that ``torchrun`` started; without it, ``SVI`` on one.

    Every process calls ``fit`` with the same model, data and settings, and gets the same result.
    The data tensors must share their first dimension, the rows; unknowns that belong to groups are
    welcome (index them by a tensor of group numbers), unknowns of single rows are refused.
    ``batch_size`` counts the rows of all processes together. Progress, callbacks and checkpoints
    are those of rank 0. Steps run eagerly whatever ``compile`` says, because processes add up their
    gradients in every one of them. The remaining settings are those of ``SVI``.

    Args:
        timeout: seconds without an answer after which the other processes count as lost.

    Raises:
        ConfigurationError: a setting out of its range.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=y.dtype), 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> y = torch.linspace(2.0, 4.0, 50, dtype=torch.float64)
        >>> result = DataParallelSVI(steps=100).fit(model, y, seed=0)
        >>> result.provenance["engine"], result.provenance["settings"]["num_ranks"]
        ('DataParallelSVI', 1)
    """

    timeout: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "timeout")

    def _run(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        arguments: ModelArguments,
        run: Run,
        start: Checkpoint | None,
    ) -> FitResult:
        with process_group(device=arguments.device(), timeout=self.timeout) as ranks:
            ranks.require_equal("data or settings", settings_digest(run.settings, run.data))
            part = self._part(run, ranks)
            if start is None and run.resume:  # rank 0 looks on disk, for all
                checkpointer = part.checkpointer()
                start = ranks.share(None if checkpointer is None else checkpointer.read())
            part = replace(part, resume=False)
            return super()._run(model, guide, arguments, part, start)

    def _program(
        self, model: Callable[..., Any], guide: Callable[..., Any], arguments: ModelArguments
    ) -> ElboProgram:
        with process_group(device=arguments.device(), timeout=self.timeout) as ranks:
            return _ShardedElboProgram(
                super()._program(model, guide, arguments),
                ranks,
                model,
                guide,
                arguments,
                self._elbo(),
                batch_size=self.batch_size or arguments.common_length(),
                window=self.window,
                learning_rate=self._rate,
                steps=self.steps,
            )

    def _finish(self, program: ElboProgram, generator_state: Tensor) -> Any:
        """Draws and diagnostics from all rows, on every rank the same."""
        whole = program.whole if isinstance(program, _ShardedElboProgram) else program
        return super()._finish(whole, generator_state)

    def _part(self, run: Run, ranks: Ranks) -> Run:
        """The call as this rank makes it: files and display on rank 0 only, one seed for all."""
        seed = run.seed
        if not isinstance(seed, int | Integral):
            seed = as_generator(seed)
            seed.set_state(ranks.share(seed.get_state()))
        return replace(
            run,
            settings={**run.settings, "num_ranks": ranks.size},
            limits=(*run.limits, "timeout", "num_ranks"),
            seed=seed,
            checkpoint=run.checkpoint if ranks.first else None,
            callbacks=run.callbacks if ranks.first else (),
            progress=run.progress and ranks.first,
        )


class _ShardedElboProgram(ElboProgram):
    """The step of one rank: its part of the rows, everybody's gradient.

    Args:
        whole: the same program on one process, for what is computed after the fit.
        ranks: this process's place in the group.
    """

    def __init__(
        self, whole: ElboProgram, ranks: Ranks, model: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(model, *args, **kwargs)
        self.whole, self._ranks = whole, ranks
        self.route["reason"] = "processes add up their gradients between steps"
        if self._batch_size < ranks.size:
            raise ConfigurationError(
                message(
                    "There are more processes than rows in a step",
                    where="batch_size",
                    got=self._batch_size,
                    expected=f">= {ranks.size}",
                    remedy="start fewer processes or take larger batches",
                )
            )
        first = self._batch_size * ranks.rank // ranks.size
        self._mine = slice(first, self._batch_size * (ranks.rank + 1) // ranks.size)
        self._rows = self._mine.stop - first
        self.model = ScaleObserved(self._length / self._rows)(model)
        self._fixed = self._arguments.rows(torch.arange(self._batch_size)[self._mine])
        self._num_values = 0

    def initialize(self, generator: torch.Generator) -> State:
        # a parameter's first value may depend on the rows that the model has seen
        state = self._ranks.share({k: v.cpu() for k, v in super().initialize(generator).items()})
        names = [name for name in state if name.startswith("param.")]
        self._num_values = 1 + sum(state[name].numel() for name in names)
        return state

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        try:
            return super().step(state, generator)
        except (NumericalError, torch.linalg.LinAlgError):
            # the others wait for this rank's gradient: they must learn that there is none
            like = next(value for name, value in state.items() if name.startswith("param."))
            self._ranks.sum(like.new_full((self._num_values,), math.nan))
            raise

    def flat(self) -> FlatElbo:
        """Refused: no vector function adds up what the other ranks compute."""
        raise Unsupported(str(self.route["reason"]))

    def batch(self, generator: torch.Generator | None = None) -> ModelArguments:
        """This rank's rows of the batch; the draw of the batch is the same on all ranks."""
        if generator is None or not self.whole._batch_size:  # the first rows, or all: no draw
            return self._fixed
        order = torch.randperm(self._length, generator=generator)
        return self._arguments.rows(order[: self._batch_size][self._mine])

    def _combine(
        self, loss: float, gradients: dict[str, Tensor]
    ) -> tuple[float, dict[str, Tensor]]:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients.values()])
        values = torch.cat([flat.new_tensor([loss]), flat]) * (self._rows / self._batch_size)
        total = self._ranks.sum(values)
        parts = total[1:].split([gradient.numel() for gradient in gradients.values()])
        shaped = zip(gradients.items(), parts, strict=True)
        return float(total[0]), {n: part.reshape(g.shape).to(g.dtype) for (n, g), part in shaped}
