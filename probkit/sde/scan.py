"""The loop over steps of a path, with gradients that need memory for one segment only.

Reverse-mode differentiation keeps what every step computed: N times the activations of the
networks. Cut into segments of length m, only the states between segments are kept and a segment is
run again when its gradient is due: memory N / m states and m steps, least at m = sqrt(N), for a
second forward pass. (The reversible solver that needs no memory at all diverges on decaying modes.)

Source: Griewank & Walther, ACM TOMS 26 (2000), with one level of checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["scan_steps"]

States = tuple[Tensor, ...]
StepFunction = Callable[..., tuple[States, States]]


def scan_steps(
    step: StepFunction,
    states: States,
    inputs: States,
    *,
    segment: int | None = None,
) -> tuple[States, States]:
    """Run ``states, outputs = step(n, states, *[x[n] for x in inputs])`` for every n.

    Args:
        step: the transition; tensors that it closes over get their gradients.
        states: at the start.
        inputs: tensors with the steps in their first dimension.
        segment: steps between two checkpoints; None keeps everything.

    Returns:
        The last states, and the outputs of all steps, stacked in a new first dimension.

    Example:
        >>> def step(n, states, x):
        ...     total = states[0] + x
        ...     return (total,), (total,)
        >>> (last,), (sums,) = scan_steps(step, (torch.zeros(()),), (torch.ones(4),), segment=2)
        >>> sums.tolist()
        [1.0, 2.0, 3.0, 4.0]
    """
    count = len(inputs[0])
    if segment is None or segment >= count:
        return _run(step, states, inputs, 0, count)
    parts = []
    for first in range(0, count, segment):
        last = min(first + segment, count)
        states, outputs = checkpoint(
            *(_run, step, states, inputs, first, last),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        parts.append(outputs)
    return states, tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


def _run(
    step: StepFunction, states: States, inputs: States, first: int, last: int
) -> tuple[States, States]:
    found = []
    # taken apart at once: the gradient of x[n] would be zeros as large as x at every step
    rows = zip(*(x[first:last].unbind() for x in inputs), strict=True)
    for n, row in zip(range(first, last), rows, strict=True):
        states, outputs = step(n, states, *row)
        found.append(outputs)
    return states, tuple(torch.stack(pieces) for pieces in zip(*found, strict=True))
