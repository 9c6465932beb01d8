"""tinygp's quasiseparable Matern-3/2 GP in a process of its own: the best peer on one core.

``python -m benchmarks.baselines.tinygp_gp N`` prints JSON: CPU seconds after compilation of the
log-likelihood, of it with its gradient in three log-hyper-parameters, and of the smoothed mean and
variance; compile times; lengthscale 1, variance 1, noise variance .09, exponential gaps of mean .1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["measure_tinygp"]

_XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def measure_tinygp(num_points: int) -> dict[str, float]:
    """Run the measurement in a subprocess (jax and torch would share threads otherwise)."""
    environment = os.environ | {"XLA_FLAGS": _XLA, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.baselines.tinygp_gp", str(num_points)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"tinygp baseline failed: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def _measure(num_points: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from tinygp import GaussianProcess
    from tinygp.kernels import quasisep

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    times = jnp.asarray(np.cumsum(rng.exponential(0.1, num_points)))
    values = jnp.asarray(np.sin(np.asarray(times)) + 0.3 * rng.standard_normal(num_points))

    def process(logs: Any) -> GaussianProcess:
        scale, variance, noise = jnp.exp(logs)
        kernel = variance * quasisep.Matern32(scale=scale)
        return GaussianProcess(kernel, times, diag=jnp.full(num_points, noise))

    def log_likelihood(logs: Any) -> Any:
        return process(logs).log_probability(values)

    def smooth(logs: Any) -> Any:
        conditional = process(logs).condition(values).gp
        return conditional.loc, conditional.variance

    logs = jnp.log(jnp.array([1.0, 1.0, 0.09]))
    figures: dict[str, float] = {}
    for name, function in (
        ("log_likelihood", log_likelihood),
        ("gradient", jax.value_and_grad(log_likelihood)),
        ("smooth", smooth),
    ):
        figures |= _time(name, jax.jit(function), logs)
    return figures


def _time(name: str, function: Callable[[Any], Any], argument: Any) -> dict[str, float]:
    import jax

    start = time.process_time()
    jax.block_until_ready(function(argument))
    first = time.process_time() - start
    spent = []
    for _ in range(5):
        start = time.process_time()
        jax.block_until_ready(function(argument))
        spent.append(time.process_time() - start)
    return {name: sorted(spent)[2], f"{name}_compile": first - sorted(spent)[2]}


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
