"""Settings of ``FunctionalTucker``: checked before a fit, and as a saved result keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.infer import CAVI, Gibbs
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
_COMPONENT = "_component"
"""ends the name of the dimension of a mode's components"""
_NO_NAME = "."
"""what files call a group itself"""


def check_settings(model: FunctionalTucker) -> None:
    """Words, engine and counts; ranks are checked once the data are known.

    Raises:
        ConfigurationError: an unknown word, something that is no engine of the family, a count
            that is no positive integer, or ranks that are no integers.
    """
    for name, allowed in _CHOICES.items():
        require_choice(model, name, allowed)
    if model.engine is not None and not isinstance(model.engine, CAVI | Gibbs):
        raise ConfigurationError(
            message(
                "This is no engine of a tensor decomposition",
                where="engine",
                got=repr(model.engine),
                expected="CAVI(...), CVI(...) or Gibbs(...) of probkit.infer, or None",
            )
        )
    if isinstance(model.rank, np.ndarray | Tensor):
        model.rank = model.rank.tolist()
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
    """One name a mode, or none at all; a saved result has them as names of dimensions.

    Raises:
        ConfigurationError: another number of names, names that are no text, empty or repeated, or
            such as a saved result cannot have.
    """
    if names is None:
        return
    if isinstance(names, str) or len(names) != num_modes:
        raise ConfigurationError(
            message(
                "There must be one name for each column",
                where="input_names",
                got=repr(names) if isinstance(names, str) else list(names),
                expected=f"{num_modes} names",
            )
        )
    known = list(names)
    for place, name in enumerate(known):
        if not isinstance(name, str) or not name:
            raise _bad_name("A name must be a text that is not empty", name, known)
        if name in known[:place]:
            raise _bad_name("Two columns have the same name", name, known)
        component = name.endswith(_COMPONENT) and name.removesuffix(_COMPONENT) in known
        if name == _NO_NAME or component:
            raise _bad_name("A result could not be saved with this name of a column", name, known)


def _bad_name(what: str, name: object, names: Sequence[object]) -> ConfigurationError:
    return ConfigurationError(
        message(
            what,
            where="input_names",
            got=f"{name!r} among {names}",
            expected=f"different texts, none of them {_NO_NAME!r} or another name with "
            f"{_COMPONENT!r} after it",
            remedy="rename the column, or give input_names",
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
