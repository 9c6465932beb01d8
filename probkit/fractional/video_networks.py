"""Networks of the latent video model: frames to codes, codes to context, states to frames.

Source: Daems et al., ICLR 2024, arXiv 2310.12975: 3 x 3 convolution, maximum over 2 x 2, group norm
and SiLU, halved to 4 x 4 pixels; the decoder is the mirror image (``pooled=True``). By default a
4 x 4 convolution in steps of two takes the place of the first two, which is four times as fast on a
CPU: nothing is computed at full resolution. Then codes also hold keypoints, the mean places of 16
maps of 8 x 8, which say where things are to a fraction of a pixel. Widths and sizes are settings.

Source of keypoints: C. Finn et al., Deep Spatial Autoencoders, ICRA 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = [
    "Codes",
    "CoordinateDiffusion",
    "FrameDecoder",
    "FrameEncoder",
    "PositionDiffusion",
    "SpriteDecoder",
    "VideoEncoder",
    "perceptron",
    "waves",
]

_COARSEST = 4
_MAX_GROUPS = 8
_DENSE = 256
_DARK = -2.0
_FAINT = -1.5
_LEAST_SHARE = 0.1
_NUM_KEYPOINTS = 16
_SHARP = 2.0  # fixed: the convolution before learns the rest
_NUM_WAVES = 3


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


class FrameEncoder(nn.Module):
    """Features of a frame from its coarsest maps, and from keypoints unless ``pooled``.

    Example:
        >>> FrameEncoder((4, 8), 10)(torch.zeros(3, 1, 16, 16)).shape
        torch.Size([3, 10])
    """

    grid: Tensor

    def __init__(self, widths: Sequence[int], num_features: int, pooled: bool = False) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for before, width in zip((1, *widths[:-1]), widths, strict=True):
            if pooled:
                halve = [nn.Conv2d(before, width, 3, padding=1), nn.MaxPool2d(2)]
            else:
                halve = [nn.Conv2d(before, width, 4, stride=2, padding=1)]
            stages.append(nn.Sequential(*halve, _norm(width), nn.SiLU()))
        self.fine, self.coarse = nn.Sequential(*stages[:-1]), stages[-1]
        inputs = widths[-1] * _COARSEST**2
        self.keypoints: nn.Conv2d | None = None
        if not pooled:
            finer = (1, *widths)[-2]
            self.keypoints = nn.Conv2d(finer, _NUM_KEYPOINTS, 3, padding=1)
            inputs += 2 * _NUM_KEYPOINTS
        across = torch.linspace(-1, 1, 2 * _COARSEST, dtype=torch.get_default_dtype())
        self.register_buffer("grid", across)
        self.last = nn.Linear(inputs, num_features)

    def forward(self, frames: Float[Tensor, "F 1 H W"]) -> Float[Tensor, "F M"]:
        fine = self.fine(frames)
        found = self.coarse(fine).flatten(1)
        if self.keypoints is not None:
            maps = self.keypoints(fine)
            shares = torch.softmax(_SHARP * maps.flatten(2), -1).unflatten(-1, maps.shape[2:])
            rows, columns = shares.sum(-1) @ self.grid, shares.sum(-2) @ self.grid
            found = torch.cat([found, 2 * rows, 2 * columns], -1)
        features: Tensor = self.last(found)
        return features


class VideoEncoder(nn.Module):
    """Codes of a video: h_i of every frame, their median as content, g_i by temporal convolution.

    Args:
        size: height and width of a frame, 4 times a power of 2.
        widths: channels of every stage; as many as halvings of ``size`` down to 4.
        num_features: length of h_i.
        num_content: length of the content.
        num_context: length of g_i.
        num_start: length of the settings of the start, a linear function of g_0, h_0, h_1, h_2.
        pooled: halve by a maximum, as published, and not by strided convolutions; no keypoints.

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
        self.frames = FrameEncoder(widths, num_features, pooled)
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
        inputs = (2 * _NUM_WAVES + 1) * num_positions
        self.net = perceptron(inputs, 2 * width, num_positions, depth=1, zero=True, start=start)

    def forward(self, positions: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        found: Tensor = self.least + softplus(self.net(waves(positions)))
        return found


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


def waves(positions: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P*7"]:
    """Positions, and their sines and cosines at periods 4, 2 and 4 / 3.

    What happens at both walls is an even function of the position, which layers of tanh learn
    slowly from the position alone. Source: A. Rahimi & B. Recht, NIPS 2007, for the idea.

    Example:
        >>> waves(torch.zeros(2)).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    numbers = torch.arange(1, _NUM_WAVES + 1, dtype=positions.dtype, device=positions.device)
    phase = positions[..., None] * (math.pi / 2) * numbers
    return torch.cat([positions, phase.sin().flatten(-2), phase.cos().flatten(-2)], -1)


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
