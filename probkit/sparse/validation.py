"""The door: arrays of any layout become a checked problem, or an error that says what to change."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.errors import (
    ConfigurationError,
    DataError,
    DtypeError,
    FitWarning,
    ShapeError,
    message,
)
from probkit.sparse.grids import GridDictionary
from probkit.sparse.problem import Problem
from probkit.sparse.program import NOISE_FLOOR, Layout
from probkit.validation import as_real, as_tensor, check_choice, check_finite

__all__ = ["check_grid", "check_noise", "to_dictionaries", "to_problem"]

_NOISELESS = 1e-12
_DUPLICATE = 1 - 1e-10
_TOO_LOUD = 10.0
_MARGIN = 100.0
_MISSING = (
    "missing measurements break the Kronecker form: fill them in, drop whole rows of a factor, or "
    "see probkit.linalg.masked_kronecker"
)


def to_problem(
    y: Any,
    dictionaries: Any,
    *,
    noise: Any,
    snapshots: bool,
    order: str,
    max_bytes: float,
) -> tuple[Problem, Layout]:
    """Check and arrange everything; arguments as for ``KroneckerSBL``."""
    check_choice("order", "order", order, ("C", "F"))
    factors = to_dictionaries(dictionaries)
    data = _to_tensor(y, "y")
    if data.device != factors[0].device:
        raise DataError(
            message(
                "y and the dictionaries are on different devices",
                where="y",
                got=data.device,
                expected=factors[0].device,
                remedy="move one of them with .to(device)",
            )
        )
    dtype = torch.promote_types(data.dtype, factors[0].dtype)
    data, factors = data.to(dtype), [a.to(dtype) for a in factors]
    check_finite(data, "y", remedy=_MISSING)
    data, layout = _arrange(data, factors, snapshots, order)
    factors = [a if a.dim() == 3 else a.unsqueeze(0) for a in factors]
    num_atoms = math.prod(a.shape[-1] for a in factors)
    needed = data.shape[0] * data.shape[1] * num_atoms * data.element_size()
    if needed > max_bytes:
        raise ConfigurationError(
            message(
                "The recovered tensor does not fit into the byte budget",
                where="dictionaries",
                got=f"{num_atoms} atoms, {needed / 1e9:.3g} GB",
                expected=f"<= {max_bytes / 1e9:.3g} GB",
                remedy="recover slices of the problem, or raise max_bytes",
            )
        )
    _check_squares(data, "y")
    for k, a in enumerate(factors):
        _check_squares(a, f"dictionaries[{k}]")
    problem = Problem(factors, data, None)
    variance = check_noise(noise, problem)
    silent = problem.power == 0
    if bool(silent.any()):
        which = f" in {int(silent.sum())} of {len(silent)} problems" if len(silent) > 1 else ""
        text = f"y is zero everywhere{which}: the recovered x is zero."
        warnings.warn(text, FitWarning, stacklevel=4)
    return Problem(factors, data, variance), layout


def to_dictionaries(dictionaries: Any) -> list[Tensor]:
    """Matrices (M_k, N_k) or (B, M_k, N_k) of one dtype and device, finite."""
    if isinstance(dictionaries, Tensor | np.ndarray) or not isinstance(dictionaries, Sequence):
        raise ShapeError(
            message(
                "Dictionaries are a list of factor matrices",
                where="dictionaries",
                got=type(dictionaries).__name__,
                expected="[A_1, ..., A_I]",
                remedy="for one dense Kronecker matrix use nearest_kronecker(matrix, shapes)",
            )
        )
    found = [_to_tensor(a, f"dictionaries[{k}]") for k, a in enumerate(dictionaries)]
    if not found:
        raise ShapeError(
            message(
                "No dictionary was given", where="dictionaries", got="[]", expected="[A_1, ...]"
            )
        )
    for k, a in enumerate(found):
        if a.dim() not in (2, 3) or 0 in a.shape:
            raise ShapeError(
                message(
                    "A dictionary is a matrix of measurements by atoms",
                    where=f"dictionaries[{k}]",
                    got=tuple(a.shape),
                    expected="(M, N), or (batch, M, N)",
                )
            )
        if a.device != found[0].device:
            raise DataError(
                message(
                    "The dictionaries are on different devices",
                    where=f"dictionaries[{k}]",
                    got=a.device,
                    expected=found[0].device,
                    remedy="move them with .to(device)",
                )
            )
    for k, a in enumerate(found):
        check_finite(a, f"dictionaries[{k}]", remedy=_MISSING)
    batches = {a.shape[0] for a in found if a.dim() == 3} - {1}
    if len(batches) > 1:
        raise ShapeError(
            message("The dictionaries' batches differ", where="dictionaries", got=sorted(batches))
        )
    dtype = found[0].dtype
    for a in found[1:]:
        dtype = torch.promote_types(dtype, a.dtype)
    for k, a in enumerate(found):
        _warn_of_duplicates(a, k)
    return [a.to(dtype) for a in found]


def check_grid(dictionary: GridDictionary, where: str) -> None:
    """A grid dictionary's matrix has a column for each point and a derivative in it."""
    grid = dictionary.grid
    if grid.dim() != 1 or len(grid) < 2 or not grid.is_floating_point():
        raise ShapeError(
            message(
                "A grid is a vector of at least two real points",
                where=f"{where}.grid",
                got=f"{tuple(grid.shape)} {grid.dtype}",
                expected="(N,), N >= 2, floating point",
            )
        )
    check_finite(grid, f"{where}.grid")
    matrix = dictionary.response(grid.detach().clone().requires_grad_())
    if matrix.dim() != 2 or matrix.shape[1] != len(grid):
        raise ShapeError(
            message(
                "A response has a column for each point of the grid",
                where=f"{where}.response",
                got=tuple(matrix.shape),
                expected=f"(M, {len(grid)})",
            )
        )
    if not matrix.requires_grad:
        raise ConfigurationError(
            message(
                "The response does not depend on the points in a way that torch can differentiate",
                where=f"{where}.response",
                causes=("it goes through numpy, or through .item() or .detach()",),
                remedy="write it with torch operations, or pass its matrix to stay on the grid",
            )
        )


def check_noise(noise: Any, problem: Problem) -> Tensor | None:
    """Noise variances (B), or None where they are to be learned.

    Raises:
        ConfigurationError: an unknown word, or a variance that is not positive or far too large.
        DtypeError: neither a word nor real numbers.
        ShapeError: neither one number nor one a problem.
    """
    power = torch.where(problem.power > 0, problem.power, 1.0)
    if isinstance(noise, str):
        if noise == "learn":
            return None
        if noise == "noiseless":
            return _NOISELESS * power
        raise ConfigurationError(
            message(
                "Unknown noise",
                where="noise",
                got=repr(noise),
                expected='"learn", "noiseless" or a variance',
            )
        )
    value = as_real(noise, "noise").to(problem.y.device, problem.real_dtype)
    if value.numel() not in (1, problem.num_problems):
        raise ShapeError(
            message(
                "The noise variance is one number (for each problem of a batch)",
                where="noise",
                got=tuple(value.shape),
                expected="a scalar",
                causes=("a variance for each measurement breaks the Kronecker form",),
                remedy="whiten y and the dictionaries factor by factor",
            )
        )
    value = value.reshape(-1).expand(problem.num_problems).clone()
    if not bool((torch.isfinite(value) & (value > 0)).all()):
        raise ConfigurationError(
            message(
                "A noise variance must be positive",
                where="noise",
                got=noise,
                expected="> 0",
                causes=("a value in decibels, which is not a variance",),
                remedy='noise="noiseless" for exact data, noise="learn" if it is not known',
            )
        )
    if bool((value > _TOO_LOUD * power).any()):
        raise ConfigurationError(
            message(
                "The noise variance is far above the power of the data",
                where="noise",
                got=noise,
                expected=f"<= {_TOO_LOUD * float(power.min()):.3g}",
                causes=("a value in decibels", "a precision instead of a variance"),
                remedy="give the variance, in squared units of y",
            )
        )
    return value


def _arrange(
    y: Tensor, factors: list[Tensor], snapshots: bool, order: str
) -> tuple[Tensor, Layout]:
    """y as (B, L, M_1, ..., M_I)."""
    rows = [a.shape[-2] for a in factors]
    total, lead = math.prod(rows), int(snapshots)
    if y.dim() >= len(rows) + lead and list(y.shape[y.dim() - len(rows) :]) == rows:
        outer_shape = tuple(y.shape[: y.dim() - len(rows)])
    elif y.dim() >= 1 + lead and y.shape[-1] == total:
        outer_shape = tuple(y.shape[:-1])
        if order == "F":
            y = y.reshape(*outer_shape, *reversed(rows))
            y = y.permute(*range(len(outer_shape)), *reversed(range(len(outer_shape), y.dim())))
    else:
        raise _misfit(y, rows, snapshots)
    if 0 in y.shape:
        raise ShapeError(
            message("There is nothing to recover", where="y", got=tuple(y.shape), expected="no 0")
        )
    batch = outer_shape[: len(outer_shape) - lead]
    columns = outer_shape[-1] if snapshots else 1
    arranged = y.reshape(math.prod(batch), columns, *rows)
    sizes = {a.shape[0] for a in factors if a.dim() == 3} - {1, arranged.shape[0]}
    if sizes:
        raise ShapeError(
            message(
                "Dictionaries and y have different batches",
                where="dictionaries",
                got=sorted(sizes),
                expected=arranged.shape[0],
            )
        )
    return arranged, Layout(batch, snapshots, order)


def _check_squares(values: Tensor, where: str) -> None:
    """Variances are squares: those of (B, ...) must be numbers of the dtype, as must their sum."""
    largest = values.abs().flatten(1).amax(-1)
    limits = torch.finfo(values.real.dtype)
    low = math.sqrt(limits.tiny / NOISE_FLOOR)
    high = math.sqrt(limits.max / values[0].numel()) / _MARGIN
    wider = ", or convert to float64" if limits.bits < 64 else ""
    bad = largest[(largest > high) | ((largest > 0) & (largest < low))]
    if len(bad):
        raise DataError(
            message(
                f"Variances in these units are out of the range of {values.real.dtype}",
                where=where,
                got=f"a largest absolute value of {float(bad[0]):.3g}",
                expected=f"0, or between {low:.1g} and {high:.1g}",
                remedy=f"divide {where} by {float(bad[0]):.1g}{wider}",
            )
        )


def _misfit(y: Tensor, rows: list[int], snapshots: bool) -> ShapeError:
    total, shape = math.prod(rows), tuple(y.shape)
    causes = []
    for permuted in itertools.permutations(range(len(rows))):
        moved = tuple(rows[k] for k in permuted)
        if moved != tuple(rows) and shape[-len(rows) :] == moved:
            causes.append(f"the dictionaries are in another order: {list(permuted)} would fit")
            break
    if y.numel() and y.numel() % total == 0:
        causes.append("snapshots or a batch must be the leading dimensions, not the last")
    lead = "(*batch, snapshots, " if snapshots else "(*batch, "
    return ShapeError(
        message(
            "y does not fit the dictionaries",
            where="y",
            got=shape,
            expected=f"{lead}{', '.join(map(str, rows))}) or {lead}{total})",
            causes=tuple(causes),
            remedy="where measurements are missing, see probkit.linalg.masked_kronecker",
        )
    )


def _to_tensor(value: Any, where: str) -> Tensor:
    tensor = as_tensor(value, where)
    if tensor.dtype in (torch.float16, torch.bfloat16, torch.complex32):
        raise DtypeError(
            message(
                "Half precision is not enough for evidence",
                where=where,
                got=tensor.dtype,
                expected="float32, float64, complex64 or complex128",
                remedy="convert with .double()",
            )
        )
    if tensor.is_complex() or tensor.is_floating_point():
        return tensor
    return tensor.to(torch.float64)


def _warn_of_duplicates(a: Tensor, k: int) -> None:
    if a.shape[-1] > 4096:  # the Gram matrix would be larger than the problem
        return
    norms = a.norm(dim=-2, keepdim=True)
    unit = a / torch.where(norms > 0, norms, 1.0)
    gram = (unit.mH @ unit).abs()
    gram = torch.triu(gram, diagonal=1)
    if bool((gram > _DUPLICATE).any()):
        pair = [int(i) for i in (gram > _DUPLICATE).nonzero()[0][-2:]]
        warnings.warn(
            f"Columns {pair} of dictionaries[{k}] are the same up to a factor: the evidence cannot "
            "tell them apart, and which of them is kept is arbitrary.",
            FitWarning,
            stacklevel=5,
        )
