"""One rank of a data-parallel fit: ``torchrun -m benchmarks.engines.parallel_job OUT ...``.

Rank 0 writes the fitted parameters and the CPU seconds of the loop. ``--lose STEP`` makes the last
rank kill itself in that step, as a machine that fails would.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.errors import DistributedError
from probkit.infer import FitResult, process_group
from probkit.infer.data_parallel import DataParallelSVI

__all__ = ["fit", "grouped", "grouped_data", "parameters"]


def grouped(group: Tensor, x: Tensor, y: Tensor, *, num_groups: int) -> None:
    """A regression with an intercept for every group; rows in long format."""
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    w = pyro.sample("w", dist.Normal(zero, 1.0).expand([x.shape[1]]).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(zero + 2.0))
    with pyro.plate("groups", num_groups):
        theta = pyro.sample("theta", dist.Normal(zero, tau))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w + theta[group], 0.5), obs=y)


def grouped_data(num_rows: int, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    group = rng.integers(num_groups, size=num_rows)
    x = rng.normal(size=(num_rows, 5))
    theta = rng.normal(size=num_groups)
    y = x @ rng.normal(size=5) + theta[group] + 0.5 * rng.normal(size=num_rows)
    return torch.as_tensor(group), torch.as_tensor(x), torch.as_tensor(y)


def fit(
    engine: Any,
    num_rows: int,
    num_groups: int,
    wrap: Callable[[Any], Any] = lambda f: f,
    **options: Any,
) -> FitResult:
    """Fit the regression with some engine; the same on every rank."""
    model = wrap(
        functools.update_wrapper(functools.partial(grouped, num_groups=num_groups), grouped)
    )
    result: FitResult = engine.fit(model, grouped_data(num_rows, num_groups), **options)
    return result


def parameters(result: FitResult) -> dict[str, np.ndarray]:
    """The parameters after the last step."""
    return {k: v.numpy() for k, v in result.state.items() if k.startswith("param.")}


def _lose(rank: bool, step: int) -> Callable[[Any], Any]:
    """Make the model kill its process in that step."""
    count = 0

    def wrap(model: Any) -> Any:
        @functools.wraps(model)
        def killing(*args: Any) -> Any:
            nonlocal count
            count += 1
            if rank and count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return model(*args)

        return killing

    return wrap


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--lose", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=60.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    engine = DataParallelSVI(
        steps=options.steps,
        batch_size=options.batch,
        num_posterior_samples=10,
        num_diagnostic_samples=0,
        checkpoint_every=50,
        timeout=options.timeout,
    )
    try:
        with process_group(timeout=options.timeout) as ranks:
            last = ranks.rank == ranks.size - 1
            result = fit(
                engine,
                options.rows,
                options.groups,
                _lose(last, options.lose) if options.lose else lambda model: model,
                checkpoint=options.checkpoint,
                resume=True,
            )
            if ranks.first:
                np.savez(options.out, **parameters(result), seconds=result.history["seconds"])
    except DistributedError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
