"""Contracts for what users write themselves: an engine, a Markov kernel.

Each check raises ``AssertionError`` with the first thing that does not hold. (Operators and kernels
have upstream's own contracts: ``linear_operator.test.linear_operator_test_case`` and
``gpytorch.test.base_kernel_test_case``.)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from probkit.infer import FitResult, StepInfo, fit
from probkit.infer.protocols import State
from probkit.kernels import MarkovKernel

__all__ = ["check_engine", "check_markov_kernel"]

_TIMES = (0.0, 0.1, 0.15, 0.7, 0.7, 1.3, 2.9)


class _Killed(BaseException):
    """Ends a fit from outside, as a signal would: no ``except Exception`` may swallow it."""


class _StopAfter:
    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def start(self, max_steps: int, step: int) -> None:
        pass

    def step(self, step: int, state: State, info: StepInfo) -> None:
        if step >= self.num_steps:
            raise _Killed

    def finish(self, status: Any) -> None:
        pass


def check_engine(
    engine: Any, make_model: Callable[[], Any], data: Any = None, *, kill_after: int = 3
) -> FitResult:
    """What ``probkit.fit`` promises of every engine.

    The same seed gives the same answer whatever the global generators hold; a fit that is killed
    after ``kill_after`` steps and resumed from its checkpoint ends as one that was not; torch's
    default dtype and generator and Pyro's parameters are left alone; the result names its engine
    and comes back from disk.

    Args:
        engine: with a method ``fit(model, data, *, seed, reason, checkpoint, resume, callbacks,
            progress)``.
        make_model: builds a model that the engine can fit.
        data: as for ``probkit.fit``.
        kill_after: a step after the engine's first checkpoint and before its last step.

    Returns:
        The result of the uninterrupted fit.

    Raises:
        AssertionError: a promise is broken; says which.

    Example:
        >>> import pyro.distributions as dist
        >>> from probkit.infer import SVI
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 3.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> engine = SVI(steps=40, window=10, num_posterior_samples=20, checkpoint_every=10)
        >>> y = torch.linspace(-1, 3, 30, dtype=torch.float64)
        >>> check_engine(engine, lambda: model, y, kill_after=25).provenance["engine"]
        'SVI'
    """
    before = torch.random.get_rng_state(), torch.get_default_dtype()
    stored = set(pyro.get_param_store().keys())
    whole = fit(make_model(), data, engine=engine, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before[0]), "torch's generator was used"
    assert torch.get_default_dtype() is before[1], "torch's default dtype was changed"
    left = sorted(set(pyro.get_param_store().keys()) - stored)
    assert not left, f"Pyro's store was left with {left}"
    assert whole.provenance["engine"], "the result does not name its engine"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        _assert_same(whole, fit(make_model(), data, engine=engine, seed=3), "the same seed")
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {"engine": engine, "seed": 3, "checkpoint": Path(folder, "fit")}
        try:
            fit(make_model(), data, callbacks=[_StopAfter(kill_after)], **common)
        except _Killed:
            pass
        else:
            raise AssertionError(f"the fit ended before step {kill_after}, or hid an exception")
        resumed = fit(make_model(), data, resume=True, **common)
        _assert_same(whole, resumed, "a killed and resumed fit")
        back = FitResult.load(whole.save(Path(folder, "saved")))
        assert back.status is whole.status, "a saved result came back with another status"
        for name, value in whole.posterior.mean().items():
            assert torch.equal(back.posterior.mean()[name], value), f"{name} was not saved exactly"
    return whole


def check_markov_kernel(
    kernel: MarkovKernel, times: Float[Tensor, " T"] | None = None, *, tolerance: float = 1e-9
) -> None:
    """That a Markov kernel's covariance and its state space are the same process.

    ``H Cov(z_i, z_j) H'`` from its transitions equals its covariance at uneven times with a tie,
    transitions over two steps compose to that over their sum, the covariance traces without
    branches, and both forms have the same gradient in every parameter.

    Args:
        kernel: float64, without batch.
        times: sorted; seven between 0 and 3 if None. A kernel with other units needs its own.
        tolerance: of values; gradients are compared at its square root.

    Raises:
        AssertionError: says what differs and by how much.

    Example:
        >>> from probkit.kernels import MaternKernel
        >>> check_markov_kernel(MaternKernel(1.5))
    """
    t = torch.tensor(_TIMES, dtype=torch.float64) if times is None else times
    column = t[:, None]
    dense, chain = kernel.forward(column, column), _chain_covariance(kernel, t)
    _assert_close(chain, dense, tolerance, "covariance of the chain and of the kernel")
    diagonal = kernel.forward(column, column, diag=True)
    _assert_close(diagonal, dense.diagonal(), tolerance, "diag=True and the diagonal")
    one, two = t.new_tensor([0.2]), t.new_tensor([0.5])
    first, second, both = (kernel.transitions_over(h) for h in (one, two, one + two))
    _assert_close(second.A @ first.A, both.A, tolerance, "A over two steps and over their sum")
    noise = second.A @ first.Q @ second.A.mT + second.Q
    _assert_close(noise, both.Q, tolerance, "Q over two steps and over their sum")
    graph = make_fx(lambda a, b: kernel.forward(a, b))(column[:3], column[:4])
    moved = column + 0.3
    traced = graph(moved[:3], moved[:4])
    _assert_close(traced, kernel.forward(moved[:3], moved[:4]), tolerance, "a traced covariance")
    names, parameters = zip(*kernel.named_parameters(), strict=True)
    weight = torch.cos(torch.arange(dense.numel(), dtype=dense.dtype)).reshape(dense.shape)
    pair = [
        torch.autograd.grad((form * weight).sum(), parameters, allow_unused=True)
        for form in (dense, chain)
    ]
    for name, a, b in zip(names, *pair, strict=True):
        if a is None or b is None:
            assert a is b, f"only one form depends on {name}"
            continue
        _assert_close(b, a, tolerance**0.5, f"gradients in {name}")


def _chain_covariance(kernel: MarkovKernel, times: Tensor) -> Tensor:
    A, Q = kernel.transitions(times)
    H = kernel.output_map()
    rows: list[list[Tensor]] = [[] for _ in times]
    P = Q[0]
    for i in range(len(times)):
        if i:
            P = A[i] @ P @ A[i].mT + Q[i]
        ahead = P
        for j in range(i, len(times)):
            ahead = A[j] @ ahead if j > i else ahead
            rows[j].append((H @ ahead @ H.mT).squeeze())
    lower = torch.stack(
        [torch.cat([torch.stack(r), P.new_zeros(len(times) - len(r))]) for r in rows]
    )
    return lower + lower.mT - torch.diag(lower.diagonal())


def _assert_close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    gap = float((found - expected).detach().abs().max() / (1e-300 + expected.detach().abs().max()))
    assert gap <= tolerance, f"{what} differ by {gap:.2e} of the largest value"


def _assert_same(one: FitResult, other: FitResult, what: str) -> None:
    assert one.status is other.status, f"{what}: {one.status.name}, then {other.status.name}"
    first, second = one.posterior.mean(), other.posterior.mean()
    for name, value in first.items():
        assert torch.equal(second[name], value), f"{what} does not give the same {name}"
