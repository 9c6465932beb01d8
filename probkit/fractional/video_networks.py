"""Networks of the latent video model: frames to codes, codes to context, states to frames.

Source: Daems et al., ICLR 2024, arXiv 2310.12975: 3 x 3 convolution, maximum over 2 x 2, group norm
and SiLU, halved to 4 x 4 pixels; the decoder is the mirror image (``pooled=True``). By default a
4 x 4 convolution in steps of two takes the place of the first two, which is four times as fast on a
CPU: nothing is computed at full resolution. Widths and sizes are settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = [
    "Aims",
    "Codes",
    "CoordinateDiffusion",
    "FrameDecoder",
    "PositionDiffusion",
    "SpriteDecoder",
    "Tracker",
    "VideoEncoder",
    "perceptron",
]

_COARSEST = 4
_MAX_GROUPS = 8
_DENSE = 256
_DARK = -2.0
_FAINT = -1.5
_LEAST_SHARE = 0.1
_FEEDBACK, _TRUST = -0.5, 1.0  # logits


class Codes(NamedTuple):
    """What the encoder says of a video.

    Attributes:
        content: what does not move, (B, C).
        context: g at every frame, (B, T, G).
        start: settings of the law of the start, (B, S).
    """

    content: Float[Tensor, "B C"]
    context: Float[Tensor, "B T G"]
    start: Float[Tensor, "B S"]


class VideoEncoder(nn.Module):
    """Codes of a video: h_i of every frame, their median as content, g_i by temporal convolution.

    Args:
        size: height and width of a frame, 4 times a power of 2.
        widths: channels of every stage; as many as halvings of ``size`` down to 4.
        num_features: length of h_i.
        num_content: length of the content.
        num_context: length of g_i.
        num_start: length of the settings of the start, a linear function of g_0, h_0, h_1, h_2.
        pooled: halve by a maximum, as published, and not by strided convolutions.

    Example:
        >>> sizes = {"num_features": 10, "num_content": 6, "num_context": 5, "num_start": 8}
        >>> codes = VideoEncoder(16, (4, 8), **sizes)(torch.zeros(2, 7, 16, 16))
        >>> [tuple(part.shape) for part in codes]
        [(2, 6), (2, 7, 5), (2, 8)]
    """

    def __init__(
        self,
        size: int,
        widths: Sequence[int],
        *,
        num_features: int,
        num_content: int,
        num_context: int,
        num_start: int,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for before, width in zip((1, *widths[:-1]), widths, strict=True):
            if pooled:
                stages += [nn.Conv2d(before, width, 3, padding=1), nn.MaxPool2d(2)]
            else:
                stages.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
            stages += [_norm(width), nn.SiLU()]
        self.frames = nn.Sequential(
            *stages, nn.Flatten(), nn.Linear(widths[-1] * _COARSEST**2, num_features)
        )
        self.content = perceptron(num_features, num_content, num_content, depth=1)
        self.temporal = nn.Sequential(
            nn.Conv1d(num_features, num_context, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(num_context, num_context, 3, padding=1),
        )

        self.start = nn.Linear(num_context + 3 * num_features, num_start)

    def forward(self, frames: Float[Tensor, "B T H W"]) -> Codes:
        features = self.frames(frames.flatten(0, 1)[:, None]).unflatten(0, frames.shape[:2])
        content = self.content(features.median(1).values)
        context = self.temporal(features.mT).mT
        start = self.start(torch.cat([context[:, 0], features[:, :3].flatten(1)], -1))
        return Codes(content, context, start)


class FrameDecoder(nn.Module):
    """Mean of a frame's pixels from the state and the content, in (0, 1); dark at the start.

    Example:
        >>> FrameDecoder((4, 8), 3, 2)(torch.zeros(5, 7, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 7, 16, 16])
    """

    def __init__(
        self, widths: Sequence[int], num_states: int, num_content: int, pooled: bool = False
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(num_states + num_content, _DENSE),
            nn.SiLU(),
            nn.Linear(_DENSE, widths[-1] * _COARSEST**2),
        )
        stages: list[nn.Module] = []
        last: nn.Conv2d | nn.ConvTranspose2d
        backwards = tuple(reversed(widths))
        for width, after in zip(backwards, (*backwards[1:], 1), strict=True):
            stages += [_norm(width), nn.SiLU()]
            if pooled:
                stages.append(nn.Upsample(scale_factor=2))
                last = nn.Conv2d(width, after, 3, padding=1)
            else:
                last = nn.ConvTranspose2d(width, after, 4, stride=2, padding=1)
            stages.append(last)
        assert last.bias is not None
        nn.init.constant_(last.bias, _DARK)
        self.stages = nn.Sequential(*stages)
        self.width = widths[-1]

    def forward(
        self, states: Float[Tensor, "B F D"], content: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B F H W"]:
        still = content[:, None].expand(*states.shape[:2], -1)
        inputs = torch.cat([states, still], -1).flatten(0, 1)
        maps = self.first(inputs).unflatten(-1, (self.width, _COARSEST, _COARSEST))
        return torch.sigmoid(self.stages(maps)[:, 0]).unflatten(0, states.shape[:2])


class CoordinateDiffusion(nn.Module):
    """s_d(x_d) > 0: a network of its own for every coordinate, all in one product.

    Example:
        >>> diffusion = CoordinateDiffusion(3, 8, initial=0.5)
        >>> torch.allclose(diffusion(torch.randn(2, 3)), torch.tensor(0.5))
        True
    """

    def __init__(self, dim: int, width: int, initial: float) -> None:
        super().__init__()
        sizes = (1, width, width, 1)
        self.weights = nn.ParameterList(torch.randn(dim, m, n) / m**0.5 for m, n in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(dim, 1, n) for n in sizes[1:])
        with torch.no_grad():
            self.weights[-1].zero_()
            self.biases[-1].fill_(float(torch.tensor(initial, dtype=torch.float64).expm1().log()))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        values = x.reshape(-1, x.shape[-1]).mT[..., None]  # (D, B, 1)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values, weight)
            if number < len(self.weights) - 1:
                values = torch.tanh(values)
        return softplus(values[..., 0].mT).reshape(x.shape)


class PositionDiffusion(nn.Module):
    """s(q) > 0 of all velocities, a network of the positions; never below a tenth of its start.

    The bound keeps the posterior able to move: noise that vanishes before the decoder has learned
    where things are cannot come back, because nothing then depends on it.

    Example:
        >>> diffusion = PositionDiffusion(3, 8, initial=0.5)
        >>> torch.allclose(diffusion(torch.randn(2, 3)), torch.tensor(0.5))
        True
    """

    def __init__(self, num_positions: int, width: int, initial: float) -> None:
        super().__init__()
        self.least = _LEAST_SHARE * initial
        above = torch.tensor(initial - self.least, dtype=torch.float64)
        start = float(above.expm1().log())
        self.net = perceptron(num_positions, width, num_positions, zero=True, start=start)

    def forward(self, positions: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        found: Tensor = self.least + softplus(self.net(positions))
        return found


class Aims(NamedTuple):
    """What the context says of every step, (N, B, P) each; ``live`` is (N, 1, 1).

    Attributes:
        position: next positions.
        velocity: next velocities.
        trust: share of the way to them that the posterior goes, in (0, 1).
        live: 0 at the last step, whose velocity no frame depends on, and 1 before.
    """

    position: Tensor
    velocity: Tensor
    trust: Tensor
    live: Tensor


class Tracker(nn.Module):
    """Steers velocities: forwards by the context's velocity, back by its position.

    The wanted velocity is ``v* = v_c + k (q_c - q) / r``, with v_c and q_c linear in the context, q
    the next position, r what a unit of velocity moves in a step and k in (0, 1) learned. The
    posterior mean goes a share of the way from the prior's to it.

    Example:
        >>> tracker = Tracker(5, 2)
        >>> aims = tracker(torch.randn(3, 4, 5))
        >>> aims.position.shape, aims.live.flatten().tolist()
        (torch.Size([3, 4, 2]), [1.0, 1.0, 0.0])
    """

    def __init__(self, num_context: int, num_positions: int) -> None:
        super().__init__()
        self.read = nn.Linear(num_context, 2 * num_positions)
        self.weigh = nn.Linear(num_context, num_positions)
        self.feedback = nn.Parameter(torch.full((num_positions,), _FEEDBACK))
        nn.init.zeros_(self.weigh.weight)
        nn.init.constant_(self.weigh.bias, _TRUST)

    def forward(self, context: Float[Tensor, "N B G"]) -> Aims:
        position, velocity = self.read(context).chunk(2, -1)
        live = torch.ones_like(context[:, :1, :1])
        live[-1] = 0
        return Aims(position, velocity, torch.sigmoid(self.weigh(context)), live)

    def shift(
        self,
        ahead: Float[Tensor, "B D"],
        aim: Aims,
        reach: float,
    ) -> Float[Tensor, "B P"]:
        """Change of the velocities that the prior expects, by the aims of this step.

        Args:
            ahead: next positions and velocities that the prior expects.
            aim: of one step, (B, P) each.
            reach: what a unit of velocity moves in a step.
        """
        q, v = ahead.chunk(2, -1)
        wanted = aim.velocity + torch.sigmoid(self.feedback) * (aim.position - q) / reach
        return aim.trust * (wanted - v)


class SpriteDecoder(nn.Module):
    """Frames of objects that move and do not change: a picture each, put at its position.

    The pictures, half a frame wide, come from the content, once a video; positions are pairs of
    coordinates in units of a quarter of the frame, 0 in the middle. Pixels between are bilinear and
    objects overlay as ``1 - prod(1 - s)``. Positions mean what they say, and no network has to
    learn what moving is. Source: M. Jaderberg et al., Spatial Transformer Networks, NIPS 2015.

    Example:
        >>> decoder = SpriteDecoder(16, num_objects=2, num_content=3)
        >>> decoder(torch.zeros(5, 7, 4), torch.zeros(5, 3)).shape
        torch.Size([5, 7, 16, 16])
    """

    pixels: Tensor
    inside: Tensor

    def __init__(self, size: int, num_objects: int, num_content: int) -> None:
        super().__init__()
        self.size, self.num_objects, self.side = size, num_objects, size // 2
        last = nn.Linear(_DENSE, num_objects * self.side**2)
        self.pictures = nn.Sequential(
            *(nn.Linear(num_content, _DENSE), nn.SiLU(), nn.Linear(_DENSE, _DENSE), nn.SiLU()), last
        )
        self.register_buffer("pixels", torch.arange(size, dtype=torch.get_default_dtype()))
        self.register_buffer("inside", torch.arange(self.side, dtype=torch.get_default_dtype()))
        across = torch.linspace(-1, 1, self.side).square()
        blob = torch.exp(-2 * (across[:, None] + across)).flatten()
        with torch.no_grad():  # faint, so that an object finds what it is near
            last.bias.copy_((blob + _FAINT).repeat(num_objects))

    def forward(
        self, positions: Float[Tensor, "B F P"], content: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B F H W"]:
        side = self.side
        pictures = torch.sigmoid(self.pictures(content)).unflatten(1, (1, -1, side, side))
        corner = (positions.unflatten(-1, (-1, 2)) + 1) * (side / 2)  # (B, F, J, 2)
        where = self.pixels - corner[..., None]
        shares = (1 - (where[..., None] - self.inside).abs()).clamp_min(0)  # (B, F, J, 2, H, side)
        rows, columns = shares.unbind(3)
        return 1 - (1 - rows @ pictures @ columns.mT).prod(2)


def perceptron(
    num_inputs: int,
    width: int,
    num_outputs: int,
    *,
    depth: int = 2,
    zero: bool = False,
    start: float = 0.0,
) -> nn.Sequential:
    """Dense layers with tanh between; ``zero`` makes the outputs start as ``start``."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(num_inputs if number == 0 else width, width), nn.Tanh()]
    last = nn.Linear(width, num_outputs)
    if zero:
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, start)
    return nn.Sequential(*layers, last)


def _norm(width: int) -> nn.GroupNorm:
    groups = max(g for g in range(1, _MAX_GROUPS + 1) if width % g == 0)
    return nn.GroupNorm(groups, width)
