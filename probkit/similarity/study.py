"""From a table on disk to a release on disk: what ``probkit similarity`` runs.

Columns are scaled to [0, 1] by their declared bounds for kernels, so that one bandwidth suits all;
bounds, columns and bandwidth are public and stored in the file. Nothing is read off the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, DataError, message
from probkit.io import read_table, write_table
from probkit.privacy.accountant import PrivacyAccountant
from probkit.privacy.budget import Amount, Budget, Relation
from probkit.privacy.errors import PrivacyError
from probkit.report import to_plain
from probkit.similarity.distance import PrivateDistance
from probkit.similarity.recommendation import recommend
from probkit.similarity.release import Release
from probkit.similarity.sketch import Sketch
from probkit.similarity.spectral_laws import KERNELS
from probkit.similarity.validation import check_box
from probkit.study import Lines
from probkit.validation import unknown

__all__ = ["ReleaseJob", "describe_release", "parse_bounds", "query_file"]

_UNKNOWN_SIZE = 10_000
"""n assumed where it is private, to choose a structure"""


@dataclass(frozen=True)
class ReleaseJob:
    """Settings of one release.

    Attributes:
        data: CSV or Parquet file of numeric columns.
        out: file to write.
        similarity: a kernel's name, or "l1", "l2", "l2sq".
        bounds: (low, high) of every column, or one pair for all.
        epsilon, delta: budget; delta None for pure DP.
        relation: the neighbouring relation.
        columns: columns to use; None for all.
        bandwidth: of kernels, in parts of the bounds' width.
        ledger: file of a ``PrivacyAccountant`` that pays; created with this budget if absent.
        seed: public.
    """

    data: Path
    out: Path
    similarity: str
    bounds: Sequence[Sequence[float]]
    epsilon: Amount
    delta: float | None = None
    relation: Relation = "replace"
    columns: Sequence[str] | None = None
    bandwidth: float = 0.1
    ledger: Path | None = None
    seed: int = 0

    def run(self) -> Lines:
        """Spend, release and write; yields lines for the user, returns what was released.

        The folder of ``out`` is made where there is none.

        Raises:
            DataError, ConfigurationError, PrivacyError: nothing was spent or written then; among
                them a file or a ledger that cannot be written.
        """
        _check_writable(self.out, "out")
        if self.out.exists():
            raise ConfigurationError(
                message(
                    "The release exists already",
                    where=str(self.out),
                    remedy="query it; a second release of the same records spends again",
                )
            )
        with _locked(self.ledger):
            return (yield from self._run())

    def _run(self) -> Lines:
        asked = PrivacyAccountant(epsilon=self.epsilon, delta=self.delta, relation=self.relation)
        accountant = asked
        if self.ledger is not None and self.ledger.exists():
            accountant = PrivacyAccountant.load(self.ledger)
        names, records = _numeric(self.data, self.columns)
        sketch, low, high = self._sketch(records.shape[1], len(records), asked.budget)
        kernel = self.similarity in KERNELS
        sketch.update((records - low) / (high - low) if kernel else records)
        release = sketch.release(accountant, asked.total)
        if self.ledger is not None:  # before the release exists: a crash may waste, not hide
            accountant.save(self.ledger)
        scale = {"low": low.tolist(), "high": high.tolist()} if kernel else None
        notes = {**release.notes, "columns": names, "scale": scale, "similarity": self.similarity}
        replace(release, notes=notes).save(self.out)
        yield release.describe()
        # whether there are such values would be told of the records: it is said of all
        yield f"values outside the bounds {self.bounds} counted as the nearest bound"
        yield f"expected error of a typical sum by noise: {release.predicted_sd:.4g}"
        yield f"wrote {self.out}"
        if self.ledger is None:
            yield "no ledger kept: another release of these records adds to what was spent"
        return {"file": str(self.out), **describe_release(release)}

    def _sketch(self, dim: int, size: int, budget: Budget) -> tuple[Sketch, Tensor, Tensor]:
        pairs = self.bounds[0] if len(self.bounds) == 1 else self.bounds
        low, high = (torch.tensor(v, dtype=torch.float64) for v in check_box(pairs, dim))
        if self.similarity in KERNELS:
            known = size if self.relation == "replace" else _UNKNOWN_SIZE
            choice = recommend(
                max(2, known),
                dim,
                self.similarity,
                budget,
                relation=self.relation,
                bandwidth=self.bandwidth,
                bounds=(0.0, 1.0),
                seed=self.seed,
            )
            return choice.build(), low, high
        if self.similarity == "l1":
            box = torch.stack([low, high], -1).tolist()
            return PrivateDistance(dim, "l1", bounds=box, relation=self.relation), low, high
        if self.similarity in ("l2", "l2sq"):
            center, radius = (low + high) / 2, float(torch.linalg.vector_norm(high - low) / 2)
            ball: dict[str, Any] = {"metric": self.similarity, "radius": radius, "center": center}
            return PrivateDistance(dim, **ball, relation=self.relation, seed=self.seed), low, high
        raise unknown("similarity", "--kernel", self.similarity, [*KERNELS, "l1", "l2", "l2sq"])


def describe_release(release: Release) -> dict[str, Any]:
    """What was spent and what it promises, as plain values: all of it is public."""
    found: dict[str, Any] = to_plain(
        {
            "design": release.design.kind,
            "dim": release.design.dim,
            "relation": release.relation,
            "budget": str(release.budget),
            "noise": release.noise.kind,
            "num_values": len(release.values),
            "num_records": release.num_records,
            "num_records_is_exact": release.count is not None,
            "max_rows_per_user": release.max_rows_per_user,
            "predicted_sd": release.predicted_sd,
            "private": release.private,
            "text": release.describe(),
        }
    )
    return found


def query_file(release_file: Path, points: Path, out: Path | None) -> Path:
    """Answer at the points of a file; writes them, value, sd and the ends of a 95 % interval.

    The columns of the answers are ``value``, ``sd``, ``lower_95`` and ``upper_95``, with
    ``similarity_`` before the name where a column of the points has it already.

    Raises:
        ConfigurationError: there is a file where the answers would go.
        ReleaseFileError: the release cannot be read.
        DataError: the points lack a column.
    """
    path = out or points.with_name(points.stem + "_similarity.csv")
    if path.exists():
        raise ConfigurationError(
            message("The file exists already", where="--out", got=str(path), expected="a new file")
        )
    release = Release.load(release_file)
    names = release.notes.get("columns")
    names, wanted = _numeric(points, names)
    columns = dict(zip(names, wanted.mT, strict=True))
    scale = release.notes.get("scale")
    if scale:
        low, high = (torch.tensor(scale[k], dtype=torch.float64) for k in ("low", "high"))
        wanted = (wanted - low) / (high - low)
    answer = release.query(wanted)
    lower, upper = answer.interval(0.95)
    answers = {"value": answer.value, "sd": answer.sd, "lower_95": lower, "upper_95": upper}
    for name, column in answers.items():
        while name in columns:
            name = "similarity_" + name
        columns[name] = column
    return write_table(path, {name: column.numpy() for name, column in columns.items()})


def parse_bounds(text: str) -> list[list[float]]:
    """Bounds from "0,9" or "0,9;-1,1", or from a JSON file with such pairs.

    Example:
        >>> parse_bounds("0,9;-1,1")
        [[0.0, 9.0], [-1.0, 1.0]]

    Raises:
        ConfigurationError: anything else.
    """
    try:
        if text.endswith(".json"):
            found = json.loads(Path(text).read_text(encoding="utf-8"))
            pairs = list(found.values()) if isinstance(found, dict) else found
        else:
            pairs = [part.split(",") for part in text.split(";")]
        bounds = [[float(low), float(high)] for low, high in pairs]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            message(
                "Unreadable bounds",
                where="--bounds",
                got=repr(text),
                expected='"low,high", "low,high;low,high", or a JSON file of pairs',
            )
        ) from error
    return bounds


def _check_writable(path: Path, where: str) -> None:
    """Make the folder of a file and try to write there: later, the budget would be spent.

    Raises:
        ConfigurationError: neither can be done.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):  # of no name: another process may be writing
            pass
        with suppress(FileNotFoundError):  # a name that is too long, with what is added to write
            path.with_name(path.name + ".part").lstat()
    except OSError as error:
        raise ConfigurationError(
            message(
                "The file cannot be written",
                where=where,
                got=f"{path} ({error.strerror or error})",
                expected="a file in a folder that can be written",
            )
        ) from error


@contextmanager
def _locked(ledger: Path | None) -> Iterator[None]:
    """One process at a time may spend from a ledger: two could both find it unspent."""
    if ledger is None:
        yield
        return
    _check_writable(ledger, "ledger")
    lock = ledger.with_name(ledger.name + ".lock")
    try:
        lock.touch(exist_ok=False)
    except FileExistsError as error:
        raise PrivacyError(
            message(
                "Another process spends from this ledger",
                where=str(lock),
                remedy="wait; if a process was killed, check the ledger and remove the lock",
            )
        ) from error
    try:
        yield
    finally:
        lock.unlink()


def _numeric(path: Path, columns: Sequence[str] | None) -> tuple[list[str], Tensor]:
    table = read_table(path, inputs=columns, needs_target=False)
    other = [n for n, k in zip(table.inputs, table.kinds, strict=True) if k == "category"]
    if other:
        raise DataError(
            message(
                "Only numeric columns can be released",
                where=", ".join(other),
                remedy="choose columns with --columns: codes of categories depend on the data",
            )
        )
    return list(table.inputs), table.x
