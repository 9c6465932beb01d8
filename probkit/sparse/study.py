"""Studies behind ``probkit sparse``: recover a file's problem; compare methods on IRS channels.

Everything in here is public API put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from probkit.errors import DataError, message
from probkit.infer.provenance import versions
from probkit.sparse.comparison import Sweep, estimate, timed
from probkit.sparse.estimator import KroneckerSBL, Recovery
from probkit.sparse.figures import draw
from probkit.sparse.irs import IRSChannel, simulate_irs
from probkit.sparse.metrics import nmse, support_recovery, symbol_error_rate
from probkit.study import (
    CHECKPOINT,
    Lines,
    check_directory,
    close_study,
    ending,
    fit_sections,
    relative_figures,
    to_device,
)

__all__ = ["IRSStudy", "ProblemFile", "RecoverStudy", "channel_coverage", "read_problem", "redraw"]

_DRAWS, _LEVEL = 200, 0.9
# scales start at 1, far from these data's units: the authors' 150 steps do not converge at low SNR
_SETTINGS: dict[str, dict[str, Any]] = {"paper_pattern_coupled": {"max_steps": 600}}
# numbers that both numpy and torch know
_DTYPES = frozenset(map(np.dtype, "?bBhHiIlLefdFD"))


class ProblemFile(NamedTuple):
    """What a problem's file holds."""

    y: Tensor
    dictionaries: list[Tensor]
    noise: float | None
    x: Tensor | None


def read_problem(path: str | Path) -> ProblemFile:
    """Read an ``.npz`` file with ``y``, ``A_1``, ..., ``A_I`` and perhaps ``noise``, ``x``.

    Raises:
        DataError: no such file, not an npz file, or arrays that are missing.
    """
    path = Path(path)
    if path.is_file() and not is_zipfile(path):
        raise DataError(
            message(
                "Not an npz file", where="DATA", got=str(path), expected="what numpy.savez writes"
            )
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise DataError(message("There is no such file", where="DATA", got=str(path))) from error
    except Exception as error:  # of zip, zlib and numpy, which promise no type for damaged files
        raise DataError(
            message("Not an npz file of plain arrays", where="DATA", got=f"{path} ({error})")
        ) from error
    names = sorted(
        (n for n in arrays if n.startswith("A_") and n[2:].isdigit()), key=lambda n: int(n[2:])
    )
    if "y" not in arrays or not names:
        raise DataError(
            message(
                "A problem's file needs measurements and dictionaries",
                where="DATA",
                got=", ".join(arrays) or "nothing",
                expected="y, A_1, ..., A_I, and perhaps noise (variance) and x (truth)",
                remedy="numpy.savez(path, y=y, A_1=first, A_2=second)",
            )
        )
    bad = [name for name, a in arrays.items() if a.dtype not in _DTYPES or not a.size]
    given = arrays.get("noise", np.ones(()))
    bad += [] if given.size == 1 and given.dtype.kind != "c" else ["noise"]
    if bad:
        raise DataError(
            message(
                "Not an array of numbers, or not one number",
                where=f"DATA, {bad[0]}",
                got=f"{arrays[bad[0]].dtype}, shape {arrays[bad[0]].shape}",
                expected="real or complex numbers; one real number for noise",
            )
        )
    noise = float(arrays["noise"].item()) if "noise" in arrays else None
    x = torch.as_tensor(arrays["x"]) if "x" in arrays else None
    return ProblemFile(
        torch.as_tensor(arrays["y"]), [torch.as_tensor(arrays[n]) for n in names], noise, x
    )


@dataclass(frozen=True)
class RecoverStudy:
    """Recover the problem of a file; see ``probkit sparse recover --help``."""

    data: Path
    out: Path
    method: str = "evidence"
    noise: str = "learn"
    snapshots: bool = False
    order: str = "C"
    progress: bool = True
    max_steps: int | None = None
    device: str = "cpu"
    resume: bool = False

    def run(self) -> Lines:
        """Run the study; yields lines for the terminal, returns the record.

        Raises:
            ConfigurationError: the output directory holds something already.
            DataError: a file that cannot be read or used.
        """
        check_directory(self.out, resume=self.resume, resumable=True)
        device = to_device(self.device)
        problem = read_problem(self.data)
        sizes = " x ".join(str(a.shape[-1]) for a in problem.dictionaries)
        yield f"{self.data}: {problem.y.numel()} measurements, {sizes} atoms"
        model = KroneckerSBL(
            self.method, noise=self._noise(problem), order=self.order, max_steps=self.max_steps
        )
        found = model.recover(
            problem.y.to(device),
            [a.to(device) for a in problem.dictionaries],
            snapshots=self.snapshots,
            checkpoint=self.out / CHECKPOINT,
            resume=self.resume,
            progress=self.progress,
        )
        model.save(self.out)
        found = found if device.type == "cpu" else KroneckerSBL.load(self.out)
        yield ending(found.result)
        support = found.result.diagnostics["support_sizes"]
        yield f"slices kept {support}, noise {_text(found.noise)}"
        yield f"log evidence {_text(found.log_evidence)}"
        low, high = found.interval(_LEVEL)
        arrays = {"mean": found.mean, "sd": found.sd, "low": low, "high": high}
        arrays |= {"support": found.support, "probability": found.probability}
        arrays |= {"noise": found.noise, "log_evidence": found.log_evidence}
        if problem.x is not None:  # for who draws the figures again
            arrays["truth"] = _truth(problem.x, found)
        plain: dict[str, Any] = {name: a.cpu().numpy() for name, a in arrays.items()}
        np.savez(self.out / "recovery.npz", **plain)
        record = self._record(problem, found)
        for name, value in record.get("scores", {}).get("x", {}).get("probkit", {}).items():
            yield f"{name} {value:.4g}"
        return (yield from close_study(self.out, record))

    def _noise(self, problem: ProblemFile) -> Any:
        if self.noise == "file":
            if problem.noise is None:
                raise DataError(
                    message("The file holds no noise variance", where="--noise", got="file")
                )
            return problem.noise
        try:
            return float(self.noise)
        except ValueError:  # "learn", "noiseless", or an error that the estimator explains
            return self.noise

    def _record(self, problem: ProblemFile, found: Recovery) -> dict[str, Any]:
        record: dict[str, Any] = {
            "title": f"Sparse recovery of {self.data.name} by {self.method}",
            "study": {"family": "sparse", "command": "recover"},
            "data": {
                "measurements": list(problem.y.shape),
                "atoms": [a.shape[-1] for a in problem.dictionaries],
            },
            **fit_sections(found.result),
        }
        truth = None if problem.x is None else _truth(problem.x, found)
        figures = draw(found, self.out / "figures", truth)
        record["figures"] = relative_figures(figures, self.out)
        if truth is not None:
            record["scores_title"] = "Scores against the truth in the file"
            scores = {
                "nmse": nmse(found.mean, truth),
                "support_recovery": support_recovery(found.mean, truth),
            }
            record["scores"] = {"x": {"probkit": scores}}
        return record


@dataclass(frozen=True)
class IRSStudy:
    """Compare methods on simulated IRS channels; see ``probkit sparse irs --help``."""

    out: Path
    snr_db: Sequence[float] = (4.0, 12.0, 20.0)
    methods: Sequence[str] = ("evidence", "svd", "am")
    num_channels: int = 10
    num_symbols: int = 10_000
    seed: int = 0
    device: str = "cpu"

    def run(self) -> Lines:
        """Run the study; yields lines for the terminal, returns the record.

        Raises:
            ConfigurationError: the output directory holds something already.
        """
        check_directory(self.out)
        to_device(self.device)
        seeds = range(self.seed, self.seed + self.num_channels)
        sweep = Sweep("SNR (dB)", list(self.snr_db), self.methods, seeds, self.trial)
        yield from sweep.run()
        sweep.write_table(self.out / "table.csv")
        figures = sweep.draw(self.out / "figures", ("nmse", "symbol_errors", "seconds"))
        record = {
            "title": "Channel estimation through an intelligent reflecting surface",
            "scores_title": "Scores against the simulated channels",
            "study": {"family": "sparse", "command": "irs"},
            "data": {"channels": self.num_channels, "symbols": self.num_symbols},
            "scores": sweep.scores(),
            "figures": {caption: f"figures/{file}" for caption, file in figures.items()},
            "versions": versions(),
        }
        return (yield from close_study(self.out, record))

    def trial(self, method: str, snr_db: float, seed: int) -> Mapping[str, float]:
        """One method on one channel; "perfect" knows the channel."""
        c = simulate_irs(snr_db=snr_db, seed=seed)
        if method == "perfect":
            rate = self.symbol_errors(c, c.channels, snr_db)
            return {"nmse": 0.0, "symbol_errors": rate, "seconds": 0.0}
        settings = _SETTINGS.get(method, {})
        device = to_device(self.device)
        y, dictionaries = c.y.to(device), [a.to(device) for a in c.dictionaries]
        x, seconds = timed(
            lambda: estimate(method, y, dictionaries, noise=c.noise, num_nonzero=3, **settings)
        )
        x = x.cpu()
        rate = self.symbol_errors(c, c.channel(x), snr_db)
        return {"nmse": c.nmse(x), "symbol_errors": rate, "seconds": seconds}

    def symbol_errors(self, c: IRSChannel, channel: Tensor, snr_db: float) -> float:
        """Symbol errors of beams chosen by ``channel``."""
        return symbol_error_rate(c.channels, channel, snr_db, num_symbols=self.num_symbols, seed=1)


def channel_coverage(channel: IRSChannel, found: Recovery, generator: torch.Generator) -> float:
    """Share of true channel entries (both parts) inside their 90 % posterior intervals.

    Example:
        >>> from probkit.random import as_generator
        >>> channel = simulate_irs(snr_db=12.0, seed=0)
        >>> found = KroneckerSBL(starts=("flat",)).recover(channel.y, channel.dictionaries)
        >>> 0.0 <= channel_coverage(channel, found, as_generator(0)) <= 1.0
        True
    """
    draws = found.posterior.sample(_DRAWS, generator)["x"]
    channels = torch.view_as_real(torch.stack([channel.channel(x) for x in draws]))
    levels = channels.new_tensor([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    low, high = torch.quantile(channels, levels, dim=0)
    true = torch.view_as_real(channel.channels)
    return float(((low <= true) & (true <= high)).double().mean())


def redraw(directory: Path) -> dict[str, Path]:
    """Draw the figures of a saved recovery again; paths by caption.

    Raises:
        CheckpointError: there is no readable recovery in the directory.
    """
    found, truth = KroneckerSBL.load(directory), None
    stored = directory / "recovery.npz"
    if stored.is_file():  # a result saved by hand has none
        with np.load(stored, allow_pickle=False) as arrays:
            truth = torch.as_tensor(arrays["truth"]) if "truth" in arrays.files else None
    return draw(found, directory / "figures", truth)


def _truth(x: Tensor, found: Recovery) -> Tensor:
    return x.reshape(found.mean.shape).to(found.mean.dtype)


def _text(values: Tensor) -> str:
    return ", ".join(f"{float(v):.6g}" for v in values.flatten()[:6])
