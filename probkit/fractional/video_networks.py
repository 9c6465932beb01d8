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

__all__ = ["Codes", "CoordinateDiffusion", "FrameDecoder", "VideoEncoder", "perceptron"]

_COARSEST = 4
_MAX_GROUPS = 8
_DENSE = 256
_DARK = -2.0


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
        >>> FrameDecoder((4, 8), 3)(torch.zeros(5, 3)).shape
        torch.Size([5, 16, 16])
    """

    def __init__(self, widths: Sequence[int], num_inputs: int, pooled: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(num_inputs, _DENSE), nn.SiLU(), nn.Linear(_DENSE, widths[-1] * _COARSEST**2)
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

    def forward(self, inputs: Float[Tensor, "M I"]) -> Float[Tensor, "M H W"]:
        maps = self.first(inputs).unflatten(-1, (self.width, _COARSEST, _COARSEST))
        return torch.sigmoid(self.stages(maps)[:, 0])


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


def perceptron(
    num_inputs: int, width: int, num_outputs: int, *, depth: int = 2, zero: bool = False
) -> nn.Sequential:
    """Dense layers with tanh between; ``zero`` makes the last one start from zero."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(num_inputs if number == 0 else width, width), nn.Tanh()]
    last = nn.Linear(width, num_outputs)
    if zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _norm(width: int) -> nn.GroupNorm:
    groups = max(g for g in range(1, _MAX_GROUPS + 1) if width % g == 0)
    return nn.GroupNorm(groups, width)
