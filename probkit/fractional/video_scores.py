"""How well frames are predicted: PSNR, beside what needs no model.

``PSNR = -10 log10(mean squared error of a frame)`` for pixels in [0, 1], in dB, averaged over
frames and videos. The forecast of a model is the mean of its draws, one for each video, which the
baselines are comparable with; the best of the draws, chosen with the truth at hand as is customary
for stochastic videos, is given too (Franceschi et al., ICML 2020: the best of a hundred by its mean
over frames).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ShapeError, message

__all__ = ["baseline_psnr", "prediction_psnr", "psnr"]

_LEAST_ERROR = 1e-10


def psnr(
    predicted: Float[Tensor, "*batch H W"], truth: Float[Tensor, "*batch H W"]
) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio of every frame in dB, at most 100.

    Example:
        >>> float(psnr(torch.full((4, 4), 0.1, dtype=torch.float64), torch.zeros(4, 4)))
        20.0
    """
    error = (predicted - truth).square().mean((-2, -1))
    return -10 * error.clamp_min(_LEAST_ERROR).log10()


def prediction_psnr(
    draws: Float[Tensor, "S B F H W"], truth: Float[Tensor, "B F H W"]
) -> dict[str, float]:
    """Scores of draws of the frames to come: ``mean`` of the draws as forecast, ``best`` draw.

    Raises:
        ShapeError: draws of other videos or frames than the truth.
    """
    if draws.shape[1:] != truth.shape:
        raise ShapeError(
            message(
                "Draws must be of the frames that came",
                where="draws",
                got=tuple(draws.shape),
                expected=f"(S, {', '.join(map(str, truth.shape))})",
            )
        )
    each = torch.stack([psnr(draw, truth).mean(-1) for draw in draws])
    return {
        "mean": float(psnr(draws.mean(0), truth).mean()),
        "best": float(each.max(0).values.mean()),
    }


def baseline_psnr(
    known: Float[Tensor, "B n H W"],
    truth: Float[Tensor, "B F H W"],
    mean_frame: Float[Tensor, "H W"],
) -> dict[str, float]:
    """Scores of forecasts without a model: the last known frame, the mean of a video's known
    frames, and the mean of all frames of other videos, which is given.
    """
    forecasts = {
        "last frame": known[:, -1:],
        "mean of known frames": known.mean(1, keepdim=True),
        "mean frame": mean_frame,
    }
    return {
        name: float(psnr(value.expand_as(truth), truth).mean()) for name, value in forecasts.items()
    }
