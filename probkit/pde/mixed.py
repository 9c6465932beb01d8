"""An exact equation beside noisy data or conditions: what counts as exact there.

Rows without noise alone need no scale: they are met to rounding. Beside rows with a standard
deviation they need one of their own, or the noisy rows would count as much as they do:

    y_exact = A x + e,  sd(e) = 1e-9 of the size of y;    y_noisy = B x + e,  sd(e) as given

1e-9 is far below any noise, and far enough above rounding that the noisy rows keep seven digits
beside weights of 1e9. A learned prior is made vague then (its variances times 1e6): it finds a
function that the exact rows leave free, such as a + b x of u'' = f, less probable than it is, and
would hold it at zero against the data. What exact rows leave free is thus for the noisy ones to
say, as in least squares.

Where the features cannot meet the exact rows that well, what is left of a block of them counts as
its standard deviation (:func:`left_over`), and the solve is repeated: else the spread would be that
of 1e-9, and functions that the features only nearly allow would be ruled out.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from probkit.pde.problem import Problem

__all__ = ["EXACT_SHARE", "VAGUE", "has_noisy_rows", "left_over", "source_size", "value_size"]

EXACT_SHARE, VAGUE = 1e-9, 1e6


def has_noisy_rows(problem: Problem) -> bool:
    """Whether data or a condition have a noise.

    Example:
        >>> from probkit.pde import PDE, Box, Condition, Term
        >>> ends = [Condition.dirichlet((0, 0)), Condition.dirichlet((0, 1), noise=0.1)]
        >>> has_noisy_rows(Problem(PDE([Term(1.0, (2,))]), Box([(0.0, 1.0)], 9), ends))
        True
    """
    data = problem.data is not None and problem.data[2] > 0
    return bool(data or any(condition.noise > 0 for condition in problem.conditions))


def value_size(values: list[Tensor]) -> float:
    """The largest of all values that conditions and data ask for; 0 where there are none."""
    return max((float(v.abs().max()) for v in values if len(v)), default=0.0)


def source_size(source: Float[Tensor, " n"], operator_size: float, values: list[Tensor]) -> float:
    """The size below which a residual of the equation is rounding, beside noisy rows.

    Args:
        source: f at the collocation points.
        operator_size: of the operator at the highest frequency seen.
        values: what conditions and data ask for.

    Example:
        >>> import torch
        >>> source_size(torch.zeros(3), 4.0, [torch.tensor([0.5])])
        2.0
    """
    size = max(float(source.abs().max()), operator_size * value_size(values))
    return size or operator_size


def left_over(weighed: Float[Tensor, " n"]) -> float:
    """Factor on the standard deviation of exact rows with these weighed residuals, at least 1.

    Example:
        >>> import torch
        >>> left_over(torch.tensor([3.0, -3.0])), left_over(torch.tensor([0.1]))
        (3.0, 1.0)
    """
    return max(1.0, float(weighed.square().mean().sqrt())) if len(weighed) else 1.0
