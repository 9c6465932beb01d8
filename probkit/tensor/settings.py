"""Settings of ``FunctionalTucker``: checked before a fit, and as a saved result keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from probkit.errors import ConfigurationError, message
from probkit.tensor.likelihoods import LIKELIHOOD_NAMES
from probkit.validation import check_whole, require_choice

if TYPE_CHECKING:
    from probkit.tensor.estimator import FunctionalTucker

__all__ = ["check_names", "check_settings", "saved_settings"]

_CHOICES = {
    "structure": ("tucker", "cp"),
    "likelihood": ("auto", *LIKELIHOOD_NAMES),
    "missing": ("drop", "raise"),
}
_MANY = 10_000_000


def check_settings(model: FunctionalTucker) -> None:
    """Words and counts; ranks are checked once the data are known.

    Raises:
        ConfigurationError: an unknown word, a count that is no positive integer, or ranks that
            are no integers.
    """
    for name, allowed in _CHOICES.items():
        require_choice(model, name, allowed)
    rank = model.rank
    whole = rank if isinstance(rank, Iterable) and not isinstance(rank, str) else [rank]
    if rank != "auto" and not all(isinstance(r, int | Integral) for r in whole):
        raise ConfigurationError(
            message(
                "Unknown rank",
                where="rank",
                got=repr(rank),
                expected='"auto", an integer, or one integer a mode',
            )
        )
    for name in ("max_rank", "num_starts"):
        value = getattr(model, name)
        if value is not None:
            setattr(model, name, check_whole(name, value, 1, _MANY))


def check_names(names: Sequence[str] | None, num_modes: int) -> None:
    """One name a mode, or none at all.

    Raises:
        ConfigurationError: another number of names.
    """
    if names is not None and len(names) != num_modes:
        raise ConfigurationError(
            message(
                "There must be one name for each column",
                where="input_names",
                got=list(names),
                expected=f"{num_modes} names",
            )
        )


def saved_settings(model: FunctionalTucker) -> dict[str, Any]:
    """Arguments of the estimator in types that JSON knows; kernel objects and engines are left out.

    Kernels by name are kept.
    """
    names = ("structure", "likelihood", "max_rank", "num_starts", "calibrate", "missing", "seed")
    found = {name: getattr(model, name) for name in names}
    rank, kernels = model.rank, model.kernels
    if isinstance(rank, int | Integral):
        found["rank"] = int(rank)
    else:
        found["rank"] = rank if isinstance(rank, str) else [int(r) for r in rank]
    if kernels is None or isinstance(kernels, str):
        found["kernels"] = kernels
    names_ = None if model.input_names is None else [str(name) for name in model.input_names]
    return {**found, "input_names": names_}
