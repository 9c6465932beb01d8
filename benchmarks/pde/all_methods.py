"""P16: all methods on all cases of the paper; the page with the table is made by ``comparison``."""

from __future__ import annotations

import math
from collections.abc import Iterator

from benchmarks.frame import Context, Line, row
from benchmarks.pde.comparison import METHODS, TOP_FREQUENCIES, compare


@row("P16", "all methods on the paper's cases")
def table(context: Context) -> Iterator[Line]:
    budget = context.size(12, 1)
    finite = 0
    for name in TOP_FREQUENCIES:
        for cell in compare(name, float(budget)):
            finite += math.isfinite(cell.error)
            steps = "" if cell.steps is None else f", {cell.steps} steps"
            what = f"{name}, {cell.method}: error ({cell.seconds:.1f} CPU s{steps})"
            yield Line("", what, cell.error)
    share = finite / (len(TOP_FREQUENCIES) * len(METHODS))
    yield Line("complete", "share of the table's cells with a final error", share)
