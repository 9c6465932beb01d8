"""One word on whether to trust a fit: red, amber or green, with the reasons.

Red: the figures show that the posterior is wrong, or there is none. Amber: nothing is known against
it, but the fit is incomplete or was not checked. Green: a check that could have failed was passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from probkit.infer.importance import K_HAT_LIMIT
from probkit.infer.status import Status

__all__ = ["Verdict", "judge"]

_K_HAT_FINE = 0.5
_WIDTH_RED, _WIDTH_AMBER = 1.5, 1.15
_R_HAT_RED, _R_HAT_AMBER = 1.05, 1.01
_FEW_DRAWS = 100.0
_E_BFMI_LIMIT = 0.3
_DIVERGENT_SHARE = 1e-3
_TAIL = 0.005
_COVERAGE_RED, _MANY = 0.7, 30
_CHECKS = frozenset(["khat", "khat_note", "max_r_hat"])

_RED, _AMBER, _GREEN = "red", "amber", "green"
Finding = tuple[str, str]


class Verdict(NamedTuple):
    """``colour`` is "red", "amber" or "green"; ``reasons`` are those for it, the worst first."""

    colour: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.colour.upper()}: {'; '.join(self.reasons)}"


def judge(status: Status, diagnostics: Mapping[str, Any], doubts: Sequence[str] = ()) -> Verdict:
    """The colour of a fit by its status, diagnostics and further doubts, which make it amber.

    A model tells what it knows of its own fit in ``diagnostics["faults"]``, which make it red, and
    ``diagnostics["doubts"]``: lists of texts.

    Example:
        >>> str(judge(Status.CONVERGED, {"khat": 0.2, "sd_ratio": 1.02}))
        'GREEN: k-hat 0.20: importance weights find nothing wrong'
        >>> judge(Status.CONVERGED, {"khat": 1.1}).colour
        'red'
    """
    findings = [
        *_of_status(status),
        *_of_weights(diagnostics),
        *_of_chains(diagnostics),
        *_of_checks(diagnostics),
        *((_RED, text) for text in diagnostics.get("faults", ())),
        *((_AMBER, text) for text in (*diagnostics.get("doubts", ()), *doubts)),
    ]
    if diagnostics.get("point_estimate"):
        findings.append((_AMBER, "a point estimate, without any uncertainty"))
    elif diagnostics.get("held_out_coverage"):
        findings += _of_held_out(diagnostics["held_out_coverage"])
    elif not _CHECKS & diagnostics.keys():
        findings.append((_AMBER, "nothing was computed that could show a wrong posterior"))
    for colour in (_RED, _AMBER, _GREEN):
        reasons = tuple(text for found, text in findings if found == colour)
        if reasons:
            return Verdict(colour, reasons)
    return Verdict(_AMBER, ("nothing is known about this fit",))


def _of_status(status: Status) -> Iterator[Finding]:
    if not status.ok:
        yield _RED, status.message.rstrip(".")
    elif status is Status.NOT_MIXED:
        yield _RED, "the chains do not agree or missed a part of the posterior"
    elif status is not Status.CONVERGED:
        yield _AMBER, f"{status.value}: {status.message.rstrip('.')}"


def _of_weights(diagnostics: Mapping[str, Any]) -> Iterator[Finding]:
    """Importance weights of a variational or Laplace fit."""
    khat, ratio = diagnostics.get("khat"), diagnostics.get("sd_ratio", 1.0)
    if khat is None or math.isnan(khat):
        if "khat_note" in diagnostics:
            yield _AMBER, f"k-hat {diagnostics['khat_note']}"
        return
    least, greatest = diagnostics.get("direction_sd_ratio", (1.0, 1.0))
    width = max(ratio, 1 / ratio)
    if khat > K_HAT_LIMIT:
        yield _RED, f"k-hat {khat:.2f}: the approximation misses part of the posterior"
    if greatest > _WIDTH_RED:
        yield _RED, f"too narrow: the posterior is {greatest:.2g} times as wide in one direction"
    if least < 1 / _WIDTH_RED:
        yield _RED, f"too wide: the posterior is {least:.2g} times as wide in one direction"
    if width > _WIDTH_RED:
        yield _RED, f"importance-corrected standard deviations differ by a factor {ratio:.2f}"
    if _K_HAT_FINE < khat <= K_HAT_LIMIT:
        yield _AMBER, f"k-hat {khat:.2f}: use the corrected moments, result.importance.mean()"
    far = max(greatest, 1 / least, width)
    if _WIDTH_AMBER < far <= _WIDTH_RED:
        yield _AMBER, f"standard deviations are off by a factor of up to {far:.2f}"
    if khat <= _K_HAT_FINE and far <= _WIDTH_AMBER:
        even = khat == -math.inf
        start = "all importance weights agree" if even else f"k-hat {khat:.2f}: importance weights"
        yield _GREEN, f"{start}{': they' if even else ''} find nothing wrong"


def _of_chains(diagnostics: Mapping[str, Any]) -> Iterator[Finding]:
    r_hat, ess = diagnostics.get("max_r_hat"), diagnostics.get("min_ess_bulk", math.nan)
    if r_hat is None:
        return
    if math.isnan(r_hat):
        yield _RED, "r_hat is unknown: too few draws"
    elif r_hat > _R_HAT_RED:
        yield _RED, f"largest r_hat {r_hat:.3f}: the chains do not agree"
    elif r_hat > _R_HAT_AMBER:
        yield _AMBER, f"largest r_hat {r_hat:.3f}: draw more"
    elif ess < _FEW_DRAWS:
        yield _AMBER, f"only {ess:.0f} effective draws of some unknown"
    else:
        yield _GREEN, f"largest r_hat {r_hat:.3f}, at least {ess:.0f} effective draws"
    divergences = diagnostics.get("divergences", [])
    total = diagnostics.get("num_draws", 0) * len(divergences)
    if sum(divergences) > _DIVERGENT_SHARE * total:
        yield _RED, f"{sum(divergences)} divergent transitions of {total}"
    elif sum(divergences):
        yield _AMBER, f"{sum(divergences)} divergent transitions of {total}"
    e_bfmi = diagnostics.get("e_bfmi")
    if e_bfmi is not None and not e_bfmi >= _E_BFMI_LIMIT:
        yield _RED, f"E-BFMI {e_bfmi:.2f}: the energies were not explored"


def _of_held_out(coverage: Mapping[str, tuple[float, int]]) -> Iterator[Finding]:
    """Shares of held-out targets in 90 % intervals, and their numbers, by hold-out.

    Good ones are no reason for green: they say nothing of places unlike those that were held out,
    and nothing of the unknowns themselves.
    """
    for label, (share, count) in coverage.items():
        if share < _COVERAGE_RED and count >= _MANY:
            yield _RED, f"too narrow: 90 % intervals hold {share:.0%} of what was held out: {label}"
    found = ", ".join(f"{share:.1%} ({label})" for label, (share, _) in coverage.items())
    yield _AMBER, f"only predictions were checked: 90 % intervals hold {found} of what was held out"


def _of_checks(diagnostics: Mapping[str, Any]) -> Iterator[Finding]:
    """Predictive checks and leave-one-out, which judge the model rather than its posterior."""
    for site, loo in diagnostics.get("loo", {}).items():
        if loo["num_bad"]:
            yield (
                _AMBER,
                f"{loo['num_bad']} observations of {site!r} decide the fit by themselves "
                f"(LOO k-hat up to {loo['max_khat']:.2f})",
            )
    for site, values in diagnostics.get("predictive_p", {}).items():
        for statistic, p in values.items():
            if min(p, 1 - p) < _TAIL:
                yield (
                    _AMBER,
                    f"the model does not reproduce the {statistic} of {site!r} (p = {p:.3f})",
                )
