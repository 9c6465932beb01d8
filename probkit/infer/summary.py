"""The text of ``result.summary()``: verdict, status, engine, and a table of moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probkit.infer.point_estimate import PointEstimate
from probkit.infer.resolution import coarse_unknowns

if TYPE_CHECKING:
    from probkit.infer.result import FitResult

__all__ = ["summarize"]

_LEVELS = (0.05, 0.95)


def summarize(result: FitResult, num_rows: int) -> str:
    """Several lines; the first one is the verdict with its reasons."""
    record = result.provenance
    ending = f"{result.status.value}: {result.status.message}"
    if result.detail:
        ending += f" ({result.detail.rstrip('.')})"
    if result.status.remedy:
        ending += f" Remedy: {result.status.remedy}."
    verdict = result.verdict
    lines = [
        str(verdict),
        ending,
        f"{record.get('engine', 'engine unknown')}, seed {record.get('seed')}, "
        f"{record.get('dtype')}, {record.get('device')}; {record.get('reason', '')}",
        *result.diagnostics.get("warnings", []),
        *(f"{text}." for text in coarse_unknowns(result.posterior) if text not in verdict.reasons),
        *_loo(result),
    ]
    how = "result.check()" if result.checks is not None else result.diagnostics.get("check_with")
    if how and not {"loo", "predictive_p"} & result.diagnostics.keys():
        lines.append(f"The model was not checked against its data: {how} does so.")
    return "\n".join([*lines, "", *_table(result, num_rows)])


def _loo(result: FitResult) -> Iterator[str]:
    for site, loo in result.diagnostics.get("loo", {}).items():
        yield f"{site}: elpd_loo {loo['elpd']:.1f} (se {loo['se']:.1f}), p_loo {loo['p_loo']:.1f}"


def _table(result: FitResult, num_rows: int) -> Iterator[str]:
    posterior = result.posterior
    if isinstance(posterior, PointEstimate):
        columns, parts = ["value"], [posterior.point()]
    else:
        low, high = (posterior.quantile(level) for level in _LEVELS)
        columns = ["mean", "sd", "5 %", "95 %"]
        parts = [posterior.mean(), posterior.sd(), low, high]
    rows = [
        (
            _label(name, index, parts[0][name]),
            *(float(part[name].flatten()[index]) for part in parts),
        )
        for name in parts[0]
        if not parts[0][name].is_complex()
        for index in range(parts[0][name].numel())
    ]
    width = max((len(str(row[0])) for row in rows[:num_rows]), default=0)
    yield " " * width + "".join(f"{name:>12}" for name in columns)
    for label, *values in rows[:num_rows]:
        yield f"{label:<{width}}" + "".join(f"{value:>12.4g}" for value in values)
    if len(rows) > num_rows:
        yield f"... and {len(rows) - num_rows} more"


def _label(name: str, index: int, value: Tensor) -> str:
    if value.dim() == 0:
        return name
    place = torch.unravel_index(torch.tensor(index), value.shape)
    return f"{name}[{', '.join(str(int(i)) for i in place)}]"
