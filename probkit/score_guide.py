"""What a report says of the scores that are in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["how_to_read"]

_SCORES = {
    "rmse": """\
- **rmse**, **mae**: root mean squared and mean absolute error of the predictive mean, in units of
  the target; lower is better.
""",
    "nll": """\
- **nll**: mean negative log predictive density of the held-out targets, in nats; lower is better.
  It punishes both errors and intervals of the wrong width, and differences are what counts.
""",
    "coverage_90": """\
- **coverage_50/90/95**: share of held-out targets inside the central interval of that level; close
  to the level is good, lower means intervals that are too narrow.
""",
    "interval_score_90": """\
- **interval_score_90**: width of the 90 % interval plus a penalty for targets outside; lower is
  better.
""",
    "nmse": """\
- **nmse**: squared error over the squared norm of the truth; lower is better, 1 is that of zero.
""",
    "support_recovery": """\
- **support_recovery**: places that are not zero in both, estimate and truth, over those in either;
  estimates below a thousandth of the largest count as zero. Small coefficients that were kept, or
  lost in the noise, lower it even where the nmse is small.
""",
    "symbol_errors": """\
- **symbol_errors**: share of symbols decoded wrongly with the estimated channel; lower is better,
  and the row *perfect* is the least that is possible.
""",
}
"""how to read a score, by a name that has it"""

_BASELINES = """\
- Baselines: *mean* predicts the training mean; *linear interpolation* interpolates the training
  points on coordinates scaled to [0, 1], one of them stretched where that predicts better, and
  takes the nearest point outside their hull. Their intervals are normal, with the spread of the
  targets or of the errors at points left out.
- A model that does not beat both baselines on a hold-out has not learned what that hold-out asks.
"""


def how_to_read(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """What is to be said of the scores and baselines that there are."""
    rows = [named for hold_out in scores.values() for named in hold_out.items()]
    names = {name for _, values in rows for name in values}
    text = "".join(said for name, said in _SCORES.items() if name in names)
    return text + (_BASELINES if any(row == "mean" for row, _ in rows) else "")
