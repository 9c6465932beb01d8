"""What a simulation-based calibration found: ranks, their uniformity, and coverage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from probkit.infer.status import Status
from probkit.infer.verdict import Verdict

__all__ = ["Calibration"]

_LEVELS = (0.5, 0.9)
_RED_P, _AMBER_P = 1e-3, 1e-2
_PER_BIN = 10


@dataclass(frozen=True)
class Calibration:
    """Ranks of the truth among posterior draws.

    Args:
        ranks: by site, ``(simulation, scalar)``, from 0 to ``num_ranks``; -1 where the fit failed.
        num_ranks: L, the draws that a truth was ranked among.
        num_failed: simulations whose fit broke down; they count in no figure but this one.
        status: MAX_STEPS when all simulations were made, INTERRUPTED when not.
        provenance: seed, settings, versions.

    Example:
        >>> even = torch.arange(1000)[:, None] % 100
        >>> found = Calibration({"x": even}, 99, 0, Status.MAX_STEPS)
        >>> found.coverage(0.9), found.p_value, found.verdict.colour
        (0.9, 1.0, 'green')
    """

    ranks: dict[str, Int64[Tensor, "simulation scalar"]]
    num_ranks: int
    num_failed: int
    status: Status
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def num_simulations(self) -> int:
        """Simulations made, failed ones included."""
        return len(next(iter(self.ranks.values()))) if self.ranks else 0

    def histogram(self, *, num_bins: int | None = None) -> dict[str, NDArray[np.int64]]:
        """Counts of ranks by site, ``(scalar, bin)``.

        Args:
            num_bins: should divide ``num_ranks + 1``; by default at most 20, of 10 expected counts.
        """
        bins = num_bins or self._num_bins()
        edges = np.linspace(-0.5, self.num_ranks + 0.5, bins + 1)
        return {
            name: np.stack([np.histogram(column, edges)[0] for column in value.T.numpy()])
            for name, value in self._good().items()
        }

    @property
    def p_values(self) -> dict[str, NDArray[np.float64]]:
        """Chi-square p-value of uniform ranks, for every scalar of every site."""
        from scipy.stats import chisquare

        return {
            name: np.asarray(chisquare(counts, axis=1).pvalue)
            for name, counts in self.histogram().items()
        }

    @property
    def p_value(self) -> float:
        """The least p-value, corrected for the number of scalars (Bonferroni)."""
        every = np.concatenate(list(self.p_values.values()))
        return float(min(1.0, every.min() * len(every)))

    def coverage(self, level: float, site: str | None = None) -> float:
        """Share of truths inside the central interval of that level, over a site or all."""
        good = self._good()
        values = torch.cat([good[name] for name in ([site] if site else good)], 1)
        return float(self._inside(values, level).double().mean())

    @property
    def verdict(self) -> Verdict:
        """Red if ranks are not uniform (p < .001), intervals do not cover, or fits failed."""
        findings = list(self._findings())
        for colour in ("red", "amber"):
            reasons = tuple(text for found, text in findings if found == colour)
            if reasons:
                return Verdict(colour, reasons)
        figures = ", ".join(f"{self.coverage(q):.3f} at {q:g}" for q in _LEVELS)
        return Verdict("green", (f"ranks uniform (p = {self.p_value:.2g}), coverage {figures}",))

    def summary(self) -> str:
        """The verdict, then p-value and coverage of every site."""
        lines = [str(self.verdict), f"{self.num_simulations} simulations, {self.status.value}"]
        for name, values in self.p_values.items():
            covered = ", ".join(f"{self.coverage(q, name):.3f} at {q:g}" for q in _LEVELS)
            lines.append(f"{name}: least p = {values.min():.3g}, coverage {covered}")
        return "\n".join(lines)

    def _findings(self) -> Iterator[tuple[str, str]]:
        from scipy.stats import binomtest

        if self.num_failed:
            yield "red", f"{self.num_failed} of {self.num_simulations} fits failed"
        if self.num_failed == self.num_simulations:
            return
        if self.status is Status.INTERRUPTED:
            yield "amber", "interrupted before all simulations were made"
        p = self.p_value
        if p < _AMBER_P:
            yield "red" if p < _RED_P else "amber", f"ranks are not uniform (p = {p:.2g})"
        for name, value in self._good().items():
            for level in _LEVELS:
                # scalars of one simulation depend on one another: each is tested by itself
                inside = self._inside(value, level)
                tests = [binomtest(int(c.sum()), len(c), level).pvalue for c in inside.T]
                worst = min(tests) * len(tests)
                if worst < _RED_P:
                    got = float(inside.double().mean(0)[int(np.argmin(tests))])
                    yield (
                        "red",
                        f"intervals of {level:g} cover {name!r} in {got:.2f} of simulations",
                    )

    def _inside(self, values: Tensor, level: float) -> Tensor:
        place = (values.double() + 0.5) / (self.num_ranks + 1)
        edge = (1 - level) / 2 - 1e-12  # rounding of the level must not move a rank
        return (place > edge) & (place < 1 - edge)

    def _good(self) -> dict[str, Tensor]:
        """Ranks of the fits that did not fail."""
        keep = torch.stack([(v >= 0).all(1) for v in self.ranks.values()]).all(0)
        return {name: value[keep] for name, value in self.ranks.items()}

    def _num_bins(self) -> int:
        """The largest divisor of L + 1 with ten expected counts in every bin, at most 20."""
        good = len(next(iter(self._good().values())))
        most = max(2, min(20, good // _PER_BIN))
        places = self.num_ranks + 1
        return max(b for b in range(1, most + 1) if places % b == 0)
