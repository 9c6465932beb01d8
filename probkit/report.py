"""Scores of predictions, and the report of a run as JSON and text.

Everything here takes arrays and plain dictionaries, so that any family, script or notebook can
report in the same form. The record of a run is a dictionary with any of these keys::

    title       one line
    study       {"family", "command"}: what can draw the figures again
    data        {name: value}: source, number of entries, target, coordinates
    held_out    {label: what was held out}
    estimates   {unknown: {"mean", "sd" or another column: value}}
    scores      {label: {name of model or baseline: {score: value}}}
    status      {"name", "message", "remedy", "detail"}, perhaps with a "verdict" and "reasons"
    ranks       list of integers, or {mode: rank}
    diagnostics {name: value}; a list of texts under "warnings"
    versions    {package: version}
    figures     {caption: file}, relative to the report
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.score_guide import how_to_read

__all__ = ["CENTRAL", "regression_scores", "to_plain", "write_report"]

CENTRAL = {50: (0.25, 0.75), 90: (0.05, 0.95), 95: (0.025, 0.975)}
"""levels of the central intervals that are scored, by their percentage"""
_LOG_2PI = math.log(2 * math.pi)


def regression_scores(
    y: Float[Tensor, " N"],
    mean: Float[Tensor, " N"],
    sd: Float[Tensor, " N"],
    quantiles: Mapping[float, Float[Tensor, " N"]] | None = None,
    log_density: Float[Tensor, " N"] | None = None,
) -> dict[str, float]:
    """Scores of predictions at held-out points.

    Args:
        y: targets.
        mean, sd: predictive moments.
        quantiles: predictive quantiles by level; coverages and the interval score are given for
            the central intervals whose two levels are there.
        log_density: log predictive density of each target; that of the normal with the given
            moments if None.

    Returns:
        ``rmse``, ``mae``, ``nll`` (nats per target) and, where their quantiles are there,
        ``coverage_50``, ``coverage_90``, ``coverage_95``, ``interval_score_90``.

    Raises:
        ShapeError: there is no target, or predictions do not have the targets' shape.

    Example:
        >>> y = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> spread = torch.ones(4)
        >>> scores = regression_scores(y, y + 0.5, spread, {0.25: y - 0.2, 0.75: y + 1.2})
        >>> scores["rmse"], scores["coverage_50"], round(scores["nll"], 4)
        (0.5, 1.0, 1.0439)
    """
    levels = {round(float(level), 6): value for level, value in (quantiles or {}).items()}
    _check_shapes(y, {"mean": mean, "sd": sd, "log_density": log_density, **_named(levels)})
    error = mean - y
    if log_density is None:
        log_density = -0.5 * ((error / sd).square() + _LOG_2PI) - torch.log(sd)
    scores = {
        "rmse": float(error.square().mean().sqrt()),
        "mae": float(error.abs().mean()),
        "nll": -float(log_density.mean()),
    }
    for percent, (low, high) in CENTRAL.items():
        if low in levels and high in levels:
            inside = (y >= levels[low]) & (y <= levels[high])
            scores[f"coverage_{percent}"] = float(inside.double().mean())
    if 0.05 in levels and 0.95 in levels:
        scores["interval_score_90"] = _interval_score(y, levels[0.05], levels[0.95], 0.1)
    return scores


def write_report(directory: str | Path, record: Mapping[str, Any]) -> Path:
    """Write ``report.json`` and the readable ``report.md``.

    Args:
        directory: made if it does not exist; earlier reports in it are replaced.
        record: see the module's description; sections that are absent are left out. Tensors and
            arrays become lists, and numbers that are not finite the texts "nan", "inf", "-inf".

    Returns:
        The path of ``report.md``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = write_report(folder, {"title": "A run", "data": {"rows": 3}}).read_text()
        >>> text.splitlines()[0]
        '# A run'
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    plain = to_plain(record)
    text = json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    path = directory / "report.md"
    path.write_text(_markdown(plain), encoding="utf-8")
    return path


def to_plain(value: Any) -> Any:
    """The value with JSON's types only: tensors as lists, numbers that are not finite as texts.

    Example:
        >>> to_plain({"sd": torch.ones(2), "khat": float("nan")})
        {'sd': [1.0, 1.0], 'khat': 'nan'}
    """
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


# -- scores ----------------------------------------------------------------------------------------


def _interval_score(y: Tensor, low: Tensor, high: Tensor, alpha: float) -> float:
    """Gneiting & Raftery (2007): width + 2 / alpha * distance outside."""
    outside = (low - y).clamp_min(0) + (y - high).clamp_min(0)
    return float((high - low + 2 / alpha * outside).mean())


def _named(levels: Mapping[float, Tensor]) -> dict[str, Tensor]:
    return {f"quantiles[{level}]": value for level, value in levels.items()}


def _check_shapes(y: Tensor, others: Mapping[str, Tensor | None]) -> None:
    if y.dim() != 1 or y.numel() == 0:
        raise ShapeError(
            message(
                "Scores need a vector of at least one target",
                where="y",
                got=tuple(y.shape),
                expected="(N,) with N >= 1",
            )
        )
    for name, value in others.items():
        if value is not None and value.shape != y.shape:
            raise ShapeError(
                message(
                    "Predictions must have the targets' shape",
                    where=name,
                    got=tuple(value.shape),
                    expected=tuple(y.shape),
                )
            )


# -- text ------------------------------------------------------------------------------------------


def _markdown(record: Mapping[str, Any]) -> str:
    parts = [f"# {record.get('title', 'Report')}\n"]
    parts += [_pairs_section("Data", record.get("data"))]
    parts += [_status(record.get("status")), _estimates(record.get("estimates")), _scores(record)]
    ranks = record.get("ranks")
    if isinstance(ranks, list):
        ranks = {f"mode {k}": rank for k, rank in enumerate(ranks)}
    parts += [_pairs_section("Ranks", ranks)]
    parts += [_figures(record.get("figures")), _diagnostics(record.get("diagnostics"))]
    parts += [_pairs_section("Versions", record.get("versions"))]
    if record.get("scores"):
        parts.append(f"## How to read the scores\n\n{how_to_read(record['scores'])}")
    return "\n".join(part for part in parts if part)


def _status(status: Mapping[str, Any] | None) -> str:
    if not status:
        return ""
    lines = [f"**{status.get('name', '')}**: {status.get('message', '')}"]
    lines += [f"Remedy: {status['remedy']}."] if status.get("remedy") else []
    lines += [f"Detail: {status['detail']}"] if status.get("detail") else []
    if status.get("verdict"):
        lines.append(f"Verdict: {status['verdict']} ({'; '.join(status.get('reasons', []))}).")
    return "## Status\n\n" + "\n\n".join(lines) + "\n"


def _estimates(estimates: Mapping[str, Mapping[str, Any]] | None) -> str:
    return f"## Estimates\n\n{_rows(estimates)}" if estimates else ""


def _scores(record: Mapping[str, Any]) -> str:
    scores = record.get("scores") or {}
    held_out = record.get("held_out") or {}
    title = record.get("scores_title", "Scores on held-out data")
    parts = [f"## {title}\n"] if scores or held_out else []
    for label in dict.fromkeys([*scores, *held_out]):
        parts.append(f"### {label}\n")
        if label in held_out:
            parts.append(f"Held out: {held_out[label]}.\n")
        rows = scores.get(label) or {}
        if any(rows.values()):
            parts.append(_rows(rows))
    return "\n".join(parts)


def _rows(rows: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    body = [[name, *(_number(row.get(c)) for c in columns)] for name, row in rows.items()]
    return _table(["", *columns], body)


def _figures(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return ""
    return "## Figures\n\n" + "\n\n".join(f"![{c}]({f})" for c, f in figures.items()) + "\n"


def _diagnostics(diagnostics: Mapping[str, Any] | None) -> str:
    diagnostics = dict(diagnostics or {})
    warnings = diagnostics.pop("warnings", None) or []
    text = _pairs_section("Diagnostics", diagnostics)
    if warnings:
        text = text or "## Diagnostics\n"
        text += "\nWarnings:\n\n" + "\n".join(f"- {warning}" for warning in warnings) + "\n"
    return text


def _pairs_section(title: str, pairs: Mapping[str, Any] | None) -> str:
    if not pairs:
        return ""
    return f"## {title}\n\n" + _table(["", ""], [[n, _number(v)] for n, v in pairs.items()])


def _table(header: list[str], rows: list[list[str]]) -> str:
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *clean]) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_number(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_number(item)}" for name, item in value.items())
    return str(value)
