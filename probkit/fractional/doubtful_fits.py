"""Warnings of Hurst fits that point to a wrong kind of data or a missing part of the model."""

from __future__ import annotations

import warnings

from probkit.errors import FitWarning, message
from probkit.fractional.posterior import HurstPosterior
from probkit.fractional.series import Series
from probkit.statespace.fractional_tables import HURST_RANGE

__all__ = ["warn_of_doubtful_fits"]

_NEAR_END = 0.05
_MOSTLY_NOISE = 8.0


def warn_of_doubtful_fits(
    posterior: HurstPosterior, series: Series, kind: str, *, noise: bool
) -> None:
    """Warn of an index at the end of its range, and of a series that is hardly anything but noise.

    Args:
        posterior: in the user's units.
        series: the data.
        kind: "levels" or "increments", as the user said.
        noise: whether the model has observation noise.
    """
    mean = posterior.mean()["hurst"]
    low, high = HURST_RANGE[0] + _NEAR_END, HURST_RANGE[1] - _NEAR_END
    if bool((mean < low).any()) or bool((mean > high).any()):
        other = "increments" if kind == "levels" else "levels"
        text = message(
            "The Hurst index is at the end of its range",
            got=f"posterior mean {float(mean.min()):.3f} to {float(mean.max()):.3f}",
            causes=(
                f"the values are {other}, not {kind}",
                "noise that the model leaves out" if not noise else "a trend or a shift",
            ),
            remedy=f'check with kind="{other}"',
        )
        warnings.warn(text, FitWarning, stacklevel=3)
    draws = posterior.draws
    if "noise" not in draws:
        return
    moved = draws["scale"] * series.step ** draws["hurst"]
    share = (draws["noise"] / moved).flatten(0, 1).median(0).values
    if bool((share > _MOSTLY_NOISE).any()):
        text = message(
            "Hardly anything but noise",
            got=f"noise of {float(share.max()):.0f} times the process's change over one step",
            causes=(
                f"the values are increments, not {kind}"
                if kind == "levels"
                else "the values are differences of noise",
                "noise that hides the process",
            ),
            remedy="look at the variogram; check kind",
        )
        warnings.warn(text, FitWarning, stacklevel=3)
