"""Checked series: what users give, brought to the form that the filter takes.

Times become multiples of one step (the smallest distance between neighbours), missing values
become steps without an observation, and every series of a batch shares times and missing entries.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from probkit.errors import DataError, FitWarning, ShapeError, message
from probkit.statespace.fractional import MarkovApproxFBM
from probkit.statespace.fractional_tables import TABLE_STEPS
from probkit.validation import as_real, as_times

__all__ = ["Series", "prepare_series"]

_MIN_LENGTH = 8
_FAR_BEYOND = 4
_EVEN = 1e-6
_LARGEST = 1e150
"""of values: variances, and sums of squares over a series, are still numbers"""
_FAR_MEAN = 3.0
"""in standard deviations: what the mean of a long-memory series hardly ever reaches"""
_INDICES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Series:
    """Series of one set of times, in units of a step.

    Attributes:
        values: (R, T) observations after the first level; for increments all of them. Missing
            ones are 0.
        observed: by step.
        gaps: steps since the previous time.
        elapsed: steps since the first time, by entry.
        first: the first level of each series; 0 for increments.
        increments: whether values are increments.
        step: length of a step in the user's unit of time.
        num_missing: entries left out.
        last_time: in the user's unit.
        num_observed: steps with an observation.
        distinct: the distinct gaps in rising order.
        gap_index: which of them each gap is.
        seen: loading of a slope on each step's observation.
    """

    values: Float[Tensor, "R T"]
    observed: Bool[Tensor, " T"]
    gaps: Float[Tensor, " T"]
    elapsed: list[float]
    first: Float[Tensor, " R"]
    increments: bool
    step: float
    num_missing: int
    last_time: float
    num_observed: int = field(init=False)
    distinct: Float[Tensor, " G"] = field(init=False)
    gap_index: Int64[Tensor, " T"] = field(init=False)
    seen: Float[Tensor, " T"] = field(init=False)

    def __post_init__(self) -> None:
        # here, so that a model can be traced: a tracer follows no values
        distinct, index = torch.unique(self.gaps, return_inverse=True)
        for name, value in (
            ("num_observed", int(self.observed.sum())),
            ("distinct", distinct),
            ("gap_index", index),
            ("seen", self.gaps if self.increments else self.gaps.new_tensor(self.elapsed)),
        ):
            object.__setattr__(self, name, value)

    @property
    def span(self) -> int:
        """Length in steps, rounded up."""
        return max(1, math.ceil(self.elapsed[-1] - _EVEN))


def prepare_series(
    y: Float[Tensor, "*R N"], times: Float[Tensor, " N"] | None, kind: str
) -> Series:
    """Check series and times and bring them to units of one step.

    Args:
        y: one series (N,) or R of them (R, N); NaN where missing. It is copied.
        times: of the values, in increasing order; 0, 1, 2, ... if None.
        kind: "levels" or "increments".

    Raises:
        ShapeError: not one or two dimensions, too short, or times of another length.
        DataError: infinite values, a constant series, values whose squares float64 cannot hold,
            unsorted or duplicate times, series of a batch with different missing entries, or
            increments at uneven times.
        DtypeError: values that are no real numbers.

    Example:
        >>> y = torch.linspace(0.0, 1.0, 9).square()
        >>> prepare_series(y, 0.5 * torch.arange(9.0), "levels").step
        0.5
    """
    values = as_real(y, "y").to(torch.float64, copy=True)  # the caller may change his own
    values = values[None] if values.dim() == 1 else values
    if values.dim() != 2 or values.shape[1] < _MIN_LENGTH:
        raise ShapeError(
            message(
                "A series needs at least eight values",
                where="y",
                got=tuple(values.shape),
                expected="(N,) or (R, N) with N >= 8",
            )
        )
    grid = _times(times, values.shape[1])
    if bool(values.isinf().any()):
        place = torch.nonzero(values.isinf())[0].tolist()
        raise DataError(
            message(
                "A value is infinite",
                where="y",
                got=f"index {place[-1]}",
                remedy="drop it, or mark it as missing by NaN",
            )
        )
    missing = values.isnan()
    if bool((missing != missing[:1]).any()):
        raise DataError(
            message(
                "Series of one batch must miss the same entries",
                where="y",
                remedy="fit series with other gaps on their own",
            )
        )
    observed = ~missing[0]
    _check_variation(values[:, observed])
    gaps = grid.diff()
    step = float(gaps.min())
    if kind == "increments":
        return _increments(values, observed, gaps, step, float(grid[-1]))
    begin = int(torch.nonzero(observed)[0])
    elapsed = ((grid[begin + 1 :] - grid[begin]) / step).tolist()
    series = Series(
        torch.nan_to_num(values[:, begin + 1 :]),
        observed[begin + 1 :],
        gaps[begin:] / step,
        elapsed,
        values[:, begin],
        False,
        step,
        int(missing[0].sum()),
        float(grid[-1]),
    )
    _warn_beyond(series)
    return series


def _increments(values: Tensor, observed: Tensor, gaps: Tensor, step: float, last: float) -> Series:
    uneven = torch.nonzero((gaps / step - 1).abs() > _EVEN)
    if len(uneven):
        raise DataError(
            message(
                "Increments need evenly spaced times",
                where="times",
                got=f"another step after index {int(uneven[0])}",
                remedy='give cumulative sums and kind="levels", or NaN for missing increments',
            )
        )
    size = values.shape[1]
    elapsed = [float(n + 1) for n in range(size)]
    zeros, ones = values.new_zeros(len(values)), values.new_ones(size)
    number = int((~observed).sum())
    clean = torch.nan_to_num(values)
    series = Series(clean, observed, ones, elapsed, zeros, True, step, number, last)
    _warn_of_mean(values[:, observed])
    _warn_beyond(series)
    return series


def _times(times: Tensor | None, size: int) -> Tensor:
    if times is None:
        return torch.arange(size, dtype=torch.float64)
    grid = as_times(times, "times")
    if grid.shape != (size,):
        raise ShapeError(
            message("Times and values differ", where="times", got=tuple(grid.shape), expected=size)
        )
    wrong = torch.nonzero(~(grid.diff() > 0))
    if len(wrong) or not bool(grid.isfinite().all()):
        index = int(wrong[0]) + 1 if len(wrong) else int(torch.nonzero(~grid.isfinite())[0])
        raise DataError(
            message(
                "Times must be finite and strictly increasing",
                where="times",
                got=f"{float(grid[index])} at index {index}",
                remedy="sort the rows and average values of equal times",
            )
        )
    return grid


def _check_variation(values: Tensor) -> None:
    if values.shape[1] < _MIN_LENGTH:
        raise ShapeError(
            message(
                "A series needs at least eight values that are not missing",
                where="y",
                got=values.shape[1],
            )
        )
    high, low = values.amax(1), values.amin(1)
    constant = torch.nonzero(high == low)
    if len(constant):
        raise DataError(
            message("A series has zero variance", where="y", got=f"series {int(constant[0])}")
        )
    largest, smallest = float(values.abs().max()), float((high - low).min())
    if largest > _LARGEST or smallest < 1 / _LARGEST:
        raise DataError(
            message(
                "The squares of these values, or of their changes, are beyond float64",
                where="y",
                got=f"values up to {largest:.3g}, a range of {smallest:.3g}",
                expected=f"values up to {_LARGEST:g}, a range of at least {1 / _LARGEST:g}",
                remedy="choose another unit",
            )
        )


def _warn_of_mean(values: Tensor) -> None:
    """Increments have mean zero in the model, and any other looks like the longest memory."""
    mean, sd = values.mean(1), values.std(1)
    far = torch.nonzero(mean.abs() > _FAR_MEAN * sd)
    if len(far):
        index = int(far[0])
        text = message(
            "Increments are far from a mean of zero, which the model takes for long memory",
            where="y",
            got=f"series {index}: mean {float(mean[index]):.4g}, sd {float(sd[index]):.4g}",
            remedy='subtract the mean first (--center on the command line), or check kind="levels"',
        )
        warnings.warn(text, FitWarning, stacklevel=5)


def _warn_beyond(series: Series) -> None:
    if series.span > _FAR_BEYOND * TABLE_STEPS[-1]:
        indices = torch.tensor(_INDICES, dtype=torch.float64)
        lost = MarkovApproxFBM(indices, num_steps=TABLE_STEPS[-1]).divergence(series.span)
        text = message(
            "The series is far longer than the largest table",
            got=f"{series.span} steps",
            expected=f"<= {TABLE_STEPS[-1]}",
            causes=(
                "long-memory power below the table's lowest rate is represented by a slope: "
                f"{float(lost.min()):.1f} to {float(lost.max()):.1f} nats from the exact law for "
                f"Hurst indices from {_INDICES[0]} to {_INDICES[-1]}",
            ),
            remedy="thin the series, or give its parts as a batch",
        )
        warnings.warn(text, FitWarning, stacklevel=4)
