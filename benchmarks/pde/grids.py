"""P5 to P8: boxes in two and three dimensions, a million points, advection."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.frame import Context, Line, row
from benchmarks.isolate import run_job

_JOB = "benchmarks.pde.grid_job"


@row("P5", "squares of the paper")
def squares(context: Context) -> Iterator[Line]:
    for key, name in (
        ("product", "poisson2d_sin100"),
        ("sum", "poisson2d_sum"),
        ("mix", "allen_cahn2d_mix"),
    ):
        found = run_job(_JOB, name, context.size(0, 60))
        what = f"{name}: error ({found['seconds']:.2f} CPU s; baseline: Chebyshev)"
        yield Line(key, what, found["error"], found.get("chebyshev"))
        if "fd2" in found:
            yield Line("", f"{name}: error of finite differences of order 2", found["fd2"])
        if key == "mix":
            yield Line("mix_steps", f"{name}: Newton steps", found["steps"])


@row("P6", "a million points")
def million(context: Context) -> Iterator[Line]:
    small = run_job(_JOB, "poisson2d_sin100", context.size(400, 60))
    large = run_job(_JOB, "poisson2d_sin100", context.size(1000, 100))
    yield Line("error", "1000 x 1000: error", large["error"])
    yield Line("memory", "1000 x 1000: peak memory of the process (GiB)", large["memory"])
    yield Line("growth", "CPU s, 1000^2 over 400^2", large["seconds"] / small["seconds"])


@row("P7", "advection from inflow and initial data")
def advection(context: Context) -> Iterator[Line]:
    errors = []
    for num in (200, 400, 1000):
        found = run_job(_JOB, "advection_sin200", context.size(num, num // 5))
        errors.append(found["error"])
        yield Line("", f"{num} x {num}: error ({found['seconds']:.1f} CPU s)", errors[-1])
    yield Line("worst", "largest error", max(errors))
    yield Line("growth", "largest over smallest error", max(errors) / min(errors))


@row("P8", "a cube")
def cube(context: Context) -> Iterator[Line]:
    small = run_job(_JOB, "cube", context.size(100, 40))
    large = run_job(_JOB, "cube", context.size(200, 50))
    yield Line("error", "100^3: error", small["error"])
    yield Line("memory", "100^3: peak memory of the process (GiB)", small["memory"])
    yield Line("growth", "CPU s, 200^3 over 100^3", large["seconds"] / small["seconds"])
    yield Line("", "200^3: error", large["error"])
    yield Line("", "200^3: peak memory of the process (GiB)", large["memory"])
