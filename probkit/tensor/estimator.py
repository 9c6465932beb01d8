"""``FunctionalTucker``: fit, predict, save; the door to the family."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from probkit.errors import ConfigurationError, FitWarning, message
from probkit.infer import CAVI, CVI, DrawsPosterior, FitResult, Gibbs
from probkit.infer.callbacks import Callback
from probkit.infer.provenance import data_digest
from probkit.kernels import MarkovKernel
from probkit.random import Seed, as_generator, fixed_seed
from probkit.tensor.entries import Entries, Scaling
from probkit.tensor.gibbs import TuckerDraws, TuckerGibbs
from probkit.tensor.kernels import NamedKernels, resolve_kernels
from probkit.tensor.likelihoods import make_likelihood
from probkit.tensor.posterior import TuckerPosterior
from probkit.tensor.program import Program, ProgramSettings
from probkit.tensor.settings import check_names, check_settings, saved_settings
from probkit.tensor.validation import (
    check_ranks,
    check_targets,
    target_scale,
    to_inputs,
    to_target,
)
from probkit.tensor.variational import TuckerVariational
from probkit.validation import check_levels, check_whole

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FunctionalTucker"]

_MIN_HOLDOUT_ENTRIES, _MANY = 200, 10_000_000


class FunctionalTucker:
    """Functional Bayesian Tucker (or CP) decomposition of a tensor with continuous indexes.

    ``y_n = sum_g W[g] prod_k u^k_{g_k}(x_nk) + b + noise`` with a Gaussian process for every
    factor function. Missing cells are simply absent rows. Fang et al., ICLR 2024,
    arXiv 2311.04829; see ``docs/explanation`` for what differs.

    Args:
        rank: "auto" (up to ``max_rank``, chosen by held-out predictive score), one integer, or
            one for each mode.
        structure: "tucker" (a full core) or "cp" (one weight a component).
        kernels: name or Markov kernel, one for all modes or one for each; None is "matern12".
            Kernel objects work in internal units, where each mode spans [0, 1].
        likelihood: "auto" (Student-t whose degrees of freedom are learned, so Gaussian noise is
            included as a limit), or "gaussian", "student_t", "poisson", "bernoulli",
            "negative_binomial".
        max_rank: largest rank of the search.
        num_starts: random starts for each rank; None for 4.
        calibrate: whether to keep back 1/8 of the entries in a first fit and set the width of the
            intervals by them (real-valued targets with at least 200 entries).
        engine: ``CAVI``, ``CVI`` or ``Gibbs`` settings; None for the likelihood's default. Gibbs
            samples with the hyper-parameters of a variational fit, from which it starts.
        missing: "drop" or "raise": what to do with NaN targets.
        seed: of starts and hold-out; of a generator or None an integer is drawn and kept.
        input_names: names of the modes; taken from a data frame's columns if None. A model fitted
            on a data frame with None takes the columns of later data frames by name; with names of
            your own, as with tensors and arrays, columns go by position.

    Attributes:
        result_: the :class:`probkit.infer.FitResult`.
        num_missing_: NaN targets that were dropped, by the fit and by updates.

    Example:
        >>> import torch
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.rand(150, 2, generator=g, dtype=torch.float64)
        >>> y = torch.sin(4 * x[:, 0]) * x[:, 1]
        >>> model = FunctionalTucker(rank=1, kernels="matern32", likelihood="gaussian")
        >>> error = model.fit(x[:100], y[:100]).predict(x[100:]) - y[100:]
        >>> bool(error.square().mean().sqrt() < 0.1)
        True
    """

    def __init__(
        self,
        rank: str | int | Sequence[int] = "auto",
        *,
        structure: str = "tucker",
        kernels: str | MarkovKernel | Sequence[str | MarkovKernel] | None = None,
        likelihood: str = "auto",
        max_rank: int = 5,
        num_starts: int | None = None,
        calibrate: bool = True,
        engine: CAVI | Gibbs | None = None,
        missing: str = "drop",
        seed: Seed = 0,
        input_names: Sequence[str] | None = None,
    ) -> None:
        self.rank, self.structure, self.kernels = rank, structure, kernels
        self.likelihood, self.max_rank, self.num_starts = likelihood, max_rank, num_starts
        self.calibrate, self.engine, self.missing = calibrate, engine, missing
        self.seed, self.input_names = fixed_seed(seed), input_names

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> FunctionalTucker:
        """Fit to N entries.

        Args:
            x: (N, K) coordinates: tensor, array or data frame; dates become days.
            y: (N,) targets, NaN where missing.
            checkpoint: directory for checkpoints; None for none.
            resume: go on from a checkpoint of the same fit, if there is one.
            progress: show a progress bar.
            callbacks: called after each sweep.

        Raises:
            DataError, ShapeError, DtypeError, ConfigurationError: see the messages; all are
                raised before any sweep.
        """
        program, data = self._prepare(x, y)
        engine, reason = self._engine(program.problem)
        if isinstance(engine, Gibbs) and not program.problem.likelihood.continuous:
            raise ConfigurationError(
                message(
                    "Gibbs sampling needs a real-valued likelihood",
                    where="engine",
                    got=program.problem.likelihood.name,
                    expected="gaussian or student_t",
                )
            )
        variational = CAVI() if isinstance(engine, Gibbs) else engine
        self.result_: FitResult = variational.fit(
            program,
            seed=self.seed,
            data=data,
            reason=reason,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
        )
        if isinstance(engine, Gibbs):
            self.result_ = self._sample(engine, program, data, progress)
        self.result_.diagnostics["num_missing"] = self.num_missing_
        return self

    def _sample(self, engine: Gibbs, program: Program, data: str, progress: bool) -> FitResult:
        """Gibbs draws started from, and with the hyper-parameters of, the variational fit."""
        fitted = self.result_.state
        result = engine.fit(
            TuckerGibbs(program.problem, fitted),
            seed=self.seed,
            data=data,
            reason="asked for; started from the variational fit",
            progress=progress,
        )
        assert isinstance(result.posterior, DrawsPosterior)
        draws = result.posterior.draws
        result.posterior = TuckerDraws(program.problem, fitted, program.posterior_spec, draws)
        result.diagnostics |= {"variational": self.result_.diagnostics}
        result.resume_with = None  # it would go on with paths on the grids, not with this posterior
        return result

    def update(self, x: Any, y: Any) -> FunctionalTucker:
        """Append entries (old or new coordinates) without refitting; the old data are not needed.

        Hyper-parameters and ranks stay; see :mod:`probkit.tensor.streaming`.

        Args:
            x: (N, K) coordinates in the units of the fit; columns of a data frame by name.
            y: (N,) targets, NaN where missing.

        Raises:
            ConfigurationError: the model is not fitted, or was fitted by Gibbs sampling.
            DataError, ShapeError, DtypeError: as in :meth:`fit`, or a data frame without a column
                of the fit.
        """
        posterior = self._posterior()
        points = self._points(x)
        target, observed = to_target(y, points.shape[0], self.missing)
        check_targets(target[observed], posterior.spec()["likelihood"], min_distinct=0)
        known = int(self.result_.diagnostics.get("num_missing", 0))
        missing = known + int((~observed).sum())
        self.result_ = replace(
            self.result_,
            posterior=posterior.append(points[observed], target[observed]),
            resume_with=None,
            diagnostics=self.result_.diagnostics | {"num_missing": missing},
        )
        self.num_missing_ = missing
        return self

    def predict(
        self,
        x: Any,
        *,
        return_sd: bool = False,
        quantiles: float | Sequence[float] | None = None,
        num_samples: int | None = None,
        seed: Seed = 0,
    ) -> Any:
        """Predict new observations at any coordinates.

        Args:
            x: (Q, K) coordinates; columns of a data frame by name.
            return_sd: return ``(mean, sd)``.
            quantiles: levels, one at least; returns a dictionary with ``mean``, ``sd`` and
                ``quantiles`` (L, Q).
            num_samples: adds ``samples`` (S, Q), joint draws of the noiseless surface, to the
                dictionary.
            seed: of the draws.

        Returns:
            Tensors if ``x`` is a tensor, arrays otherwise.

        Raises:
            ConfigurationError: the model is not fitted, a level outside (0, 1), or no positive
                number of samples.
            DataError, ShapeError, DtypeError: coordinates as in :meth:`fit`, or a data frame
                without a column of the fit.
        """
        posterior = self._posterior()
        if num_samples is not None:
            num_samples = check_whole("num_samples", num_samples, 1, _MANY)
        levels = () if quantiles is None else check_levels("quantiles", quantiles)
        points = self._points(x)
        result: dict[str, Any] = dict(posterior.predict(points, quantiles=levels))
        if num_samples is not None:
            result["samples"] = posterior.sample_f(points, num_samples, as_generator(seed))
        if not isinstance(x, Tensor):
            result = {n: v.cpu().numpy() for n, v in result.items()}
        if quantiles is not None or num_samples is not None:
            return result
        return (result["mean"], result["sd"]) if return_sd else result["mean"]

    def score(self, x: Any, y: Any) -> float:
        """Mean log predictive density of the observed targets (higher is better).

        Raises:
            ConfigurationError: the model is not fitted.
            DataError, ShapeError, DtypeError: as in :meth:`predict`.
        """
        posterior, points = self._posterior(), self._points(x)
        target, observed = to_target(y, points.shape[0], "drop")
        return float(posterior.log_likelihood(points[observed], target[observed]).mean())

    def factors(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each mode: grid in user units (D,), means and sds of its factors (D, R)."""
        posterior = self._posterior()
        mean, sd = posterior.mean(), posterior.sd()
        modes = range(len(self.input_names_))
        return [(posterior.grid(k), mean[f"factor_{k}"], sd[f"factor_{k}"]) for k in modes]

    def to_datatree(self, **options: Any) -> xr.DataTree:
        """The result for ArviZ (``FitResult.to_datatree``)."""
        self._posterior()
        return self.result_.to_datatree(**options)

    def save(self, directory: str | Path) -> Path:
        """Write the result; see :meth:`probkit.infer.FitResult.save`."""
        self._posterior()
        return self.result_.save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> FunctionalTucker:
        """A fitted model from a saved result, without the data.

        Raises:
            CheckpointError: no such result, or that of another model.
        """
        result = FitResult.load(directory, expect=TuckerPosterior)
        spec = result.posterior.spec()
        model = cls(**spec["estimator"])
        model.result_ = result
        model.input_names_, model._columns = list(spec["input_names"]), spec.get("columns")
        model.num_missing_ = int(result.diagnostics.get("num_missing", 0))
        return model

    def _points(self, x: Any) -> Tensor:
        """Coordinates of a fitted model."""
        return to_inputs(x, num_modes=len(self.input_names_), columns=self._columns)[0]

    # -- preparation ---------------------------------------------------------------------------

    def _prepare(self, x: Any, y: Any) -> tuple[Program, str]:
        check_settings(self)
        inputs, names = to_inputs(x)
        check_names(names if self.input_names is None else self.input_names, len(names))
        target, observed = to_target(y, inputs.shape[0], self.missing)
        self.num_missing_ = int((~observed).sum())
        inputs, target = inputs[observed], target[observed]
        name = "student_t" if self.likelihood == "auto" else self.likelihood
        check_targets(target, name)
        by_name = self.input_names is None and hasattr(x, "columns")
        self._columns = names if by_name else None
        self.input_names_ = list(names if self.input_names is None else self.input_names)
        kernels = resolve_kernels(self.kernels, inputs.shape[1])
        likelihood = make_likelihood(name)
        offset, scale = 0.0, 1.0
        if likelihood.continuous:
            offset, scale = target_scale(target)
        scalings = [Scaling.of(column) for column in inputs.T]
        columns = [s.apply(column) for s, column in zip(scalings, inputs.T, strict=True)]
        entries = Entries.from_columns(columns, (target - offset) / scale)
        self._check_grids(entries)
        engine = self.engine if isinstance(self.engine, CVI) else CVI()
        problem = TuckerVariational(
            entries,
            likelihood,
            self.structure,
            NamedKernels(tuple(kernels)),
            damping=engine.damping if not likelihood.continuous else 1.0,
        )
        spec = {
            "estimator": saved_settings(self),
            "structure": self.structure,
            "likelihood": name,
            "likelihood_options": {},
            "kernels": [k if isinstance(k, str) else type(k).__name__ for k in kernels],
            "input_names": self.input_names_,
            "columns": self._columns,
            "scalings": [[s.offset, s.scale] for s in scalings],
            "target_offset": offset,
            "target_scale": scale,
        }
        program = Program(problem, self._schedule(entries, likelihood.continuous), spec)
        return program, data_digest(inputs, target)

    def _schedule(self, entries: Entries, continuous: bool) -> ProgramSettings:
        sizes = [g.shape[0] for g in entries.grids]
        if self.rank == "auto":
            ranks = [tuple(min(r, d) for d in sizes) for r in range(1, self.max_rank + 1)]
            if self.structure == "cp":
                ranks = [(r,) * len(sizes) for r in range(1, self.max_rank + 1)]
            check_ranks(list(ranks[-1]), sizes, self.structure, where="max_rank")
            candidates = [r for r in dict.fromkeys(ranks) for _ in range(self.num_starts or 4)]
        else:
            assert not isinstance(self.rank, str)
            single = check_ranks(self.rank, sizes, self.structure)
            candidates = [single] * (self.num_starts or 4)
        enough = entries.num_entries >= _MIN_HOLDOUT_ENTRIES
        wanted = self.rank == "auto" or (self.calibrate and continuous)
        return ProgramSettings(
            tuple(candidates),
            prune=self.rank == "auto",
            eliminate=self.rank == "auto" and self.structure == "cp",
            holdout=0.125 if enough and wanted else 0.0,
        )

    def _check_grids(self, entries: Entries) -> None:
        for name, grid in zip(self.input_names_, entries.grids, strict=True):
            if grid.shape[0] == 1:
                warnings.warn(
                    f"Mode {name!r} has one distinct coordinate; its factor is a constant.",
                    FitWarning,
                    stacklevel=4,
                )

    def _engine(self, problem: TuckerVariational) -> tuple[CAVI | Gibbs, str]:
        if self.engine is not None:
            return self.engine, "asked for"
        if problem.likelihood.continuous:
            return CAVI(), "the likelihood is conditionally conjugate"
        return CVI(), "the likelihood is not conjugate"

    def _posterior(self) -> TuckerPosterior:
        result = getattr(self, "result_", None)
        if result is None:
            raise ConfigurationError(
                message("The model is not fitted", remedy="call fit(x, y) first")
            )
        posterior = result.posterior
        assert isinstance(posterior, TuckerPosterior)
        return posterior
