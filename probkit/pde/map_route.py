"""The paper's method: grid values and spectra together, by Adam on their joint density.

Kept for comparison. The other routes condition instead of descending, and need seconds where this
one needs 1e5 to 1e6 epochs for fewer digits; their band is read off the source, and so is the start
of the frequencies here, which the authors set by hand for every problem. The last iterate is what
is returned. Cost: an epoch of :mod:`probkit.pde.map_joint` each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer import FitResult, Status
from probkit.infer.protocols import State, StepInfo
from probkit.infer.stopping import SecondsBudget, settled
from probkit.infer.updates import adam
from probkit.kernels import SpectralMixtureKernel
from probkit.kernels.constraints import real_line
from probkit.pde.collocation_estimate import CollocationEstimate
from probkit.pde.diagnostics import Checked, diagnose
from probkit.pde.map_joint import JointDensity
from probkit.pde.problem import Box, Condition, Problem
from probkit.pde.settings import SolverSettings
from probkit.pde.spectrum import Band, band_limit
from probkit.pde.validation import on_points
from probkit.random import Seed

__all__ = ["can_map", "solve_map"]

_RATE = 1e-2
_COMPONENTS = 30


def can_map(problem: Problem) -> bool:
    """Whether the joint density covers a problem: a box with conditions on its faces."""
    faces = all(isinstance(c.where, tuple) and c.functional for c in problem.conditions)
    return isinstance(problem.domain, Box) and faces and problem.data is None


def solve_map(
    settings: SolverSettings, problem: Problem, reason: str, seed: Seed, progress: bool
) -> FitResult:
    """Maximise the joint density of grid values, precisions and spectra.

    Raises:
        ConfigurationError: ``prior`` is no mixture kernel.
    """
    domain = problem.domain
    assert isinstance(domain, Box)
    bands = [_band(problem, domain, axis) for axis in range(domain.dim)]
    kernels = [_kernel(settings, band) for band in bands]
    density = JointDensity(problem, kernels)
    program = _Program(density)
    run = settings.run(problem, "map", reason, (density.source,), seed, progress)
    budget = None if settings.max_seconds is None else SecondsBudget(settings.max_seconds)
    outcome = run.loop(program.step, program.initialize, settings.max_epochs, stopping=budget)
    status = outcome.status
    if status is Status.MAX_STEPS and settled(outcome.history["objective"]):
        status = Status.CONVERGED
    program.load(outcome.state)
    values = outcome.state["param.values"]
    estimate = CollocationEstimate(domain, kernels, values)
    with torch.no_grad():
        misfit, conditions = density.misfits(values)
    size = float(density.source.square().mean().sqrt()) or 1.0
    # conditions of a much smaller solution than the inside's are rounding
    target = max(density.condition_size(), float(values.square().mean().sqrt())) or 1.0
    checked = Checked(
        misfit=misfit.reshape(-1),
        conditions=float(conditions.norm()) / target,
        size=size,
        operator_size=size,
        num_features=values.numel(),
        rank=values.numel(),
        bands=bands,
        log_evidence=float("nan"),
        skipped=outcome.num_steps,
    )

    def mean_at(x: Tensor, orders: tuple[int, ...]) -> Tensor:
        return estimate.mean_at(x, derivative=orders)

    result = FitResult(
        status,
        estimate,
        {n: torch.tensor(c, dtype=torch.float64).numpy() for n, c in outcome.history.items()},
        provenance=run.record(outcome.state),
        detail=outcome.detail,
        state=outcome.state,
    )
    result.diagnostics = diagnose(problem, checked, outcome.history, mean_at) | {
        "epochs": outcome.num_steps,
        "newton_steps": 0,
        "point_estimate": True,
        "warnings": ["A point estimate carries no uncertainty; the other methods do."],
    }
    told = result.diagnostics
    # far from the maximum the equation holds nowhere, which is no matter of the grid
    told["under_resolved"] &= told.get("residual_finer", 0.0) > 10 * told["residual_equation"]
    return result


class _Program:
    """Epochs as pure functions of a state: parameters and both of Adam's averages."""

    def __init__(self, density: JointDensity) -> None:
        self.density = density
        self._modules = {
            f"{axis}.{name}": parameter
            for axis, kernel in enumerate(density.kernels)
            for name, parameter in kernel.named_parameters()
            if parameter.requires_grad
        }

    def initialize(self, generator: torch.Generator) -> State:
        """U = 0, unit precisions, the kernels as they are."""
        start = {
            "values": torch.zeros(self.density.sizes, dtype=torch.float64),
            "log_precisions": torch.zeros(2, dtype=torch.float64),
            **{name: p.detach().clone() for name, p in self._modules.items()},
        }
        state: State = {"count": torch.zeros((), dtype=torch.int64)}
        for name, value in start.items():
            state |= {f"param.{name}": value}
            state |= {f"{part}.{name}": torch.zeros_like(value) for part in ("first", "second")}
        return state

    def step(self, state: State, generator: torch.Generator) -> tuple[State, StepInfo]:
        """One epoch of Adam."""
        self.load(state)
        values = state["param.values"].clone().requires_grad_()
        log_precisions = state["param.log_precisions"].clone().requires_grad_()
        leaves = {"values": values, "log_precisions": log_precisions, **self._modules}
        value = self.density.value(values, log_precisions)
        found = torch.autograd.grad(-value, list(leaves.values()))
        gradients = dict(zip(leaves, found, strict=True))
        following = adam(state, gradients, int(state["count"]) + 1, _RATE, 0.0)
        following["count"] = state["count"] + 1
        return following, StepInfo(float(value.detach()), message="epoch")

    def load(self, state: State) -> None:
        """Put a state's parameters into the kernels."""
        for name, parameter in self._modules.items():
            parameter.data.copy_(state[f"param.{name}"])


def _kernel(settings: SolverSettings, band: Band) -> SpectralMixtureKernel:
    """A copy of the kernel given, or the authors' start over the band."""
    if settings.prior is not None:
        if not isinstance(settings.prior, SpectralMixtureKernel):
            raise ConfigurationError(
                message(
                    "This method learns the parameters of a mixture kernel",
                    where="prior",
                    got=type(settings.prior).__name__,
                    expected="None, or a SpectralMixtureKernel to start from",
                )
            )
        return copy.deepcopy(settings.prior)
    # the frequencies themselves, as the authors have them: zero is then a possible start
    kernel = SpectralMixtureKernel(_COMPONENTS, kind="student", frequency_constraint=real_line())
    top = band.limit if settings.band_limit is None else settings.band_limit
    kernel.frequencies = torch.linspace(0, top, _COMPONENTS, dtype=torch.float64)
    return kernel


def _band(problem: Problem, box: Box, axis: int) -> Band:
    """The band along an axis that source and conditions show."""
    x, (low, high) = box.axes()[axis], box.bounds[axis]
    source = on_points(problem.source, box.points(), "source", box.sizes).reshape(box.sizes)
    shown = [source.movedim(axis, 0).reshape(len(x), -1)]
    for condition in problem.conditions:
        shown += _along(condition, box, axis)
    bands = [
        band_limit(columns, x, high - low, len(x), noise=problem.noise)
        for columns in shown
        if bool(columns.any())
    ]
    return max(bands, key=lambda band: band.top, default=Band(0.0, 4 / (high - low), 0.0))


def _along(condition: Condition, box: Box, axis: int) -> Sequence[Tensor]:
    assert isinstance(condition.where, tuple)
    own, side = condition.where
    if own == axis:
        return []
    shape = tuple(n for k, n in enumerate(box.sizes) if k != own)
    data = on_points(condition.value, box.face(own, side), "condition", shape).reshape(shape)
    return [data.movedim(axis - (own < axis), 0).reshape(box.sizes[axis], -1)]
