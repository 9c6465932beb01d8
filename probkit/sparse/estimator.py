"""``KroneckerSBL``: recover sparse coefficients from Kronecker-structured measurements."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from probkit.errors import ConfigurationError, FitWarning, message
from probkit.infer import CAVI, FitResult, Status
from probkit.infer.callbacks import Callback
from probkit.infer.provenance import data_digest
from probkit.sparse.atoms import AtomProgram, penalized_evidence
from probkit.sparse.classic import flat_problem
from probkit.sparse.coupled import CoupledProgram
from probkit.sparse.evidence import STARTS, EvidenceProgram
from probkit.sparse.grids import GridDictionary
from probkit.sparse.offgrid import OffGridProgram
from probkit.sparse.paths import PathProgram
from probkit.sparse.posterior import SparsePosterior
from probkit.sparse.problem import Problem
from probkit.sparse.program import Layout, RecoveryProgram, get_scales
from probkit.sparse.reference import MAX_STEPS, ReferenceProgram
from probkit.sparse.settings import METHODS, check_factor_settings, check_settings, to_numbers
from probkit.sparse.validation import check_grid, to_problem

__all__ = ["METHODS", "KroneckerSBL", "Recovery"]

_COUPLINGS = (0.0, 0.5, 0.8)
_PAPER_COUPLING = 0.8
_MAX_SWEEPS = 20_000


@dataclass(frozen=True)
class Recovery:
    """A recovered tensor: a view on the fit's result."""

    result: FitResult

    @property
    def posterior(self) -> SparsePosterior:
        posterior = self.result.posterior
        assert isinstance(posterior, SparsePosterior)
        return posterior

    @property
    def mean(self) -> Tensor:
        """Posterior mean of x, (*batch, [snapshots,] N_1, ..., N_I)."""
        return self.posterior.mean()["x"]

    @property
    def sd(self) -> Tensor:
        """Posterior standard deviations, of the same shape."""
        return self.posterior.sd()["x"]

    @property
    def support(self) -> Tensor:
        """Which atoms are used, (*batch, N_1, ..., N_I)."""
        return self.posterior.support()

    @property
    def probability(self) -> Tensor:
        """Probability of each atom being used, (*batch, N_1, ..., N_I)."""
        return self.posterior.inclusion_probability()

    @property
    def noise(self) -> Tensor:
        """Noise variance, (*batch); without meaning for a problem whose y is zero."""
        return self.posterior.noise.reshape(self.posterior.layout["batch"])

    @property
    def log_evidence(self) -> Tensor:
        """log p(y) at the estimated scales and noise, (*batch)."""
        return self.posterior.log_evidence.reshape(self.posterior.layout["batch"])

    @property
    def grids(self) -> list[Tensor | None]:
        """Points of every factor's columns after :meth:`KroneckerSBL.recover_off_grid`, (N_k,).

        None for factors whose matrix was given, and on the grid.
        """
        like, layout = self.posterior.noise, self.posterior.layout
        found = layout.get("grids", [None] * len(layout["sizes"]))
        return [None if g is None else like.new_tensor(g) for g in found]

    def predict(self) -> Tensor:
        """Noiseless measurements at the posterior mean, (*batch, [snapshots,] M_1, ..., M_I)."""
        return self.posterior.predict()

    def vector(self) -> Tensor:
        """The mean with all atoms in one dimension, in the order that the estimator was given."""
        mean, sizes = self.mean, self.posterior.layout["shape"]
        if self.posterior.layout["order"] == "F":
            lead = mean.dim() - len(sizes)
            mean = mean.permute(*range(lead), *reversed(range(lead, mean.dim())))
        return mean.flatten(-len(sizes))

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Central credible interval of every coefficient (of both parts, if complex)."""
        return self.posterior.interval(level)


class KroneckerSBL:
    """Sparse Bayesian learning with a Kronecker dictionary and a Kronecker-supported prior.

    ``y = (A_1 x ... x A_I) x + e`` with ``x ~ N(0, diag(g_1 x ... x g_I))``: slices whose scale
    goes to zero leave the support. He & Joseph, IEEE TSP 2024, arXiv 2307.14719. The default
    maximises the evidence itself from several starts and chooses slices by their evidence; the
    paper's methods are there under their names. Intervals are exact given the scales, which are
    point estimates.

    Args:
        method: "evidence"; "pattern_coupled" (neighbouring slices share scales, strength learned);
            "rank1" (one-factor problems as the only start); the paper's "am", "svd", "ksbl",
            "paper_pattern_coupled"; "classic" (a free variance for every atom, dense).
        noise: "learn", a variance (one a problem of a batch; not a standard deviation, precision
            or decibels), or "noiseless".
        starts: of "evidence": any of "flat", "em", "svd", "rank1".
        select: whether "evidence" chooses slices by what they are worth.
        coupling: of the pattern-coupled methods: strength in [0, 1], or several for
            "pattern_coupled" to choose from; None for 0, .5 and .8, in the paper's for .8.
        coupled: of "pattern_coupled": numbers of the coupled factors, from 0; None for the first,
            third, ...
        order: "C" if the last factor's index runs fastest in vectors (``torch.kron``), "F" if the
            first one's does; concerns flattened y and ``Recovery.vector``.
        tolerance: relative change of the evidence that ends a climb; the paper's methods have
            their own rule.
        drop_below: share in [0, 1) of a factor's largest scale below which a slice is dropped;
            None for the method's own. The paper's methods take one number a factor as well.
        drop_absolute: of the paper's methods: scales below it are dropped as well.
        max_steps: limit on the number of sweeps, >= 1; None for 20 000, of the paper's methods
            150.
        max_bytes: limit on what is formed densely (the recovered tensor; "classic"'s dictionary).

    Attributes:
        result_: the :class:`probkit.infer.FitResult`.

    Example:
        >>> from probkit.sparse import simulate_recovery
        >>> problem = simulate_recovery(num_measurements=(8, 9), num_atoms=12, seed=3)
        >>> found = KroneckerSBL().recover(problem.y, problem.dictionaries)
        >>> bool((found.mean - problem.x).norm() < 0.2 * problem.x.norm())
        True
    """

    def __init__(
        self,
        method: str = "evidence",
        *,
        noise: Any = "learn",
        starts: Sequence[str] = STARTS,
        select: bool = True,
        coupling: float | Sequence[float] | None = None,
        coupled: Sequence[int] | None = None,
        order: str = "C",
        tolerance: float = 1e-6,
        drop_below: float | Sequence[float] | None = None,
        drop_absolute: float = 0.0,
        max_steps: int | None = None,
        max_bytes: float = 8e9,
    ) -> None:
        self.method, self.noise, self.starts, self.select = method, noise, starts, select
        self.coupling, self.coupled, self.order = coupling, coupled, order
        self.tolerance, self.drop_below = tolerance, drop_below
        self.drop_absolute = drop_absolute
        self.max_steps, self.max_bytes = max_steps, max_bytes

    def fit(
        self,
        y: Any,
        dictionaries: Sequence[Any],
        *,
        snapshots: bool = False,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> KroneckerSBL:
        """Fit one problem, or a batch of independent ones.

        Args:
            y: (*batch, [snapshots,] M_1, ..., M_I), or the same with the measurements flattened.
            dictionaries: A_k, (M_k, N_k), or (B, M_k, N_k) with one for each problem. Integers
                become float64; everything is promoted to the widest of the given dtypes, so that
                x is complex if y or any A_k is. Variances are squares of y: values beyond 1e150
                in float64 (1e15 in float32) are refused.
            snapshots: whether the dimension before the measurements holds snapshots that share
                their support.
            checkpoint: directory for checkpoints; None for none.
            resume: go on from a checkpoint of the same fit, if there is one.
            progress: show a progress bar.
            callbacks: called after each sweep.

        Raises:
            DataError, ShapeError, DtypeError, ConfigurationError: see the messages; all are
                raised before any sweep.
        """
        check_settings(self)
        problem, layout = to_problem(
            y,
            dictionaries,
            noise=self.noise,
            snapshots=snapshots,
            order=self.order,
            max_bytes=self.max_bytes,
        )
        program = self._program(problem, layout)
        self.result_: FitResult = CAVI(max_sweeps=self._max_sweeps).fit(
            program,
            data=data_digest(problem.y, *problem.factors, problem.noise),
            reason=f"structured evidence maximisation, method {self.method!r}",
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
        )
        if self.result_.status is Status.MAX_STEPS:
            change = _last_change(self.result_)
            warnings.warn(
                f"Not converged after {self._max_sweeps} sweeps; the evidence last "
                f"changed by {change:.3g}. Allow more with max_steps, or resume the result.",
                FitWarning,
                stacklevel=2,
            )
        return self

    def recover(self, y: Any, dictionaries: Sequence[Any], **arguments: Any) -> Recovery:
        """:meth:`fit`, and what it recovered."""
        return Recovery(self.fit(y, dictionaries, **arguments).result_)

    def recover_off_grid(
        self,
        y: Any,
        dictionaries: Sequence[Any],
        *,
        snapshots: bool = False,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> Recovery:
        """Recover on the grid, then move the points of the grid that carry signal.

        Atoms of the kept slices get variances of their own where that has the larger evidence, as
        with paths, which use few of the crossings of their angles.

        Arguments as for :meth:`fit`, for one problem; a dictionary that is a
        :class:`GridDictionary` is refined, a matrix stays. Checkpoints are those of the
        refinement, whose start is computed again.

        Raises:
            DataError, ShapeError, DtypeError, ConfigurationError: see the messages; all are
                raised before any sweep.
        """
        grids = [d if isinstance(d, GridDictionary) else None for d in dictionaries]
        for k, grid in enumerate(grids):
            if grid is not None:
                check_grid(grid, f"dictionaries[{k}]")
        matrices = [
            d if g is None else g.matrix() for d, g in zip(dictionaries, grids, strict=True)
        ]
        check_settings(self)
        problem, layout = to_problem(
            y,
            matrices,
            noise=self.noise,
            snapshots=snapshots,
            order=self.order,
            max_bytes=self.max_bytes,
        )
        self._check_refinable(problem, layout)
        sweeps = CAVI(max_sweeps=self._max_sweeps)
        on_grid = sweeps.fit(self._program(problem, layout)).posterior
        assert isinstance(on_grid, SparsePosterior)
        program = OffGridProgram(
            problem, layout, dictionaries=grids, start=on_grid, tolerance=self.tolerance
        )
        self.result_ = sweeps.fit(
            program,
            data=data_digest(problem.y, *problem.factors, problem.noise),
            reason=f"off-grid refinement from method {self.method!r}",
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
        )
        self.result_ = self._free_atoms(self.result_, problem, layout, grids, sweeps)
        return Recovery(self.result_)

    def predict(self) -> Tensor:
        """Noiseless measurements at the posterior mean, (*batch, [snapshots,] M_1, ..., M_I)."""
        return Recovery(self._result()).predict()

    def save(self, directory: str | Path) -> Path:
        """Write the result; see :meth:`probkit.infer.FitResult.save`."""
        return self._result().save(directory)

    @staticmethod
    def load(directory: str | Path) -> Recovery:
        """A saved recovery, without data.

        Raises:
            CheckpointError: nothing readable, or a result of another model.
        """
        return Recovery(FitResult.load(directory, expect=SparsePosterior))

    def _free_atoms(
        self, result: FitResult, problem: Problem, layout: Layout, grids: list[Any], sweeps: CAVI
    ) -> FitResult:
        """The fit with a variance for each atom of the kept slices, if its evidence is larger."""
        found = Recovery(result).posterior
        if not all(bool((g > 0).any()) for g in found.scales):
            return result
        atoms = AtomProgram(
            found, problem.y, problem.noise, tolerance=self.tolerance, max_bytes=self.max_bytes
        )
        start = Recovery(sweeps.fit(atoms)).posterior
        points = get_scales(result.state, "grid")
        program = PathProgram(
            problem, layout, dictionaries=grids, grids=points, start=start, tolerance=self.tolerance
        )
        free = sweeps.fit(
            program,
            data=data_digest(problem.y, *problem.factors, problem.noise),
            reason="variances of their own for the atoms of the kept slices: larger evidence",
        )
        score = penalized_evidence(Recovery(free).posterior, problem.num_data)
        better = score > penalized_evidence(found, problem.num_data)
        return free if better else result

    @property
    def _max_sweeps(self) -> int:
        return _MAX_SWEEPS if self.max_steps is None else self.max_steps

    def _result(self) -> FitResult:
        if not hasattr(self, "result_"):
            raise ConfigurationError(
                message("Nothing was fitted yet", remedy="call fit or recover")
            )
        return self.result_

    def _program(self, problem: Problem, layout: Layout) -> RecoveryProgram:
        check_factor_settings(self, len(problem.factors))
        shares = None if self.drop_below is None else to_numbers("drop_below", self.drop_below)
        couplings = None if self.coupling is None else to_numbers("coupling", self.coupling)
        own: dict[str, Any] = {"tolerance": self.tolerance}
        own |= {} if shares is None else {"drop_below": shares[0]}
        if self.method == "pattern_coupled":
            couplings = couplings or list(_COUPLINGS)
            return CoupledProgram(problem, layout, couplings=couplings, coupled=self.coupled, **own)
        if self.method in ("evidence", "rank1"):
            starts = self.starts if self.method == "evidence" else ("rank1",)
            return EvidenceProgram(problem, layout, starts=starts, select=self.select, **own)
        if self.method == "classic":
            shape, rows = tuple(problem.sizes), tuple(problem.y.shape[2:])
            problem = flat_problem(problem, self.max_bytes)
            layout = Layout(layout.batch, layout.snapshots, layout.order, shape, rows)
        return ReferenceProgram(
            problem,
            layout,
            method=self.method,
            coupling=couplings[0] if couplings else _PAPER_COUPLING,
            drop_below=shares[0] if shares and len(shares) == 1 else shares,
            drop_absolute=float(self.drop_absolute),
            max_steps=MAX_STEPS if self.max_steps is None else self.max_steps,
        )

    def _check_refinable(self, problem: Problem, layout: Layout) -> None:
        if problem.num_problems > 1 or self.method == "classic":
            raise ConfigurationError(
                message(
                    "Off-grid refinement takes one problem at a time, with its own dictionaries",
                    where="y" if problem.num_problems > 1 else "method",
                    got=layout.batch or self.method,
                    remedy="loop over the batch; use a Kronecker method",
                )
            )


def _last_change(result: FitResult) -> float:
    objective = result.history["objective"]
    return float(abs(objective[-1] - objective[-2])) if len(objective) > 1 else float("inf")
