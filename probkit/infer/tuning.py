"""Step size and trajectory length of Hamiltonian Monte Carlo, adapted from all chains at once.

Step size: dual averaging of the acceptance rate (Hoffman & Gelman, JMLR 15 (2014), eqs. 6, 7).

Trajectory length ``T``: ascent on the expected squared change of the squared distance to the mean,
ChEES (Hoffman, Radul & Sountsov, AISTATS 2021). A trajectory of duration ``t`` that takes ``z`` to
``z'`` with momentum ``p'`` gives, for each chain weighted by its acceptance probability,

    d / d log t = t (norm(z' - m')^2 - norm(z - m)^2) (z' - m') . p',

followed by a step of Adam on ``log T``. Positions are in units of the estimated posterior sd, where
a quarter of the period of a Gaussian is ``T = pi / 2``: the starting value. Durations are
``T (1/2 + h)`` with ``h`` from the van der Corput sequence, so that no period is met by chance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Tuning", "duration", "length_gradient"]

_SHRINKAGE, _DELAY, _FORGETTING = 0.05, 10.0, 0.75
_RATE, _FIRST_DECAY, _SECOND_DECAY = 0.025, 0.9, 0.95
_SHORTEST, _LONGEST = 0.1, 50.0


class Tuning(NamedTuple):
    """Running values of both adaptations; all numbers, so that they fit one tensor.

    Args:
        log_step: logarithm of the step size in use.
        centre: that the dual averaging shrinks towards.
        average: of the logarithms of the step sizes so far.
        excess: running mean of target minus acceptance.
        trials: trajectories since the last restart.
        log_length: logarithm of ``T``.
        first, second: Adam's moments for ``log_length``.
        moves: of ``log_length`` so far.

    Example:
        >>> tuning = Tuning.start(0.5).accept(0.2, target=0.8)
        >>> tuning.step < 0.5  # too few were accepted
        True
        >>> Tuning(*tuning.tensor().tolist()) == tuning
        True
    """

    log_step: float
    centre: float
    average: float
    excess: float = 0.0
    trials: float = 0.0
    log_length: float = math.log(math.pi / 2)
    first: float = 0.0
    second: float = 0.0
    moves: float = 0.0

    @classmethod
    def start(cls, step: float) -> Tuning:
        """Before the first trajectory, from a guess of the step size."""
        return cls(math.log(step), math.log(step), math.log(step))

    @property
    def step(self) -> float:
        return math.exp(self.log_step)

    @property
    def length(self) -> float:
        return math.exp(self.log_length)

    def tensor(self) -> Float[Tensor, " number"]:
        """All values in float64, from which ``Tuning(*tensor.tolist())`` is the same."""
        return torch.tensor(tuple(self), dtype=torch.float64)

    def accept(self, rate: float, *, target: float) -> Tuning:
        """After a trajectory with this acceptance rate."""
        trials = self.trials + 1
        weight = 1 / (trials + _DELAY)
        excess = (1 - weight) * self.excess + weight * (target - rate)
        log_step = self.centre - math.sqrt(trials) / _SHRINKAGE * excess
        share = trials**-_FORGETTING
        average = share * log_step + (1 - share) * self.average
        return self._replace(log_step=log_step, average=average, excess=excess, trials=trials)

    def restart(self) -> Tuning:
        """The dual averaging anew from the average; after a change of the metric."""
        # twice the average: too large steps are corrected faster than too small ones
        return self.settle()._replace(centre=self.average + math.log(2), excess=0.0, trials=0.0)

    def settle(self) -> Tuning:
        """The step size at its average; what the draws are made with."""
        return self._replace(log_step=self.average)

    def lengthen(self, gradient: float) -> Tuning:
        """After a trajectory with this gradient in ``log_length``; one without meaning is left."""
        if not math.isfinite(gradient):
            return self
        moves = self.moves + 1
        first = _FIRST_DECAY * self.first + (1 - _FIRST_DECAY) * gradient
        second = _SECOND_DECAY * self.second + (1 - _SECOND_DECAY) * gradient**2
        if second == 0:
            return self
        scaled = first / (1 - _FIRST_DECAY**moves)
        log_length = self.log_length + _RATE * scaled / math.sqrt(
            second / (1 - _SECOND_DECAY**moves)
        )
        bounded = min(max(log_length, math.log(_SHORTEST)), math.log(_LONGEST))
        return self._replace(log_length=bounded, first=first, second=second, moves=moves)


def duration(length: float, number: int) -> float:
    """Duration of trajectory ``number``: ``length`` times a number in (1/2, 3/2).

    Example:
        >>> [duration(1.0, n) for n in range(4)]
        [1.0, 0.75, 1.25, 0.625]
    """
    fraction, digit, rest = 0.0, 0.5, number + 1
    while rest:
        fraction += digit * (rest & 1)
        rest >>= 1
        digit /= 2
    return length * (0.5 + fraction)


def length_gradient(
    time: float,
    before: Float[Tensor, "chain size"],
    after: Float[Tensor, "chain size"],
    momentum: Float[Tensor, "chain size"],
    acceptance: Float[Tensor, " chain"],
) -> float:
    """ChEES gradient of one trajectory in ``log T``; positions in units of the posterior sd.

    NaN where no chain was accepted with a probability above zero.
    """
    kept = acceptance > 0
    before, after, momentum = before[kept], after[kept], momentum[kept]
    weight = acceptance[kept]
    total = weight.sum()
    if not float(total) > 0:
        return math.nan
    start = before - before.mean(0)
    end = after - (weight[:, None] * after).sum(0) / total
    change = end.square().sum(-1) - start.square().sum(-1)
    slope = change * (end * momentum).sum(-1)
    return float(time * (weight * slope).sum() / total)
