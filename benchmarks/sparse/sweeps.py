"""S16: the paper's three synthetic sweeps, ours against the best of the paper's methods."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, stdev

from benchmarks.frame import Context, Line, row
from probkit.sparse import KroneckerSBL, nmse, simulate_recovery

_PAPER = ("am", "svd", "ksbl")


def settings() -> Iterator[tuple[str, dict[str, object]]]:
    """The sweeps' rows."""
    for snr in (5, 10, 15, 20, 25, 30):
        yield f"SNR {snr}", {"snr_db": float(snr)}
    for rows in (6, 8, 10, 12, 14):
        yield f"M1 {rows}", {"snr_db": 25.0, "num_measurements": (rows, 12, 15)}
    for nonzero in (2, 3, 4, 5, 6):
        yield f"K {nonzero}", {"snr_db": 25.0, "num_nonzero": nonzero}


@row("S16", "the paper's sweeps against its best method")
def sweeps(context: Context) -> Iterator[Line]:
    worse, better, count = 0, 0, 0
    for name, options in settings():
        errors: dict[str, list[float]] = {m: [] for m in ("evidence", *_PAPER)}
        for seed in range(context.size(20, 2)):
            p = simulate_recovery(structure="rank1", seed=seed, **options)
            for method, found in errors.items():
                recovered = KroneckerSBL(method, noise=p.noise).recover(p.y, p.dictionaries)
                found.append(nmse(recovered.mean, p.x))
        best = min(_PAPER, key=lambda m: fmean(errors[m]))
        differences = [a - b for a, b in zip(errors["evidence"], errors[best], strict=True)]
        standard = stdev(differences) / math.sqrt(len(differences))
        worse += fmean(differences) > standard
        better += fmean(differences) < 0
        count += 1
        ours, theirs = fmean(errors["evidence"]), fmean(errors[best])
        yield Line(name, f"{name}: mean NMSE (baseline: {best}, s.e. {standard:.2g})", ours, theirs)
    yield Line("worse", "rows worse than the best by more than one standard error", float(worse))
    yield Line("better", "share of rows strictly better", better / count)
