"""P13, P19: discs and an L-shape as masked grids."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.frame import Context, Line, row
from benchmarks.isolate import run_job
from benchmarks.pde.domain_job import solve


@row("P13", "a disc")
def small_disc(context: Context) -> Iterator[Line]:
    errors = {}
    for per_side in (8, 11, 16, 22, 33):
        found = solve("disc", 59, per_side**2)  # the smallest bases are too small, and say so
        errors[per_side] = found["error"]
        what = f"disc, 2617 points inside, at most {per_side}^2 unknowns: error"
        yield Line("error" if per_side == 33 else "", what, errors[per_side])
    falls = [errors[few] / errors[many] for few, many in ((8, 16), (11, 22), (16, 33))]
    yield Line("fall", "error falls by, unknowns doubled per side: the least", min(falls))


@row("P19", "100 000 points inside a mask")
def large(context: Context) -> Iterator[Line]:
    peak = 0.0
    for key, shape, num in (("disc", "disc", 358), ("l_shape", "l", 366)):
        found = run_job("benchmarks.pde.domain_job", shape, context.size(num, 60))
        peak = max(peak, found["memory"])
        what = f"{shape}, {found['points']} points inside: error ({found['seconds']:.1f} CPU s)"
        yield Line(key, what, found["error"])
    yield Line("memory", "peak memory of the process (GiB)", peak)
