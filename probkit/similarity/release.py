"""A released data structure: public, final, and queried for ever at no further cost.

It holds the noisy integers, the noise scales and the public parameters; no record, no exact count
that is private, no state. Everything computed from it is post-processing and costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probkit.errors import DataError, message
from probkit.privacy.budget import Budget, Relation, delta_of_zcdp
from probkit.privacy.mechanism import Noise
from probkit.similarity.design import Answer, Decoder, Design
from probkit.similarity.validation import as_points

__all__ = ["Release"]

_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Release:
    """What ``release`` of a sketch returns; also what ``load`` reads.

    Attributes:
        design: the public data structure.
        relation: the neighbouring relation of the guarantee.
        budget: what the release cost.
        noise: mechanism, with its exact scales.
        values: the published integers (floats under ``insecure_float_noise``), flat.
        count: number of records if public (relation "replace"), else None.
        max_rows_per_user: rows protected together.
        private: False if the noise was seeded for a test: such a release protects nobody.
        notes: what a reader of the file should know.
    """

    design: Design
    relation: Relation
    budget: Budget
    noise: Noise
    values: Tensor
    count: int | None
    max_rows_per_user: int = 1
    private: bool = True
    notes: dict[str, Any] = field(default_factory=dict)

    def query(self, points: Any, *, normalize: bool | None = None, **options: Any) -> Answer:
        """Similarity of points to the private records, summed or averaged over the records.

        Args:
            points: (Q, d) float tensor or array.
            normalize: divide by n (public, or its released estimate); None for the structure's
                habit: means for kernels, sums for distances.
            options: of the structure, such as ``bandwidth`` for kernels.

        Raises:
            DtypeError, ShapeError: points of another kind.
            DataError: a point is NaN or infinite.
        """
        wanted = as_points(points, self.design.dim, "points")
        if not bool(torch.isfinite(wanted).all()):
            raise DataError(message("Some points are NaN or infinite", where="points"))
        mean = self.design.normalised if normalize is None else normalize
        if len(wanted) <= _CHUNK and not mean:
            return self._decoder.query(wanted, **options)
        parts = [self._decoder.query(part, **options) for part in wanted.split(_CHUNK)]
        scale = 1 / max(self.num_records, 1.0) if mean else 1.0
        value = torch.cat([part.value for part in parts]) * scale
        # dividing by a noisy n adds its relative error
        relative = self._decoder.count_variance * scale**2 if mean else 0.0
        sds = []
        for name in ("sd", "noise_sd"):
            sd = torch.cat([getattr(part, name) for part in parts]) * scale
            sds.append((sd**2 + relative * value**2).sqrt())
        outside = [part.extrapolated for part in parts if part.extrapolated is not None]
        return Answer(value, sds[0], sds[1], torch.cat(outside) if outside else None)

    def predict(self, points: Any) -> Tensor:
        """The values of ``query``, in the structure's habit."""
        return self.query(points).value

    @property
    def num_records(self) -> float:
        """n where it is public, else its released estimate."""
        return self._decoder.num_records

    @property
    def predicted_sd(self) -> float:
        """Error by noise of a typical sum (root mean square), from the noise scales alone."""
        return self.design.predicted_sd(self.noise.variance(), self.count)

    @property
    def estimate(self) -> Tensor:
        """Unbiased estimate of the exact statistic, float64, flat."""
        return self.noise.decode(self.values)

    def describe(self) -> str:
        """What was spent and what it promises, in a few lines."""
        who = (
            "one record"
            if self.max_rows_per_user == 1
            else (f"all (at most {self.max_rows_per_user}) records of one user")
        )
        change = "replaced by any other" if self.relation == "replace" else "added or removed"
        lines = [
            f"design      {self.design.kind}, {self.design.dim} coordinates",
            f"relation    {self.relation}: {who} {change}",
            f"budget      {self.budget}",
            f"noise       {self.noise.kind}, {len(self.values)} released numbers",
            f"records     {self.num_records:.0f}"
            + (" (public)" if self.count is not None else " (released estimate)"),
        ]
        if self.budget.kind == "zcdp":
            rho = float(self.budget.amount)
            pairs = ", ".join(
                f"({epsilon:g}, {delta_of_zcdp(rho, epsilon):.2g})" for epsilon in (0.5, 1, 2, 4)
            )
            lines.append(f"implies     (epsilon, delta)-DP with {pairs}")
        if not self.private:
            lines.append("NOT PRIVATE: the noise was drawn from a test seed")
        if self.noise.kind == "knorm":
            lines.append("WARNING: floating-point noise; low-order bits may betray records")
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: noisy numbers, noise scales and a JSON header."""
        from probkit.similarity.files import save_release

        return save_release(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Release:
        """Read a file of ``save``; runs no code from it.

        Raises:
            ReleaseFileError: not such a file, altered, truncated, or of a newer version.
        """
        from probkit.similarity.files import load_release

        return load_release(path)

    @cached_property
    def _decoder(self) -> Decoder:
        return self.design.decoder(self.estimate, self.noise.variance(), self.count)
