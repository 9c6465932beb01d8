"""How the posterior of a latent path follows what an encoder says of positions and velocities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Aims", "Tracker", "steering"]

_FIRST_GAINS = (-1.0, 1.0)  # logits, of position and velocity
_SHARPNESS, _VELOCITY = 3.0, -1.0  # logarithms; 3 fits errors of .16, an eighth of a picture


class Aims(NamedTuple):
    """What the context says of every step, (N, B, P) each; ``live`` is (N, 1, 1).

    Attributes:
        position: next positions.
        velocity: next velocities.
        live: 0 at the last step, whose velocity no frame depends on, and 1 before.
    """

    position: Tensor
    velocity: Tensor
    live: Tensor


class Tracker(nn.Module):
    """What the context says of positions and velocities, and how far a path is off it.

    Both are linear in the context. With several objects the context says where objects are, not
    which one is which: a network that sees a few frames cannot know. Their order is the one that
    is nearest to the path, by weights ``softmax(-k (|q - q_c|^2 + r |v - v_c|^2))`` over all of
    them, k and r learned, so that an object stays the same where two cross. Source: data
    association in multiple-target tracking, Y. Bar-Shalom & T. Fortmann, Tracking and Data
    Association, 1988.

    Example:
        >>> tracker = Tracker(5, 4, num_objects=2)
        >>> aims = tracker(torch.randn(3, 2, 5))
        >>> aims.position.shape, aims.live.flatten().tolist()
        (torch.Size([3, 2, 4]), [1.0, 1.0, 0.0])
        >>> there = torch.cat([aims.position[0], aims.velocity[0]], -1)
        >>> swapped = there.unflatten(-1, (2, 2, 2)).flip(-2).flatten(1)
        >>> one = Aims(*(part[0] for part in aims))
        >>> first, second = tracker.errors(there, one, 1.0), tracker.errors(swapped, one, 1.0)
        >>> [
        ...     torch.allclose(a, b.unflatten(-1, (2, 2)).flip(-2).flatten(1), atol=1e-6)
        ...     for a, b in zip(first, second)
        ... ]
        [True, True]
    """

    def __init__(self, num_context: int, num_positions: int, num_objects: int = 1) -> None:
        super().__init__()
        self.read = nn.Linear(num_context, 2 * num_positions)
        self.shape = (num_objects, num_positions // num_objects)
        self.orders = list(permutations(range(num_objects)))
        if len(self.orders) > 1:
            self.log_sharpness = nn.Parameter(torch.tensor(_SHARPNESS))
            self.log_velocity = nn.Parameter(torch.tensor(_VELOCITY))

    def forward(self, context: Float[Tensor, "N B G"]) -> Aims:
        position, velocity = self.read(context).chunk(2, -1)
        live = torch.ones_like(context[:, :1, :1])
        live[-1] = 0
        return Aims(position, velocity, live)

    def errors(
        self, ahead: Float[Tensor, "B D"], aim: Aims, reach: float
    ) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]]:
        """How much the velocities would have to change for the aims of this step.

        Args:
            ahead: next positions and velocities that the prior expects.
            aim: of one step, (B, P) each.
            reach: what a unit of velocity moves in a step.

        Returns:
            What makes up for the positions in one step, and what for the velocities.
        """
        q, v = ahead.chunk(2, -1)
        position, velocity = aim.position, aim.velocity
        if len(self.orders) > 1:
            position, velocity = self._ordered(q, v, position, velocity)
        return (position - q) / reach, velocity - v

    def _ordered(
        self, q: Tensor, v: Tensor, position: Tensor, velocity: Tensor
    ) -> tuple[Tensor, Tensor]:
        q, v = (part.unflatten(-1, self.shape)[:, :, None] for part in (q, v))
        there, speed = (part.unflatten(-1, self.shape) for part in (position, velocity))
        far = (q - there[:, None]).square() + self.log_velocity.exp() * (
            v - speed[:, None]
        ).square()
        each = far.sum(-1)  # (B, J, J): of object j from aim i
        costs = torch.stack([each[:, range(len(o)), o].sum(-1) for o in self.orders], -1)
        shares = torch.softmax(-self.log_sharpness.exp() * costs, -1)
        orders = torch.tensor(self.orders, device=q.device)
        mixed = (
            (part[:, orders] * shares[..., None, None]).sum(1).flatten(1) for part in (there, speed)
        )
        return next(mixed), next(mixed)


def steering(
    errors: tuple[Tensor, Tensor], logits: Sequence[Float[Tensor, "B P"]]
) -> Float[Tensor, "B P"]:
    """Change of velocities by shares of ``Tracker.errors``, which start at a quarter of that of
    positions and three quarters of that of velocities."""
    shares = (torch.sigmoid(x + first) for x, first in zip(logits, _FIRST_GAINS, strict=True))
    position, velocity = (share * error for share, error in zip(shares, errors, strict=True))
    return position + velocity
