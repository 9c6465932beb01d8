"""T16: Indian Pines, 4.2 million cells: held-out entries and whole held-out bands."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from benchmarks.frame import Context, Line, row
from benchmarks.isolate import JobFailed, run_job

_JOB = "benchmarks.tensor.hyperspectral_job"
_TENSORLY_LIMIT = 1800.0
"""wall seconds that TensorLy's decomposition may take"""


@row("T16", "Indian Pines")
def indian_pines(context: Context) -> Iterator[Line]:
    size = context.size(145, 40)
    ours = run_job(_JOB, "probkit", size)
    linear = run_job(_JOB, "interpolation", size)
    name = "Indian Pines, held-out"
    yield Line("bands", f"{name} bands: RMSE (baseline: trilinear)", ours["bands"], linear["bands"])
    yield Line(
        "pixels", f"{name} bands: RMSE (baseline: pixel-wise)", ours["bands"], linear["pixel_bands"]
    )
    try:
        peer = run_job(_JOB, "tensorly", size, timeout=_TENSORLY_LIMIT)
    except (JobFailed, subprocess.TimeoutExpired) as error:
        yield Line("", f"{name} entries: TensorLy's masked Tucker", None, reason=str(error))
    else:
        what = f"{name} entries: RMSE (baseline: TensorLy, equal rank)"
        yield Line("entries", what, ours["entries"], peer["entries"])
        yield Line("time", "fit: CPU s (baseline: TensorLy)", ours["seconds"], peer["seconds"])
        yield Line("memory", "peak memory, GiB (baseline: TensorLy)", ours["peak"], peer["peak"])
    yield Line("coverage", f"{name} entries: 90 % coverage", ours["coverage"])
    yield Line("band_coverage", f"{name} bands: 90 % coverage", ours["band_coverage"])
